-- After a restore: numbers that applications keep (of leases, of deliveries, cursors of the stream) must never mean
-- something else later. `pipehandler restored` calls the functions that change something, as the owner of the tables.

CREATE OR REPLACE FUNCTION pipehandler.cluster_now(
    OUT system_identifier bigint,
    OUT timeline          integer,
    OUT relation          oid
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    relation := 'pipehandler.cluster'::regclass;
    BEGIN
        SELECT s.system_identifier, c.timeline_id INTO system_identifier, timeline
          FROM pg_control_system() AS s, pg_control_checkpoint() AS c;
    EXCEPTION WHEN insufficient_privilege THEN -- some hosters
        system_identifier := NULL;
        timeline := NULL;
    END;
END
$$;
COMMENT ON FUNCTION pipehandler.cluster_now() IS
'Where this database is: the identifier and the timeline of its cluster, null where they may not be read, and the OID of
the table pipehandler.cluster, which is another one after a restore from a dump.';

CREATE OR REPLACE FUNCTION pipehandler.cluster_status(OUT changed text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN c.single IS NULL OR c.relation <> n.relation THEN 'dump'
                WHEN c.system_identifier <> n.system_identifier THEN 'cluster'
                WHEN c.timeline < n.timeline THEN 'timeline' END
      FROM pipehandler.cluster_now() AS n LEFT JOIN pipehandler.cluster c ON true
$$;
COMMENT ON FUNCTION pipehandler.cluster_status() IS
'Whether `pipehandler restored` should run, and why: dump, the tables were restored from a dump; cluster, another
cluster has them, after pg_upgrade for example; timeline, a standby was promoted, or the cluster recovered to a point in
time. Null: no.';

CREATE OR REPLACE FUNCTION pipehandler.record_cluster() RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
    INSERT INTO pipehandler.cluster AS c (system_identifier, timeline, relation)
    SELECT n.system_identifier, n.timeline, n.relation FROM pipehandler.cluster_now() AS n
        ON CONFLICT (single) DO UPDATE
       SET system_identifier = excluded.system_identifier, timeline = excluded.timeline, relation = excluded.relation,
           recorded_at = excluded.recorded_at
     WHERE (c.system_identifier, c.timeline, c.relation)
           IS DISTINCT FROM (excluded.system_identifier, excluded.timeline, excluded.relation)
$$;
COMMENT ON FUNCTION pipehandler.record_cluster() IS
'For `pipehandler restored` and migrations: what cluster_now says is right.';

CREATE OR REPLACE FUNCTION pipehandler.move_numbers()
RETURNS TABLE (sequence text, before bigint, after bigint)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    one record;
    -- The clock is the only thing that is further on after each restore, also after two from one dump. No database
    -- gives out a thousand numbers a second for as long as it lives, so none before this moment was greater.
    moment CONSTANT bigint := extract(epoch FROM clock_timestamp()) * 1000;
BEGIN
    FOR one IN
        SELECT s.seqrelid::regclass AS name, s.seqstart AS start, s.seqincrement AS stride,
               d.refobjid::regclass AS relation, a.attname AS attribute
          FROM pg_sequence s
          JOIN pg_class c ON c.oid = s.seqrelid
          JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.seqrelid
               AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
          JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
         WHERE c.relnamespace = 'pipehandler'::regnamespace
         ORDER BY c.relname
    LOOP
        EXECUTE format('SELECT greatest((SELECT s.last_value - CASE WHEN s.is_called THEN 0 ELSE 1 END FROM %s s),
                                        (SELECT coalesce(max(t.%I), 0) FROM %s t))',
                       one.name, one.attribute, one.relation)
           INTO before;
        -- Where the clock cannot be right, by more than any database gives out in its life.
        after := CASE WHEN moment > before THEN moment ELSE before + 1000000000000 END;
        -- A shard gives out only its own numbers (pipehandler.become_shard).
        after := after + mod(mod(one.start - after, one.stride) + one.stride, one.stride);
        PERFORM setval(one.name, after, false);
        sequence := one.name;
        RETURN NEXT;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pipehandler.move_numbers() IS
'For `pipehandler restored`: lets every sequence go on with numbers that were never given out before, those of the
present time in milliseconds since 1970. Returns each sequence with its last number and its next one.';

CREATE OR REPLACE FUNCTION pipehandler.replace_cursors() RETURNS text
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    replaced text;
BEGIN
    -- In the same cluster transactions go on to be numbered where they were, so cursors keep their meaning.
    UPDATE pipehandler.cluster c
       SET cursors = left(replace(gen_random_uuid()::text, '-', ''), 8)
      FROM pipehandler.cluster_now() AS n
     WHERE c.system_identifier = n.system_identifier IS NOT TRUE OR c.timeline = n.timeline IS NOT TRUE
    RETURNING c.cursors INTO replaced;
    -- A number of the former cluster says nothing about transactions of this one.
    UPDATE pipehandler.retention_change SET xid = NULL;
    RETURN replaced;
END
$$;
COMMENT ON FUNCTION pipehandler.replace_cursors() IS
'For `pipehandler restored`: refuses all cursors of the stream that were returned before, if this is another cluster
or another timeline. Returns what cursors begin with from now on, null if the former ones stay.';

CREATE OR REPLACE FUNCTION pipehandler.adopt_deliveries(batch integer DEFAULT 10000) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    adopted bigint;
BEGIN
    UPDATE pipehandler.delivery d
       SET xid = '3' -- the first of every cluster, which has long ended
     WHERE d.id = ANY (ARRAY(SELECT o.id
                               FROM pipehandler.delivery o
                              WHERE o.xid >= pg_snapshot_xmax(pg_current_snapshot())
                                AND o.xid IS DISTINCT FROM pg_current_xact_id_if_assigned()
                              ORDER BY o.xid
                              LIMIT batch));
    GET DIAGNOSTICS adopted = ROW_COUNT;
    RETURN adopted;
END
$$;
COMMENT ON FUNCTION pipehandler.adopt_deliveries(integer) IS
'For `pipehandler restored`: gives up to batch deliveries with transaction numbers that this cluster has not reached the
number of one that has ended, or the stream would never return them. Returns how many; call it until that is 0.';
