-- How it goes, for whoever watches: numbers only. So metrics need no role that can read mail.

CREATE FUNCTION pipehandler.health() RETURNS TABLE (schema_version integer, quarantined bigint, oldest_quarantined timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (SELECT max(version) FROM pipehandler.migration), count(*), min(m.received_at)
      FROM pipehandler.message m
     WHERE m.state = 'failed'
$$;
COMMENT ON FUNCTION pipehandler.health() IS
'The version of the schema (the greatest in pipehandler.migration), how many messages are in quarantine (state failed), and
when the oldest of them was received.';

REVOKE ALL ON FUNCTION pipehandler.health() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pipehandler.health() TO pipehandler_ingest, pipehandler_reader, pipehandler_upkeep;
