-- When a row last changed by whatever means, which includes that its time was set: a time that nobody can set
-- back, by which backup programs find what has changed. Rows that are there count as changed now. PostgreSQL
-- keeps such a default beside the table, and rewrites no row.

ALTER TABLE threads
    ADD COLUMN changed_ns bigint NOT NULL DEFAULT (extract(epoch FROM now()) * 1000000)::bigint * 1000,
    ADD COLUMN log_changed_ns bigint NOT NULL DEFAULT (extract(epoch FROM now()) * 1000000)::bigint * 1000;
ALTER TABLE runs
    ADD COLUMN changed_ns bigint NOT NULL DEFAULT (extract(epoch FROM now()) * 1000000)::bigint * 1000;
ALTER TABLE steps
    ADD COLUMN changed_ns bigint NOT NULL DEFAULT (extract(epoch FROM now()) * 1000000)::bigint * 1000;

ALTER TABLE threads
    ALTER COLUMN changed_ns SET DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000,
    ALTER COLUMN log_changed_ns SET DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000;
ALTER TABLE runs
    ALTER COLUMN changed_ns SET DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000;
ALTER TABLE steps
    ALTER COLUMN changed_ns SET DEFAULT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint * 1000;
