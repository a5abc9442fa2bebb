-- Which part of several databases this one is (docs/design/shards.md). A database that is not sharded has no row.
-- squawk-ignore-file prefer-bigint-over-int

CREATE TABLE pipehandler.sharding (
    single    boolean PRIMARY KEY DEFAULT true CHECK (single),
    shard     integer,
    shards    integer NOT NULL CHECK (shards IN (2, 4, 8, 16, 32)),
    delimiter text    NOT NULL,
    CONSTRAINT sharding_shard CHECK (shard BETWEEN 0 AND shards - 1)
);
