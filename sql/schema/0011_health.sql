-- Whether what has expired is removed, for whoever watches.

DROP FUNCTION pipehandler.health();
-- A lease without deliveries may stay for a while (pipehandler.remove_leases), so the deliveries of leases are looked for; those of the
-- last day tell enough, and there are not too many of them.
CREATE FUNCTION pipehandler.health()
RETURNS TABLE (schema_version integer, quarantined bigint, oldest_quarantined timestamptz, oldest_expired timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (SELECT max(version) FROM pipehandler.migration), count(*), min(m.received_at),
           least((SELECT min(d.expires_at) FROM pipehandler.delivery d WHERE d.expires_at <= now()),
                 (SELECT min(a.expires_at) FROM pipehandler.address a WHERE a.expires_at <= now() - interval '144 hours'),
                 (SELECT min(a.expires_at)
                    FROM pipehandler.address a
                   WHERE a.expires_at BETWEEN now() - interval '1 day' AND now()
                     AND EXISTS (SELECT FROM pipehandler.delivery d WHERE d.lease = a.lease)))
      FROM pipehandler.message m
     WHERE m.state = 'failed'
$$;
COMMENT ON FUNCTION pipehandler.health() IS
'The version of the schema (the greatest in pipehandler.migration), how many messages are in quarantine (state failed), when
the oldest of them was received, and since when something has expired that pipehandler expire has not removed yet.';

REVOKE ALL ON FUNCTION pipehandler.health() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pipehandler.health() TO pipehandler_ingest, pipehandler_reader, pipehandler_upkeep;
