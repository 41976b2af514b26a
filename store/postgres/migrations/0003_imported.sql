-- When a thread was imported: its other times may then be older. 0 for one that was made here.

ALTER TABLE threads ADD COLUMN imported_ns bigint NOT NULL DEFAULT 0;
