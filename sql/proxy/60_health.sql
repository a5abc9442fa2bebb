-- The state of all shards. For PL/Proxy, see 10_leases.sql.

CREATE OR REPLACE FUNCTION pipehandler.on_shard_health(its_shard integer)
RETURNS TABLE (
    schema_version     integer,
    quarantined        bigint,
    oldest_quarantined timestamptz,
    oldest_expired     timestamptz,
    held_since         timestamptz,
    held_deliveries    bigint,
    held_stored        bigint,
    required           integer,
    synchronous        bigint,
    connected          bigint,
    days_prepared      integer
)
LANGUAGE plproxy VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    CLUSTER 'pipehandler';
    RUN ON its_shard;
    SELECT h.*, r.since AS held_since, r.deliveries AS held_deliveries, r.stored AS held_stored, s.*,
           pipehandler.days_prepared() AS days_prepared
      FROM pipehandler.health() AS h
     CROSS JOIN pipehandler.replication_status() AS s
      LEFT JOIN pipehandler.retention_held() AS r ON true;
$$;

CREATE OR REPLACE FUNCTION pipehandler.shards_health()
RETURNS TABLE (
    shard              integer,
    away               text,
    schema_version     integer,
    quarantined        bigint,
    oldest_quarantined timestamptz,
    oldest_expired     timestamptz,
    held_since         timestamptz,
    held_deliveries    bigint,
    held_stored        bigint,
    required           integer,
    synchronous        bigint,
    connected          bigint,
    days_prepared      integer
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    shards CONSTANT integer := (SELECT s.shards FROM pipehandler.sharding s);
BEGIN
    FOR number IN 0 .. shards - 1 LOOP
        shard := number;
        BEGIN
            PERFORM pipehandler.expect_shard(number);
            SELECT NULL, h.* INTO STRICT away, schema_version, quarantined, oldest_quarantined, oldest_expired,
                   held_since, held_deliveries, held_stored, required, synchronous, connected, days_prepared
              FROM pipehandler.on_shard_health(number) AS h;
        EXCEPTION WHEN OTHERS THEN
            away := sqlerrm;
            schema_version := NULL;
        END;
        IF away IS NOT NULL THEN
            RETURN QUERY SELECT number, away, NULL::integer, NULL::bigint, NULL::timestamptz, NULL::timestamptz,
                                NULL::timestamptz, NULL::bigint, NULL::bigint, NULL::integer, NULL::bigint,
                                NULL::bigint, NULL::integer;
        ELSE
            RETURN NEXT;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pipehandler.shards_health() IS
'A row for each shard: why it does not answer (away, null if it does), and the columns of health, retention_held,
replication_status and days_prepared there.';

CREATE OR REPLACE FUNCTION pipehandler.health()
RETURNS TABLE (
    schema_version     integer,
    quarantined        bigint,
    oldest_quarantined timestamptz,
    oldest_expired     timestamptz
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT least(min(h.schema_version), (SELECT max(m.version) FROM pipehandler.migration m)),
           coalesce(sum(h.quarantined), 0)::bigint, min(h.oldest_quarantined), min(h.oldest_expired)
      FROM pipehandler.shards_health() AS h
$$;

CREATE OR REPLACE FUNCTION pipehandler.retention_held(
    OUT since      timestamptz,
    OUT deliveries bigint,
    OUT stored     bigint
) RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT min(h.held_since), sum(h.held_deliveries)::bigint, sum(h.held_stored)::bigint
      FROM pipehandler.shards_health() AS h
    HAVING min(h.held_since) IS NOT NULL
$$;

CREATE OR REPLACE FUNCTION pipehandler.replication_status(
    OUT required    integer,
    OUT synchronous bigint,
    OUT connected   bigint
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    -- The shard whose mail is on the fewest servers.
    SELECT h.required, h.synchronous, h.connected
      FROM pipehandler.shards_health() AS h
     WHERE h.away IS NULL
     ORDER BY least(h.required, h.synchronous), h.connected
     LIMIT 1
$$;

CREATE OR REPLACE FUNCTION pipehandler.days_prepared() RETURNS integer
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT min(h.days_prepared) FROM pipehandler.shards_health() AS h
$$;

CREATE OR REPLACE FUNCTION pipehandler.on_shard_data_status(its_shard integer)
RETURNS TABLE (incomplete bigint, doubled bigint)
LANGUAGE plproxy VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    CLUSTER 'pipehandler';
    RUN ON its_shard;
    SELECT d.* FROM pipehandler.data_status() AS d;
$$;

CREATE OR REPLACE FUNCTION pipehandler.data_status() RETURNS TABLE (incomplete bigint, doubled bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    shards CONSTANT integer := (SELECT s.shards FROM pipehandler.sharding s);
    its    record;
BEGIN
    incomplete := 0;
    doubled := 0;
    FOR number IN 0 .. shards - 1 LOOP
        BEGIN
            PERFORM pipehandler.expect_shard(number);
            SELECT d.incomplete AS lacking, d.doubled AS twice INTO its
              FROM pipehandler.on_shard_data_status(number) AS d;
            incomplete := incomplete + its.lacking;
            doubled := doubled + its.twice;
        EXCEPTION
            WHEN internal_error OR connection_exception OR insufficient_resources OR admin_shutdown OR crash_shutdown
                 OR cannot_connect_now THEN
                NULL; -- pipehandler.shards_health names it
        END;
    END LOOP;
    RETURN NEXT;
END
$$;

CREATE OR REPLACE FUNCTION pipehandler.on_shard_status(its_shard integer)
RETURNS TABLE (
    shard integer, shards integer, delimiter text, numbers boolean, started timestamptz, role text, code integer,
    checksum text, routing text, setting text, value text
)
LANGUAGE plproxy VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    CLUSTER 'pipehandler';
    RUN ON its_shard;
    SELECT s.* FROM pipehandler.shard_status() AS s;
$$;

CREATE OR REPLACE FUNCTION pipehandler.shards() RETURNS TABLE (shard integer, conninfo text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT n, o.option_value
      FROM pipehandler.sharding s
     CROSS JOIN generate_series(0, s.shards - 1) AS n
     CROSS JOIN pg_foreign_server f
     CROSS JOIN pg_options_to_table(f.srvoptions) AS o
     WHERE f.srvname = 'pipehandler' AND o.option_name = 'p' || n
     ORDER BY n
$$;
COMMENT ON FUNCTION pipehandler.shards() IS
'Where the shards are: the connection strings in the options of the foreign server pipehandler, which have no password.
ALTER SERVER pipehandler OPTIONS (SET p2 ...) moves one; see docs/scaling.md.';
