-- What was applied to this database. `pipehandler migrate` runs this file first, so that it can record everything else.

CREATE SCHEMA IF NOT EXISTS pipehandler;

CREATE TABLE IF NOT EXISTS pipehandler.migration (
    version    integer     PRIMARY KEY,
    name       text        NOT NULL,
    checksum   text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    applied_by text        NOT NULL DEFAULT session_user
);

CREATE TABLE IF NOT EXISTS pipehandler.code (
    version    integer     PRIMARY KEY,
    checksum   text        NOT NULL,
    server     integer     NOT NULL DEFAULT current_setting('server_version_num')::integer / 10000,
    objects    jsonb       NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    applied_by text        NOT NULL DEFAULT session_user
);
