-- Deliveries as a stream, for applications: whoever keeps the cursor gets each of them once, whatever commits in which order.

-- A stream of one recipient, or of one lease, begins to read at its cursor, however much mail it has behind it. What is asked by the
-- bare recipient has delivery_once, and in the order of id the primary key.
DROP INDEX pipehandler.delivery_recipient;
CREATE INDEX delivery_recipient ON pipehandler.delivery (pipehandler.canonical(recipient), xid, id);
DROP INDEX pipehandler.delivery_lease;
CREATE INDEX delivery_lease ON pipehandler.delivery (lease, xid, id) WHERE lease IS NOT NULL;

CREATE TYPE pipehandler.streamed_delivery AS (
    cursor       text,
    id           bigint,
    message      uuid,
    recipient    text,
    extension    text,
    lease        bigint,
    sender       text,
    from_name    text,
    from_address text,
    subject      text,
    date         timestamptz,
    list_id      text,
    received_at  timestamptz,
    size         integer,
    attachments  integer,
    state        text
);
COMMENT ON TYPE pipehandler.streamed_delivery IS 'A delivery as pipehandler.deliveries_after returns it: a line of an inbox. The view inbox has the rest, by id.';
COMMENT ON COLUMN pipehandler.streamed_delivery.cursor IS 'Where the stream goes on after this delivery. Nothing is promised about its form.';
COMMENT ON COLUMN pipehandler.streamed_delivery.attachments IS 'How many attachments the message has.';
COMMENT ON COLUMN pipehandler.streamed_delivery.message IS 'message.id, for joins with attachment and raw_message.';
-- The other columns are what they are in the view inbox.
DO $$
DECLARE
    name    text;
    purpose text;
BEGIN
    FOR name, purpose IN
        SELECT s.attname, col_description(i.attrelid, i.attnum)
          FROM pg_attribute s
          JOIN pg_attribute i ON i.attname = s.attname AND i.attrelid = 'pipehandler.inbox'::regclass
         WHERE s.attrelid = 'pipehandler.streamed_delivery'::regclass AND col_description(s.attrelid, s.attnum) IS NULL
    LOOP
        EXECUTE format('COMMENT ON COLUMN pipehandler.streamed_delivery.%I IS %L', name, purpose);
    END LOOP;
END
$$;

-- STABLE, so that all of it sees what the snapshot of the calling statement sees; the horizon of another one would lose deliveries.
-- The plan is made for each call, because one that serves any recipient, or none, reads too much for each of them; and the order comes
-- from an index, because whoever sorts has read everything after the cursor, for a hundred rows of it.
CREATE FUNCTION pipehandler.deliveries_after(
    cursor    text,
    recipient text    DEFAULT NULL,
    lease     bigint  DEFAULT NULL,
    max_rows  integer DEFAULT 100
) RETURNS SETOF pipehandler.streamed_delivery
LANGUAGE plpgsql STABLE SECURITY INVOKER ROWS 100
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_sort = off
SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    -- Below it all transactions have ended; above it one may still bring a delivery that comes earlier in the order.
    horizon  CONSTANT xid8   := pg_snapshot_xmin(pg_current_snapshot());
    -- Nothing that was committed here is as far as that.
    future   CONSTANT xid8   := pg_snapshot_xmax(pg_current_snapshot());
    wanted   CONSTANT text   := pipehandler.canonical(deliveries_after.recipient);
    place    CONSTANT text[] := regexp_match(coalesce(nullif(deliveries_after.cursor, ''), '0-0'),
                                             '^([0-9]{1,19})-([0-9]{1,18})$');
    last_xid CONSTANT xid8   := place[1]::xid8;
    last_id  CONSTANT bigint := place[2]::bigint;
BEGIN
    IF place IS NULL THEN
        RAISE EXCEPTION '% is no cursor; give one that came with a delivery, pipehandler.cursor_now(), or an empty one to begin with the first delivery',
            quote_literal(left(deliveries_after.cursor, 60));
    END IF;
    -- A standby may yet come to where its primary was.
    IF last_xid > future AND NOT pg_is_in_recovery() THEN
        RAISE EXCEPTION 'the cursor % is of another cluster, this one has only come to %; begin with an empty cursor, or with pipehandler.cursor_now()',
            deliveries_after.cursor, future;
    END IF;

    RETURN QUERY
        SELECT d.xid || '-' || d.id, d.id, d.message, d.recipient, d.extension, d.lease, d.sender, m.from_name, m.from_address,
               m.subject, m.date, m.list_id, d.received_at, m.size,
               (SELECT count(*) FROM pipehandler.attachment a WHERE a.message = m.id)::integer, m.state
          FROM pipehandler.current_delivery d
          JOIN pipehandler.message m ON m.id = d.message
         WHERE (d.xid, d.id) > (last_xid, last_id) AND d.xid < horizon
           AND (wanted IS NULL OR pipehandler.canonical(d.recipient) = wanted)
           AND (deliveries_after.lease IS NULL OR d.lease = deliveries_after.lease)
         ORDER BY d.xid, d.id
         LIMIT max_rows;

    IF NOT FOUND AND EXISTS (SELECT FROM pipehandler.delivery d
                              WHERE d.xid >= future AND d.xid IS DISTINCT FROM pg_current_xact_id_if_assigned()) THEN
        RAISE EXCEPTION 'there are deliveries with the transactions of another cluster, from which they were restored, and they would never come; their owner has to run UPDATE pipehandler.delivery SET xid = ''3''';
    END IF;
END
$$;
COMMENT ON FUNCTION pipehandler.deliveries_after(text, text, bigint, integer) IS
'The deliveries after a cursor that have not expired, at most max_rows of them, in an order that never changes: that of the
transactions that stored them. None is missed, and none comes twice, for whoever goes on with the cursor of the last one. So a
delivery only comes when no older transaction of the cluster is writing any more. An empty cursor is the beginning,
pipehandler.cursor_now() the end. recipient: only those of this address, compared as pipehandler.canonical does; lease: only those of this lease.
Raises raise_exception for what is no cursor, or one of another cluster.';

CREATE FUNCTION pipehandler.cursor_now() RETURNS text
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pg_snapshot_xmin(pg_current_snapshot()) || '-0'
$$;
COMMENT ON FUNCTION pipehandler.cursor_now() IS
'A cursor for pipehandler.deliveries_after, to begin now: whatever is not committed yet comes after it.';

CREATE FUNCTION pipehandler.deliveries_waiting() RETURNS boolean
LANGUAGE sql STABLE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
    SELECT EXISTS (SELECT FROM pipehandler.delivery d WHERE d.xid >= pg_snapshot_xmin(pg_current_snapshot()))
$$;
COMMENT ON FUNCTION pipehandler.deliveries_waiting() IS
'Whether deliveries are committed that pipehandler.deliveries_after does not return yet, because an older transaction is still writing:
then it is worth asking again in a moment.';

REVOKE ALL ON FUNCTION pipehandler.deliveries_after, pipehandler.cursor_now, pipehandler.deliveries_waiting FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pipehandler.deliveries_after, pipehandler.cursor_now, pipehandler.deliveries_waiting
   TO pipehandler_reader, pipehandler_upkeep;
