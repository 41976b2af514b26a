-- The tables of a store. Every primary key begins with the thread's id, and every statement of the program
-- but the listings names it, so that the tables can be partitioned or distributed by it: see partitioning.sql.
--
-- A document is kept as the bytes that a store on a disk would hold. What is asked for without reading it
-- (its size, time, status) stands beside it. Times are nanoseconds since 1970, of the server's clock;
-- a version is a random number given with each change.

CREATE TABLE threads (
    thread_id text COLLATE "C" NOT NULL,
    document bytea NOT NULL,
    modified_ns bigint NOT NULL,
    version bigint NOT NULL,
    -- The log's lines are in messages under this number. A thread made anew has another log.
    log_id bigint NOT NULL,
    log_bytes bigint NOT NULL DEFAULT 0,
    log_modified_ns bigint NOT NULL DEFAULT 0,
    -- When a run last came or went.
    runs_modified_ns bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (thread_id)
) WITH (fillfactor = 80); -- Room for the next version of a row in its page: an append changes no index.

-- A line of a log, with its newline, and where in the log it starts. No reference to threads: a reader goes
-- on reading the log it has open when the thread is deleted.
CREATE TABLE messages (
    thread_id text COLLATE "C" NOT NULL,
    log_id bigint NOT NULL,
    start bigint NOT NULL,
    line bytea NOT NULL,
    PRIMARY KEY (thread_id, log_id, start)
);

-- Logs of deleted threads, whose lines go a while later.
CREATE TABLE deleted_logs (
    thread_id text COLLATE "C" NOT NULL,
    log_id bigint NOT NULL,
    deleted_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (thread_id, log_id)
);

CREATE TABLE runs (
    thread_id text COLLATE "C" NOT NULL REFERENCES threads ON DELETE CASCADE,
    run_id text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    document bytea NOT NULL,
    modified_ns bigint NOT NULL,
    version bigint NOT NULL,
    -- When a step last came, went or changed.
    steps_modified_ns bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (thread_id, run_id) INCLUDE (status)
) WITH (fillfactor = 80);

-- Listing the runs in a status reads no other run, and no document.
CREATE INDEX runs_by_status ON runs (status, thread_id, run_id);
-- Likewise the runs that have not ended, oldest change first.
CREATE INDEX runs_unfinished ON runs (modified_ns, thread_id, run_id) INCLUDE (status)
    WHERE status IN ('queued', 'in_progress', 'requires_action', 'cancelling');

CREATE TABLE steps (
    thread_id text COLLATE "C" NOT NULL,
    run_id text COLLATE "C" NOT NULL,
    step_id text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    document bytea NOT NULL,
    modified_ns bigint NOT NULL,
    version bigint NOT NULL,
    PRIMARY KEY (thread_id, run_id, step_id),
    FOREIGN KEY (thread_id, run_id) REFERENCES runs ON DELETE CASCADE
);

-- One row for a change that was committed, until the program knows that it was: a program that lost the
-- connection while it waited for the answer finds it here, or not.
CREATE TABLE commits (
    thread_id text COLLATE "C" NOT NULL,
    token bigint NOT NULL,
    committed_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (thread_id, token)
);
