-- Deliveries as a stream, for applications: whoever keeps the cursor gets each delivery once, in whatever order they
-- commit.
--
-- For enable_seqscan, see 10_addresses.sql.

CREATE OR REPLACE FUNCTION pipehandler.cursor_position(
    cursor     text,
    OUT prefix text,
    OUT xid    xid8,
    OUT id     bigint
)
LANGUAGE plpgsql STABLE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = on -- of the one row of pipehandler.cluster; off in a caller, that would be compiled (jit)
AS $$
DECLARE
    -- Every transaction that was committed here is below it.
    future CONSTANT xid8 := pg_snapshot_xmax(pg_current_snapshot());
    parts  text[];
BEGIN
    -- Cursors begin so since the last restore, if there was one (pipehandler.replace_cursors).
    prefix := coalesce((SELECT nullif(c.cursors, '') || '-' FROM pipehandler.cluster c), '');
    parts := regexp_match(coalesce(nullif(cursor_position.cursor, ''), prefix || '0-0'),
                          '^([0-9a-f]{8}-)?([0-9]{1,19})-([0-9]{1,18})$');
    IF parts IS NULL THEN
        RAISE EXCEPTION 'invalid cursor %: pass one that was returned with a delivery, pipehandler.cursor_now(), '
                        'or an empty one to begin with the first delivery',
            quote_literal(left(cursor_position.cursor, 60));
    END IF;
    IF coalesce(parts[1], '') <> prefix THEN
        RAISE EXCEPTION 'the cursor % is from before this database was restored, and says nothing about it; '
                        'begin with an empty cursor, or with pipehandler.cursor_now()', cursor_position.cursor;
    END IF;
    xid := parts[2]::xid8;
    id := parts[3]::bigint;
    -- A standby may still reach the transactions of its primary.
    IF xid > future AND NOT pg_is_in_recovery() THEN
        RAISE EXCEPTION 'the cursor % is from another cluster, this one has only come to %; '
                        'begin with an empty cursor, or with pipehandler.cursor_now()',
            cursor_position.cursor, future;
    END IF;
END
$$;
COMMENT ON FUNCTION pipehandler.cursor_position(text) IS
'For the functions that take a cursor: the position that it stands for, and what cursors of this database begin with.
Raises raise_exception for an invalid cursor, one from before a restore, and one from another cluster.';

-- STABLE, so that all of it uses the snapshot of the calling statement; the horizon of another one would lose
-- deliveries. The plan is made for each call, because one that serves any recipient, or none, reads too much for each
-- of them. The order comes from an index, because a sort reads everything after the cursor for a hundred rows of it.
-- First the deliveries, then their messages, because only then the days are known (15_days.sql).
CREATE OR REPLACE FUNCTION pipehandler.deliveries_after(
    cursor    text,
    recipient text    DEFAULT NULL,
    lease     bigint  DEFAULT NULL,
    max_rows  integer DEFAULT 100
) RETURNS SETOF pipehandler.streamed_delivery
LANGUAGE plpgsql STABLE SECURITY INVOKER ROWS 100
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_sort = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET jit = off -- it would take longer than the rest: a sort that is off, but needed, looks expensive
SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    -- Below it all transactions have ended; above it one may still bring a delivery that comes earlier in the order.
    horizon  CONSTANT xid8   := pg_snapshot_xmin(pg_current_snapshot());
    -- Every transaction that was committed here is below it.
    future   CONSTANT xid8   := pg_snapshot_xmax(pg_current_snapshot());
    address  CONSTANT text   := pipehandler.canonical(deliveries_after.recipient);
    prefix   text;
    last_xid xid8;
    last_id  bigint;
    xids     xid8[];
    ids      bigint[];
    days     date[];
    shown    boolean := false;
