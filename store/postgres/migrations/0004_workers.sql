-- Workers, and the runs that they answer. A worker lives as long as a session holds the advisory lock of its
-- number, which the server releases when the session ends, however it ends.

CREATE TABLE workers (
    worker_id text COLLATE "C" NOT NULL,
    lock_number bigint NOT NULL,
    -- What it tells about itself, as JSON.
    state text NOT NULL,
    PRIMARY KEY (worker_id)
);

-- A run that a worker has claimed and not ended, with the id that its message will have.
CREATE TABLE answers (
    thread_id text COLLATE "C" NOT NULL,
    run_id text COLLATE "C" NOT NULL,
    worker_id text COLLATE "C" NOT NULL,
    message_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (thread_id, run_id)
);

-- The text of an answer while it grows: pieces of UTF-8, and where in the text each starts.
CREATE TABLE answer_texts (
    thread_id text COLLATE "C" NOT NULL,
    run_id text COLLATE "C" NOT NULL,
    message_id text COLLATE "C" NOT NULL,
    start bigint NOT NULL,
    piece bytea NOT NULL,
    PRIMARY KEY (thread_id, run_id, message_id, start)
);

-- The order in which runs were made. Runs that are there have the time of their document, as before.
CREATE SEQUENCE run_order;
ALTER TABLE runs ADD COLUMN made bigint NOT NULL DEFAULT 0;
ALTER TABLE runs ALTER COLUMN made SET DEFAULT nextval('run_order');
