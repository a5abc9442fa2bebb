-- How long mail is kept. A delivery is gone from the views at the moment when it or its lease expires; pipehandler.expire removes it later.

ALTER TABLE pipehandler.delivery
    ADD COLUMN raw_until         timestamptz,
    ADD COLUMN attachments_until timestamptz;
-- The epoch instead of an infinite time, which many a driver cannot read.
CREATE INDEX delivery_raw_until ON pipehandler.delivery (raw_until) WHERE raw_until > 'epoch';
CREATE INDEX delivery_attachments_until ON pipehandler.delivery (attachments_until) WHERE attachments_until > 'epoch';
COMMENT ON COLUMN pipehandler.delivery.raw_until IS 'Until then this delivery wants the bytes in raw_message; null: for as long as it is there; 1970-01-01 00:00 UTC: not any more. They go when no delivery of the message wants them.';
COMMENT ON COLUMN pipehandler.delivery.attachments_until IS 'The same for attachment.content.';

CREATE TABLE pipehandler.retention (
    ordinal     integer  PRIMARY KEY,
    recipient   text,
    sender      text,
    list_id     text,
    keep        interval CHECK (keep > interval '0'),
    raw         interval CHECK (raw > interval '0'),
    attachments interval CHECK (attachments > interval '0')
);
COMMENT ON TABLE pipehandler.retention IS 'How long a delivery is kept: the first rule that matches decides; without one, for ever. Written by pipehandler expire from the configuration.';
COMMENT ON COLUMN pipehandler.retention.ordinal IS 'The place of the rule, from 1.';
COMMENT ON COLUMN pipehandler.retention.recipient IS 'A pattern for LIKE that the recipient, as pipehandler.canonical writes it, has to match; null: any.';
COMMENT ON COLUMN pipehandler.retention.sender IS 'The same for the envelope sender or the address of From: one of them has to match.';
COMMENT ON COLUMN pipehandler.retention.list_id IS 'The same for List-Id, in lower case; a message without one does not match.';
COMMENT ON COLUMN pipehandler.retention.keep IS 'For how long after delivery.received_at; null: for ever.';
COMMENT ON COLUMN pipehandler.retention.raw IS 'The same for the bytes in raw_message; null: as long as the delivery.';
COMMENT ON COLUMN pipehandler.retention.attachments IS 'The same for attachment.content; null: as long as the delivery.';

CREATE FUNCTION pipehandler.retention_of(recipient text, sender text, from_address text, list_id text)
RETURNS TABLE (keep interval, raw interval, attachments interval)
LANGUAGE sql STABLE
AS $$
    SELECT r.keep, r.raw, r.attachments
      FROM pipehandler.retention r
     WHERE (r.recipient IS NULL OR pipehandler.canonical(retention_of.recipient) LIKE r.recipient)
       AND (r.sender IS NULL OR pipehandler.canonical(retention_of.sender) LIKE r.sender
            OR pipehandler.canonical(retention_of.from_address) LIKE r.sender)
       AND (r.list_id IS NULL OR lower(retention_of.list_id) LIKE r.list_id)
     ORDER BY r.ordinal
     LIMIT 1
$$;
COMMENT ON FUNCTION pipehandler.retention_of(text, text, text, text) IS 'The first rule of pipehandler.retention that matches a delivery, given its recipient, its envelope sender, the address of From and List-Id; no row where none does.';

CREATE VIEW pipehandler.current_delivery AS
SELECT d.*
  FROM pipehandler.delivery d
  LEFT JOIN pipehandler.address a ON a.lease = d.lease
 WHERE (d.expires_at IS NULL OR d.expires_at > now()) AND (a.expires_at IS NULL OR a.expires_at > now());
COMMENT ON VIEW pipehandler.current_delivery IS 'The deliveries that have not expired, neither by themselves nor with their lease.';