BEGIN
    SELECT p.prefix, p.xid, p.id INTO prefix, last_xid, last_id
      FROM pipehandler.cursor_position(deliveries_after.cursor) AS p;

    -- Again where none of them has its message, such as those of a day that an operator has detached: a page without
    -- rows is the end.
    LOOP
        SELECT array_agg(o.xid), array_agg(o.id), array_agg(o.day) INTO xids, ids, days
          FROM (SELECT d.id, d.day, d.xid
                  FROM pipehandler.current_delivery d
                 WHERE (d.xid, d.id) > (last_xid, last_id) AND d.xid < horizon
                   AND (address IS NULL OR pipehandler.canonical(d.recipient) COLLATE "C" = address)
                   AND (deliveries_after.lease IS NULL OR d.lease = deliveries_after.lease)
                 ORDER BY d.xid, d.id
                 LIMIT max_rows) AS o;
        EXIT WHEN ids IS NULL;
        last_xid := xids[cardinality(ids)];
        last_id := ids[cardinality(ids)];
        days := ARRAY(SELECT DISTINCT k.day FROM unnest(days) AS k (day));

        RETURN QUERY
            SELECT prefix || d.xid || '-' || d.id, d.id, d.message, d.recipient, d.extension, d.lease, d.sender,
                   m.from_name, m.from_address, m.subject, m.date, m.list_id, d.received_at, m.size,
                   (SELECT count(*) FROM pipehandler.attachment a
                     WHERE a.day = ANY (days) AND a.day = m.day AND a.message = m.id)::integer, m.state
              FROM unnest(ids) WITH ORDINALITY AS k (id, place)
              JOIN pipehandler.delivery d ON d.id = k.id
              JOIN pipehandler.message m ON m.day = ANY (days) AND m.day = d.day AND m.id = d.message
             ORDER BY k.place;
        shown := FOUND;
        EXIT WHEN shown OR cardinality(ids) < max_rows;
    END LOOP;

    IF NOT shown AND EXISTS (SELECT FROM pipehandler.delivery d
                             WHERE d.xid >= future AND d.xid IS DISTINCT FROM pg_current_xact_id_if_assigned()) THEN
        RAISE EXCEPTION 'there are deliveries with transaction numbers of another cluster, restored from a dump, and '
                        'the stream would never return them; as the owner of the table run: pipehandler restored';
    END IF;
END
$$;
COMMENT ON FUNCTION pipehandler.deliveries_after(text, text, bigint, integer) IS
'The deliveries after a cursor that have not expired, at most max_rows of them, in an order that never changes: that
of the transactions that stored them. An application that continues with the cursor of the last one misses none and
gets none twice. So a delivery is returned only when no older transaction of the cluster is still writing. An empty
cursor is the beginning, pipehandler.cursor_now() the end. recipient: only those of this address, compared as
pipehandler.canonical does; lease: only those of this lease. Raises raise_exception for an invalid cursor,
one from before a restore, and one from another cluster.';

CREATE OR REPLACE FUNCTION pipehandler.cursor_now() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = on -- as in pipehandler.cursor_position
AS $$
    SELECT coalesce((SELECT nullif(c.cursors, '') || '-' FROM pipehandler.cluster c), '')
           || pg_snapshot_xmin(pg_current_snapshot()) || '-0'
$$;
COMMENT ON FUNCTION pipehandler.cursor_now() IS
'A cursor for pipehandler.deliveries_after that begins now: everything that is not committed yet comes after it.';

CREATE OR REPLACE FUNCTION pipehandler.deliveries_waiting() RETURNS boolean
LANGUAGE sql STABLE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
    SELECT EXISTS (SELECT FROM pipehandler.delivery d WHERE d.xid >= pg_snapshot_xmin(pg_current_snapshot()))
$$;
COMMENT ON FUNCTION pipehandler.deliveries_waiting() IS
'Whether deliveries are committed that pipehandler.deliveries_after does not return yet, because an older transaction
is still writing. Then it is worth asking again in a moment.';
