-- The words of messages, for searches. They are derived: whoever searches has them made of what was appended
-- since, by programs that know of them or not, and until then reads that as it is.

-- How much of a thread's log has its words here: so many lines, which have so many bytes.
CREATE TABLE worded_logs (
    thread_id text COLLATE "C" NOT NULL REFERENCES threads ON DELETE CASCADE,
    lines bigint NOT NULL,
    bytes bigint NOT NULL,
    PRIMARY KEY (thread_id)
) WITH (fillfactor = 80);

-- A message; a long one has several rows.
CREATE TABLE words (
    thread_id text COLLATE "C" NOT NULL REFERENCES worded_logs ON DELETE CASCADE,
    -- Of the log, from 1 on.
    line bigint NOT NULL,
    -- 0 when it is all of the message; else from 1 on.
    part integer NOT NULL,
    -- 0: of the user, 1: of the assistant.
    kind smallint NOT NULL,
    -- In seconds since 1970, as the message says.
    created_at bigint NOT NULL,
    -- Folded and cut by the program. PostgreSQL's parser never sees them.
    words tsvector NOT NULL,
    PRIMARY KEY (thread_id, line, part)
);

-- Each search looks at all words that wait to be sorted into an index: they are few.
CREATE INDEX words_of_messages ON words USING gin (words) WITH (gin_pending_list_limit = 512) WHERE part = 0;
CREATE INDEX words_of_parts ON words USING gin (words) WITH (gin_pending_list_limit = 512) WHERE part > 0;
-- The newest hits of a word that many messages have are found by going back in time.
CREATE INDEX words_by_time ON words (created_at DESC, thread_id, line DESC) WHERE part = 0;
