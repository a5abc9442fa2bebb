-- From here on functions and views are in sql/code. Those whose arguments or columns get other names there are dropped
-- once, here, because CREATE OR REPLACE cannot rename them.

DROP FUNCTION pipehandler.ingest(jsonb, jsonb, text, text, bytea, bytea, bytea[]);
DROP FUNCTION pipehandler.reparse(uuid, jsonb, text, text, bytea[], boolean);
DROP FUNCTION pipehandler.expire(integer, timestamptz);
DROP FUNCTION pipehandler.remove_leases(integer, timestamptz, interval);
DROP FUNCTION pipehandler.forget(uuid[]);
