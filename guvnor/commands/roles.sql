-- The roles of Guvnor's database. Run this script in that database as a superuser, or as a role with
-- CREATEROLE that owns the database and may grant pg_read_all_stats. It can be run again. Afterwards, give
-- each login a password (psql: \password ROLE), and configure the migrator with:
--   storage.role (GUVNOR_STORAGE_ROLE): :owner
--   schema.grantees (GUVNOR_SCHEMA_GRANTEES): :application,:read_only
-- Where a table forces row security, migrations of its rows also need, from a superuser:
--   ALTER ROLE :"owner" BYPASSRLS;
BEGIN;
SET LOCAL lock_timeout = '200ms';
SET LOCAL search_path = public;

-- An administrator who is not a superuser has to be a member of the owner, to give objects to it and to set
-- its default privileges. The creator of a role may grant it to themselves.
DO $$
DECLARE
    wanted name;
BEGIN
    FOREACH wanted IN ARRAY ARRAY[:'owner', :'migrator', :'application', :'read_only']::name[] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = wanted) THEN
            EXECUTE format('CREATE ROLE %I', wanted);
        END IF;
    END LOOP;
    IF NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN
        EXECUTE format('GRANT %I TO %I', :'owner', current_user);
    END IF;
END
$$;
ALTER ROLE :"owner" NOLOGIN INHERIT;
ALTER ROLE :"migrator" LOGIN NOINHERIT;
ALTER ROLE :"application" LOGIN;
ALTER ROLE :"read_only" LOGIN;

-- The migrator acts as the owner. The owner can see which sessions wait, and who blocks them.
GRANT :"owner" TO :"migrator";
GRANT pg_read_all_stats TO :"owner";

-- The owner creates extensions and, temporarily, the schema in which the expected schema is built.
DO $$
DECLARE
    login name;
BEGIN
    EXECUTE format('GRANT CREATE ON DATABASE %I TO %I', current_database(), :'owner');
    FOREACH login IN ARRAY ARRAY[:'migrator', :'application', :'read_only']::name[] LOOP
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), login);
        EXECUTE format('REVOKE CREATE ON DATABASE %I FROM %I', current_database(), login);
    END LOOP;
END
$$;
ALTER SCHEMA public OWNER TO :"owner";
REVOKE CREATE ON SCHEMA public FROM PUBLIC, :"migrator", :"application", :"read_only";
GRANT USAGE ON SCHEMA public TO :"application", :"read_only";

-- Existing objects belong to the owner.
DO $$
DECLARE
    object record;
BEGIN
    FOR object IN WITH objects AS (
:objects
    )
    SELECT kind, name FROM objects WHERE NOT of_column AND owner <> :'owner' LOOP
        EXECUTE format('ALTER %s %s OWNER TO %I', object.kind, object.name, :'owner');
    END LOOP;
END
$$;

-- Rights on existing objects, and on those that future revisions will create.
REVOKE ALL ON ALL TABLES IN SCHEMA public FROM :"migrator", :"application", :"read_only";
REVOKE ALL ON ALL SEQUENCES IN SCHEMA public FROM :"migrator", :"application", :"read_only";
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO :"application";
GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO :"application";
GRANT SELECT ON ALL TABLES IN SCHEMA public TO :"read_only";
GRANT SELECT ON ALL SEQUENCES IN SCHEMA public TO :"read_only";

ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public
    REVOKE ALL ON TABLES FROM :"migrator", :"application", :"read_only";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public
    REVOKE ALL ON SEQUENCES FROM :"migrator", :"application", :"read_only";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO :"application";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public
    GRANT USAGE, SELECT ON SEQUENCES TO :"application";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public
    GRANT SELECT ON TABLES TO :"read_only";
ALTER DEFAULT PRIVILEGES FOR ROLE :"owner" IN SCHEMA public
    GRANT SELECT ON SEQUENCES TO :"read_only";

-- Other roles only read the bookkeeping of migrations.
:bookkeeping_is_read_only;
COMMIT;
