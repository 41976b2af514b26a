-- Splits the tables of a store into partitions by a hash of the thread's id. The program needs no change and
-- no restart: it waits while this runs, and afterwards finds the same rows under the same names.
--
--   psql -v ON_ERROR_STOP=1 -v partitions=16 -f partitioning.sql DATABASE

BEGIN;
SET LOCAL search_path = threadfs;
SELECT set_config('threadfs.partitions', :'partitions', true);

DO $$
DECLARE
    partitions integer := current_setting('threadfs.partitions');
    -- Those of words are not there in a database of an older version.
    of_threads text[] := ARRAY(
        SELECT name FROM unnest(ARRAY['threads', 'messages', 'deleted_logs', 'runs', 'steps', 'commits',
            'worded_logs', 'words']) AS name
        WHERE to_regclass(name) IS NOT NULL);
    partitioned text;
BEGIN
    EXECUTE 'LOCK TABLE ' || array_to_string(of_threads, ', ');
    FOREACH partitioned IN ARRAY of_threads LOOP
        EXECUTE format('ALTER TABLE %I RENAME TO %I', partitioned, 'whole_' || partitioned);
        -- With its columns, defaults, primary key and indexes.
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL) PARTITION BY HASH (thread_id)',
            partitioned, 'whole_' || partitioned);
        FOR remainder IN 0 .. partitions - 1 LOOP
            EXECUTE format(
                'CREATE TABLE %I PARTITION OF %I FOR VALUES WITH (MODULUS %s, REMAINDER %s) WITH (fillfactor = %s)',
                partitioned || '_' || remainder, partitioned, partitions, remainder,
                CASE WHEN partitioned IN ('threads', 'runs', 'worded_logs') THEN 80 ELSE 100 END);
        END LOOP;
        EXECUTE format('INSERT INTO %I SELECT * FROM %I', partitioned, 'whole_' || partitioned);
    END LOOP;
    EXECUTE 'DROP TABLE whole_' || array_to_string(of_threads, ', whole_');
    ALTER TABLE runs ADD FOREIGN KEY (thread_id) REFERENCES threads ON DELETE CASCADE;
    ALTER TABLE steps ADD FOREIGN KEY (thread_id, run_id) REFERENCES runs ON DELETE CASCADE;
    IF 'words' = ANY(of_threads) THEN
        ALTER TABLE worded_logs ADD FOREIGN KEY (thread_id) REFERENCES threads ON DELETE CASCADE;
        ALTER TABLE words ADD FOREIGN KEY (thread_id) REFERENCES worded_logs ON DELETE CASCADE;
    END IF;
END $$;

-- The tables are new ones: run roles.sql again, for those who use the store.
COMMIT;
