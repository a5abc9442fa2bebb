-- Who may do what. These are group roles: grant them to login roles, for example
--     CREATE ROLE pipehandler LOGIN IN ROLE pipehandler_ingest;

-- Roles belong to the whole cluster: another database may have made them already, or is making them now. Then the owner
-- of this one needs no right to make or describe them.
DO $$
DECLARE
    name    text;
    purpose text;
BEGIN
    FOR name, purpose IN VALUES
        ('pipehandler_ingest', 'The handler on a mail host: may call pipehandler.ingest and read or change nothing.'),
        ('pipehandler_reader', 'Applications and people who read mail: may read everything and change nothing.'),
        ('pipehandler_upkeep', 'Retention and repair: may read everything, change what is derived from the bytes, and delete.')
    LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', name);
                EXECUTE format('COMMENT ON ROLE %I IS %L', name, purpose);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;
            END;
        END IF;
    END LOOP;
END
$$;

REVOKE ALL ON SCHEMA pipehandler FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA pipehandler FROM PUBLIC;
GRANT USAGE ON SCHEMA pipehandler TO pipehandler_ingest, pipehandler_reader, pipehandler_upkeep;

GRANT EXECUTE ON FUNCTION pipehandler.ingest TO pipehandler_ingest;

GRANT SELECT ON ALL TABLES IN SCHEMA pipehandler TO pipehandler_reader, pipehandler_upkeep;

GRANT UPDATE, DELETE ON pipehandler.message, pipehandler.delivery, pipehandler.address TO pipehandler_upkeep;
GRANT DELETE ON pipehandler.raw_message TO pipehandler_upkeep;
GRANT INSERT, UPDATE, DELETE ON pipehandler.attachment TO pipehandler_upkeep;
GRANT INSERT ON pipehandler.address TO pipehandler_upkeep;
