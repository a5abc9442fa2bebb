-- Rules of retention that wait for a person, because they would remove too much of what is stored.

CREATE TABLE pipehandler.retention_hold (
    single     boolean     PRIMARY KEY DEFAULT true CHECK (single),
    rules      jsonb       NOT NULL,
    deliveries bigint,
    stored     bigint,
    since      timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- Which cluster the numbers in this database belong to, so that a restored one is recognised.

CREATE TABLE pipehandler.cluster (
    single            boolean     PRIMARY KEY DEFAULT true CHECK (single),
    system_identifier bigint,
    timeline          bigint,
    relation          oid,
    cursors           text        NOT NULL DEFAULT '' CHECK (cursors ~ '^([0-9a-f]{8})?$'),
    recorded_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);

DO $$
BEGIN
    INSERT INTO pipehandler.cluster (system_identifier, timeline, relation)
    SELECT s.system_identifier, c.timeline_id, 'pipehandler.cluster'::regclass
      FROM pg_control_system() AS s, pg_control_checkpoint() AS c;
EXCEPTION WHEN insufficient_privilege THEN
    INSERT INTO pipehandler.cluster (relation) VALUES ('pipehandler.cluster'::regclass);
END
$$;