CREATE VIEW pipehandler.renewed_delivery AS
SELECT d.id, d.message, d.lease, d.received_at + t.keep AS expires_at,
       CASE WHEN d.raw_until = 'epoch' THEN d.raw_until ELSE d.received_at + t.raw END AS raw_until,
       CASE WHEN d.attachments_until = 'epoch' THEN d.attachments_until ELSE d.received_at + t.attachments END AS attachments_until
  FROM pipehandler.delivery d
  JOIN pipehandler.message m ON m.id = d.message
  LEFT JOIN LATERAL pipehandler.retention_of(d.recipient, d.sender, m.from_list -> 0 ->> 'address', m.list_id) AS t ON true;
COMMENT ON VIEW pipehandler.renewed_delivery IS 'Each delivery with the times that the rules of now mean for it; table delivery has them unless the rules have just changed.';

CREATE OR REPLACE VIEW pipehandler.inbox AS
SELECT d.id, d.recipient, d.received_at, d.sender, m.from_name, m.from_address, m.subject, m.date, m.list_id, m.size,
       (SELECT count(*) FROM pipehandler.attachment a WHERE a.message = m.id)::integer AS attachments,
       m.state, m.text_body, m.html_body, m.id AS message, m.message_id, d.queue_id, d.expires_at, d.lease, d.extension
  FROM pipehandler.current_delivery d
  JOIN pipehandler.message m ON m.id = d.message;

-- The columns of the views are what they are in the tables, those of delivery first.
DO $$
DECLARE
    name     text;
    relation regclass;
    purpose  text;
BEGIN
    FOR relation, name, purpose IN
        SELECT DISTINCT ON (v.attrelid, v.attname) v.attrelid, v.attname, col_description(t.attrelid, t.attnum)
          FROM pg_attribute v
          JOIN pg_attribute t ON t.attname = v.attname AND t.attrelid IN ('pipehandler.delivery'::regclass, 'pipehandler.message'::regclass)
         WHERE v.attrelid IN ('pipehandler.inbox'::regclass, 'pipehandler.current_delivery'::regclass,
                              'pipehandler.renewed_delivery'::regclass)
           AND col_description(v.attrelid, v.attnum) IS NULL
         ORDER BY v.attrelid, v.attname, t.attrelid <> 'pipehandler.delivery'::regclass
    LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', relation, name, purpose);
    END LOOP;
END
$$;

-- Removal. Messages are locked before their deliveries, in the order of their ids, and no lease is waited for meanwhile: so nobody
-- waits in a circle, neither two that remove nor one of them and ingest, which holds its message from before its first delivery can
-- be seen until its end.

CREATE FUNCTION pipehandler.forget(messages uuid[], OUT messages_removed bigint, OUT raws_removed bigint, OUT attachments_removed bigint)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
    DELETE FROM pipehandler.message m
     WHERE m.id = ANY (messages) AND NOT EXISTS (SELECT FROM pipehandler.delivery d WHERE d.message = m.id);
    GET DIAGNOSTICS messages_removed = ROW_COUNT;
    DELETE FROM pipehandler.raw_message r
     WHERE r.message = ANY (messages)
       AND NOT EXISTS (SELECT FROM pipehandler.delivery d
                        WHERE d.message = r.message AND (d.raw_until IS NULL OR d.raw_until > now()));
    GET DIAGNOSTICS raws_removed = ROW_COUNT;
    UPDATE pipehandler.attachment a
       SET content = NULL
     WHERE a.message = ANY (messages) AND a.content IS NOT NULL
       AND NOT EXISTS (SELECT FROM pipehandler.delivery d
                        WHERE d.message = a.message AND (d.attachments_until IS NULL OR d.attachments_until > now()));
    GET DIAGNOSTICS attachments_removed = ROW_COUNT;
END
$$;
COMMENT ON FUNCTION pipehandler.forget(uuid[]) IS
'For the functions that remove: of these messages, which the caller has locked (FOR UPDATE) in a statement before, remove what no
delivery wants any more: the message, its bytes, the contents of its attachments. Returns how many of each; bytes and contents
of a removed message are not counted.';

