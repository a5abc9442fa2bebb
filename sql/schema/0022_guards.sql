-- Rules of retention that wait for a person, because they would remove too much of what is stored.

CREATE TABLE pipehandler.retention_hold (
    single     boolean     PRIMARY KEY DEFAULT true CHECK (single),
    rules      jsonb       NOT NULL,
    deliveries bigint,
    stored     bigint,
    since      timestamptz NOT NULL DEFAULT clock_timestamp()
);
