-- A role that can do all that the program does, and cannot change the tables. Run it in the database of the
-- store, as the owner of the tables, once they are there, and again when there are new ones:
--
--   psql -v ON_ERROR_STOP=1 -f roles.sql DATABASE
--
-- Roles belong to the whole server. If the owner may not make any, somebody who may does it first:
--
--   psql -c "CREATE ROLE threadfs_worker" DATABASE
--   psql -c "CREATE ROLE alice LOGIN PASSWORD '…' IN ROLE threadfs_worker" DATABASE

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'threadfs_worker') THEN
        CREATE ROLE threadfs_worker;
    END IF;
END $$;
GRANT USAGE ON SCHEMA threadfs TO threadfs_worker;
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA threadfs TO threadfs_worker;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA threadfs TO threadfs_worker;
REVOKE INSERT, UPDATE, DELETE ON threadfs.migrations FROM threadfs_worker;