CREATE FUNCTION pipehandler.expire(
    batch integer     DEFAULT 500,
    since timestamptz DEFAULT '-infinity',
    OUT deliveries  bigint,
    OUT messages    bigint,
    OUT raws        bigint,
    OUT attachments bigint,
    OUT reached     timestamptz
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    due     bigint[];
    touched uuid[];
    times   timestamptz[];
BEGIN
    -- What is due by its own times, the oldest first; then, not beyond that, what is due with its lease.
    SELECT array_agg(c.id), array_agg(c.message), array_agg(c.at),
           CASE WHEN count(*) < batch THEN now() ELSE max(c.at) END
      INTO due, touched, times, reached
      FROM ((SELECT d.id, d.message, d.expires_at AS at FROM pipehandler.delivery d
              WHERE d.expires_at BETWEEN since AND now() ORDER BY d.expires_at LIMIT batch)
            UNION ALL
            (SELECT d.id, d.message, d.raw_until FROM pipehandler.delivery d
              WHERE d.raw_until > 'epoch' AND d.raw_until BETWEEN since AND now() ORDER BY d.raw_until LIMIT batch)
            UNION ALL
            (SELECT d.id, d.message, d.attachments_until FROM pipehandler.delivery d
              WHERE d.attachments_until > 'epoch' AND d.attachments_until BETWEEN since AND now()
              ORDER BY d.attachments_until LIMIT batch)
             ORDER BY at
             LIMIT batch) AS c;
    SELECT array_agg(c.id), array_agg(DISTINCT c.message), max(c.at)
      INTO due, touched, reached
      FROM (SELECT o.id, o.message, o.at FROM unnest(due, touched, times) AS o (id, message, at)
            UNION ALL
            (SELECT d.id, d.message, a.expires_at
               FROM pipehandler.address a
               JOIN pipehandler.delivery d ON d.lease = a.lease
              WHERE a.expires_at BETWEEN since AND expire.reached
              ORDER BY a.expires_at
              LIMIT batch)
             ORDER BY at
             LIMIT batch) AS c;

    PERFORM FROM pipehandler.message m WHERE m.id = ANY (touched) ORDER BY m.id FOR UPDATE;

    -- Each statement sees what was committed before it began: a lease may have been extended meanwhile. The order of these locks is
    -- that in which ingest locks the deliveries that it finds.
    DELETE FROM pipehandler.delivery d
     WHERE d.id = ANY (ARRAY(SELECT o.id
                               FROM pipehandler.delivery o
                               LEFT JOIN pipehandler.address a ON a.lease = o.lease
                              WHERE o.id = ANY (due) AND (o.expires_at <= now() OR a.expires_at <= now())
                              ORDER BY o.recipient COLLATE "C", o.id
                                FOR UPDATE OF o));
    GET DIAGNOSTICS deliveries = ROW_COUNT;
    UPDATE pipehandler.delivery d
       SET raw_until         = CASE WHEN d.raw_until <= now() THEN 'epoch' ELSE d.raw_until END,
           attachments_until = CASE WHEN d.attachments_until <= now() THEN 'epoch' ELSE d.attachments_until END
     WHERE d.id = ANY (due)
       AND (d.raw_until > 'epoch' AND d.raw_until <= now() OR d.attachments_until > 'epoch' AND d.attachments_until <= now());
    SELECT f.messages_removed, f.raws_removed, f.attachments_removed
      INTO messages, raws, attachments
      FROM pipehandler.forget(touched) AS f;
END
$$;
COMMENT ON FUNCTION pipehandler.expire(integer, timestamptz) IS
'Removes up to batch deliveries that have expired, by themselves or with their lease, and with its last delivery each message; and
bytes and contents of attachments that no delivery wants any more. Call it again, each call a transaction of its own, until reached
is null: then nothing was left. since: what the call before returned as reached, so that nothing is read twice; in the first call
leave it out. May fail with 40001, 40P01 or 23503 where others change the same rows: call it again.';

CREATE FUNCTION pipehandler.remove_leases(
    batch integer     DEFAULT 500,
    since timestamptz DEFAULT '-infinity',
    grace interval    DEFAULT '120 hours',
    OUT leases  bigint,
    OUT reached timestamptz
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    chosen bigint[];
BEGIN
    -- Ingest holds the leases of its recipients while it waits for messages, so nobody waits for a lease here; a later call takes it.
    SELECT array_agg(o.lease), max(o.expires_at)
      INTO chosen, reached
      FROM (SELECT a.lease, a.expires_at
              FROM pipehandler.address a
             WHERE a.expires_at BETWEEN since AND now() - grace
               AND NOT EXISTS (SELECT FROM pipehandler.delivery d WHERE d.lease = a.lease)
             ORDER BY a.expires_at
             LIMIT batch
               FOR UPDATE SKIP LOCKED) AS o;
    DELETE FROM pipehandler.address a
     WHERE a.lease = ANY (chosen) AND NOT EXISTS (SELECT FROM pipehandler.delivery d WHERE d.lease = a.lease);
    GET DIAGNOSTICS leases = ROW_COUNT;
    reached := CASE WHEN leases > 0 THEN reached END;
END
$$;
COMMENT ON FUNCTION pipehandler.remove_leases(integer, timestamptz, interval) IS
'Removes up to batch leases that expired longer than grace ago and have no deliveries. Called as pipehandler.expire. grace: for so
long a message that was accepted for the address may still wait in Postfix''s queue (maximal_queue_lifetime), and is told
from one for an address that never was.';

CREATE FUNCTION pipehandler.remove_lease(lease bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    touched uuid[];
    removed bigint;
BEGIN
    -- The one lease comes first, as in ingest; from here on no delivery comes to it.
    PERFORM FROM pipehandler.address a WHERE a.lease = remove_lease.lease FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no lease %: it was removed', lease USING ERRCODE = 'no_data_found';
    END IF;
    touched := ARRAY(SELECT m.id
                       FROM pipehandler.message m
                      WHERE m.id IN (SELECT d.message FROM pipehandler.delivery d WHERE d.lease = remove_lease.lease)
                      ORDER BY m.id
                        FOR UPDATE OF m);
    DELETE FROM pipehandler.delivery d
     WHERE d.id = ANY (ARRAY(SELECT o.id FROM pipehandler.delivery o WHERE o.lease = remove_lease.lease
                              ORDER BY o.recipient COLLATE "C", o.id FOR UPDATE));
    GET DIAGNOSTICS removed = ROW_COUNT;
    PERFORM pipehandler.forget(touched);
    DELETE FROM pipehandler.address a WHERE a.lease = remove_lease.lease;
    RETURN removed;
END
$$;
COMMENT ON FUNCTION pipehandler.remove_lease(bigint) IS
'Removes a lease, its deliveries, and the messages that nobody else has, at once: all or nothing. Returns how many deliveries it
had. Raises no_data_found where it is not there.';

-- The rules change.

CREATE TABLE pipehandler.retention_change (
    single  boolean PRIMARY KEY DEFAULT true CHECK (single),
    xid     xid8,
    through bigint  NOT NULL DEFAULT 0
);
COMMENT ON TABLE pipehandler.retention_change IS 'One row while the rules of retention have changed and are not yet applied to all that was stored before; none otherwise.';
COMMENT ON COLUMN pipehandler.retention_change.single IS 'There is one row at most.';
COMMENT ON COLUMN pipehandler.retention_change.xid IS 'A transaction that began after the change; null until there was one. Those before it may have read the old rules, so they have to end first.';
COMMENT ON COLUMN pipehandler.retention_change.through IS 'The last delivery to which the rules were applied.';

CREATE FUNCTION pipehandler.set_retention(rules jsonb) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted  pipehandler.retention[];
    present pipehandler.retention[];
BEGIN
    -- In hours: a day has 23 or 25 of them where clocks change, in whatever zone a session has.
    SELECT coalesce(array_agg(ROW(n, pipehandler.canonical(r ->> 'recipient'), pipehandler.canonical(r ->> 'sender'), lower(r ->> 'list_id'),
                                  make_interval(secs => (r ->> 'keep')::bigint), make_interval(secs => (r ->> 'raw')::bigint),
                                  make_interval(secs => (r ->> 'attachments')::bigint))::pipehandler.retention ORDER BY n), '{}')
      INTO wanted
      FROM jsonb_array_elements(rules) WITH ORDINALITY AS e (r, n);
    FOR look IN 1..2 LOOP
        SELECT coalesce(array_agg(r ORDER BY r.ordinal), '{}') INTO present FROM pipehandler.retention r;
        IF present = wanted THEN
            RETURN false;
        END IF;
        -- One after the other. Who only reads the rules is not held up.
        LOCK TABLE pipehandler.retention IN SHARE ROW EXCLUSIVE MODE;
    END LOOP;
    DELETE FROM pipehandler.retention;
    INSERT INTO pipehandler.retention SELECT r.* FROM unnest(wanted) AS r;
    INSERT INTO pipehandler.retention_change DEFAULT VALUES
        ON CONFLICT (single) DO UPDATE SET xid = NULL, through = 0;
    RETURN true;
END
$$;
COMMENT ON FUNCTION pipehandler.set_retention(jsonb) IS
'Replaces the rules of pipehandler.retention where they differ; returns whether they did. rules: an array of {"recipient", "sender",
"list_id": patterns for LIKE, "keep", "raw", "attachments": seconds}; what is null or missing is null in the table. New deliveries follow the new
rules from the commit on; pipehandler.apply_retention brings them to the others.';

CREATE FUNCTION pipehandler.apply_retention(batch integer DEFAULT 1000, OUT applied bigint, OUT changed bigint, OUT waits boolean)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    change pipehandler.retention_change;
    due    bigint[];
BEGIN
    applied := 0;
    changed := 0;
    waits := false;
    SELECT c.* INTO change FROM pipehandler.retention_change c FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- Ingest has its transaction id before it reads the rules, and ours was given out after they changed. So whoever read the old ones
    -- has a smaller one; and when all of those have ended, all of their deliveries are to be seen.
    IF change.xid IS NULL THEN
        UPDATE pipehandler.retention_change SET xid = pg_current_xact_id() RETURNING xid INTO change.xid;
    END IF;
    IF pg_snapshot_xmin(pg_current_snapshot()) < change.xid THEN
        waits := true;
        RETURN;
    END IF;
    due := ARRAY(SELECT d.id FROM pipehandler.delivery d WHERE d.id > change.through ORDER BY d.id LIMIT batch);
    applied := cardinality(due);
    IF applied = 0 THEN
        DELETE FROM pipehandler.retention_change;
        RETURN;
    END IF;
    PERFORM FROM pipehandler.delivery d WHERE d.id = ANY (due) ORDER BY d.recipient COLLATE "C", d.id FOR NO KEY UPDATE;
    UPDATE pipehandler.delivery d
       SET expires_at = n.expires_at, raw_until = n.raw_until, attachments_until = n.attachments_until
      FROM pipehandler.renewed_delivery n
     WHERE d.id = ANY (due) AND n.id = d.id
       AND (d.expires_at, d.raw_until, d.attachments_until) IS DISTINCT FROM (n.expires_at, n.raw_until, n.attachments_until);
    GET DIAGNOSTICS changed = ROW_COUNT;
    UPDATE pipehandler.retention_change SET through = due[applied];
END
$$;
COMMENT ON FUNCTION pipehandler.apply_retention(integer) IS
'After a change of the rules: gives the next deliveries, batch of them, the times that the rules of now mean. Returns how many were looked
at and how many of them changed; 0 looked at: all are done, or waits is true: a transaction that may have read the old rules is
still under way, call it again later. Each call is a transaction of its own. May fail with 40P01: call it again.';

-- As in 0006_reparse.sql, and the contents of attachments that retention has removed do not come back.
CREATE OR REPLACE FUNCTION pipehandler.reparse(
    message   uuid,
    document  jsonb,
    text_body text,
    html_body text,
    contents  bytea[],
    dry_run   boolean DEFAULT false
) RETURNS TABLE (name text, before jsonb, after jsonb)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    stored   pipehandler.message;
    derived  pipehandler.message;
    replaced boolean;
    wanted   boolean;
BEGIN
    -- One after the other; but deliveries of the message that are under way do not hold it up.
    IF dry_run THEN
        SELECT m.* INTO stored FROM pipehandler.message m WHERE m.id = reparse.message;
    ELSE
        SELECT m.* INTO stored FROM pipehandler.message m WHERE m.id = reparse.message FOR NO KEY UPDATE;
    END IF;
    IF NOT FOUND THEN
        RETURN;
    END IF;

    -- What is not derived from the bytes keeps its value.
    derived := jsonb_populate_record(stored, document - ARRAY['id', 'received_at', 'size', 'sha256']);
    derived.text_body := reparse.text_body;
    derived.html_body := reparse.html_body;
    derived.state := CASE WHEN derived.error IS NULL THEN 'parsed' ELSE 'failed' END;
    derived.message_id := CASE WHEN octet_length(derived.message_id) <= 998 THEN derived.message_id END;
    derived.from_name := derived.from_list -> 0 ->> 'name';
    derived.from_address := CASE WHEN octet_length(derived.from_list -> 0 ->> 'address') <= 998
                                 THEN derived.from_list -> 0 ->> 'address' END;
    -- This one is a fact about the delivery, which the bytes do not tell.
    derived.defects := jsonb_path_query_array(stored.defects, '$[*] ? (@.code == "shorter-than-told")') || derived.defects;

    SELECT EXISTS (SELECT FROM pipehandler.delivery d
                    WHERE d.message = reparse.message AND (d.attachments_until IS NULL OR d.attachments_until > now()))
      INTO wanted;
    SELECT EXISTS (
        SELECT FROM (SELECT a.* FROM pipehandler.attachment a WHERE a.message = reparse.message) AS o
          FULL JOIN jsonb_to_recordset(document -> 'attachments') AS n (
                   ordinal integer, part text, file_name text, content_type text, content_id text, disposition text,
                   size integer, sha256 text) ON n.ordinal = o.ordinal
         WHERE (o.ordinal, o.part, o.file_name, o.content_type, o.content_id, o.disposition, o.size, o.sha256, o.content)
               IS DISTINCT FROM (n.ordinal, n.part, n.file_name, n.content_type, n.content_id, n.disposition, n.size,
                                 decode(n.sha256, 'hex'),
                                 CASE WHEN wanted THEN reparse.contents[n.ordinal] ELSE o.content END))
      INTO replaced;
    IF replaced THEN
        RETURN QUERY
            SELECT 'attachments',
                   (SELECT coalesce(jsonb_agg(jsonb_build_object(
                               'ordinal', a.ordinal, 'part', a.part, 'file_name', a.file_name,
                               'content_type', a.content_type, 'content_id', a.content_id, 'disposition', a.disposition,
                               'size', a.size, 'sha256', encode(a.sha256, 'hex'), 'stored', a.content IS NOT NULL)
                               ORDER BY a.ordinal), '[]')
                      FROM pipehandler.attachment a
                     WHERE a.message = reparse.message),
                   (SELECT coalesce(jsonb_agg(e || jsonb_build_object(
                               'stored', wanted AND reparse.contents[(e ->> 'ordinal')::integer] IS NOT NULL)), '[]')
                      FROM jsonb_array_elements(document -> 'attachments') AS e);
    END IF;

    IF replaced AND NOT dry_run THEN
        -- A delivery under way may want, and write, contents that nobody wanted until now.
        PERFORM FROM pipehandler.message m WHERE m.id = reparse.message FOR UPDATE;
        SELECT EXISTS (SELECT FROM pipehandler.delivery d
                        WHERE d.message = reparse.message AND (d.attachments_until IS NULL OR d.attachments_until > now()))
          INTO wanted;
        DELETE FROM pipehandler.attachment a WHERE a.message = reparse.message;
        INSERT INTO pipehandler.attachment (
            message, ordinal, part, file_name, content_type, content_id, disposition, size, sha256, content)
        SELECT reparse.message, a.ordinal, a.part, a.file_name, a.content_type, a.content_id, a.disposition, a.size,
               decode(a.sha256, 'hex'), CASE WHEN wanted THEN reparse.contents[a.ordinal] END
          FROM jsonb_to_recordset(document -> 'attachments') AS a (
                   ordinal integer, part text, file_name text, content_type text, content_id text, disposition text,
                   size integer, sha256 text);
    END IF;

    IF stored IS NOT DISTINCT FROM derived THEN
        RETURN;
    END IF;
    IF NOT dry_run THEN
        UPDATE pipehandler.message m
           SET (message_id, in_reply_to, reference_ids, date, date_offset, subject, from_name, from_address, from_list,
                sender_list, reply_to_list, to_list, cc_list, bcc_list, list_id, text_body, html_body, header,
                authentication, state, error, defects, parser)
             = (derived.message_id, derived.in_reply_to, derived.reference_ids, derived.date, derived.date_offset,
                derived.subject, derived.from_name, derived.from_address, derived.from_list, derived.sender_list,
                derived.reply_to_list, derived.to_list, derived.cc_list, derived.bcc_list, derived.list_id,
                derived.text_body, derived.html_body, derived.header, derived.authentication, derived.state,
                derived.error, derived.defects, derived.parser)
         WHERE m.id = reparse.message;
    END IF;

    -- The bodies apart: one jsonb holds less than a body may have, so they are cut.
    RETURN QUERY
        SELECT b.name, to_jsonb(left(b.before, 1000000)), to_jsonb(left(b.after, 1000000))
          FROM (VALUES ('text_body', stored.text_body, derived.text_body),
                       ('html_body', stored.html_body, derived.html_body)) AS b (name, before, after)
         WHERE b.before IS DISTINCT FROM b.after;
    stored.text_body := NULL;
    stored.html_body := NULL;
    derived.text_body := NULL;
    derived.html_body := NULL;
    RETURN QUERY
        SELECT o.key, o.value, n.value
          FROM jsonb_each(to_jsonb(stored)) AS o
          JOIN jsonb_each(to_jsonb(derived)) AS n ON n.key = o.key
         WHERE n.value <> o.value
         ORDER BY o.key;
END
$$;

REVOKE ALL ON FUNCTION pipehandler.forget, pipehandler.expire, pipehandler.remove_leases, pipehandler.remove_lease,
   pipehandler.set_retention, pipehandler.apply_retention FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pipehandler.forget, pipehandler.expire, pipehandler.remove_leases, pipehandler.set_retention, pipehandler.apply_retention
   TO pipehandler_upkeep;
GRANT EXECUTE ON FUNCTION pipehandler.remove_lease TO pipehandler_lessor, pipehandler_upkeep;

REVOKE ALL ON FUNCTION pipehandler.retention_of FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pipehandler.retention_of TO pipehandler_reader, pipehandler_upkeep;
GRANT SELECT ON pipehandler.retention, pipehandler.retention_change, pipehandler.current_delivery, pipehandler.renewed_delivery
   TO pipehandler_reader, pipehandler_upkeep;
GRANT INSERT, UPDATE, DELETE ON pipehandler.retention, pipehandler.retention_change TO pipehandler_upkeep;

-- What is removed makes room for what comes, once vacuum has been there. By default it comes when a fifth of a table is dead, which in a
-- store of years is the mail of months; here, when a fiftieth is. Where a thirtieth of what lives is replaced between two visits, the
-- tables were 1.1 times as large as a fresh copy of what lived, by default 1.3 times (bench/run expiry).
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['message', 'raw_message', 'attachment', 'delivery', 'address'] LOOP
        EXECUTE format('ALTER TABLE pipehandler.%I SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500)', name);
    END LOOP;
    FOREACH name IN ARRAY ARRAY['message', 'raw_message', 'attachment'] LOOP
        EXECUTE format('ALTER TABLE pipehandler.%I SET (toast.autovacuum_vacuum_scale_factor = 0.02, toast.autovacuum_vacuum_threshold = 500)', name);
    END LOOP;
END
$$;
