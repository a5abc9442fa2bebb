-- How long mail is kept. A delivery leaves the views at the moment at which it or its lease expires; pipehandler.expire
-- removes its rows later.
--
-- Locks: messages come before their deliveries, messages in the order of their ids, deliveries in the order in which
-- ingest finds them, and no statement waits for a lease while it holds them. So neither two removals nor a removal
-- and an ingest wait in a circle. Ingest holds its message from before its first delivery is visible until its end, and
-- a removal looks for deliveries in a statement that begins when it holds the message: so one of the two sees the
-- other. No foreign key would notice (15_days.sql). That statement has to see what was committed before it began: READ
-- COMMITTED.
--
-- For why enable_seqscan is off, see 10_addresses.sql.

CREATE OR REPLACE FUNCTION pipehandler.retention_of(recipient text, sender text, from_address text, list_id text)
RETURNS TABLE (keep interval, raw interval, attachments interval)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT r.keep, r.raw, r.attachments
      FROM (SELECT pipehandler.canonical(CASE WHEN octet_length(retention_of.recipient) <= 998
                                              THEN retention_of.recipient END) AS recipient,
                   pipehandler.canonical(CASE WHEN octet_length(retention_of.sender) <= 998
                                              THEN retention_of.sender END) AS sender,
                   pipehandler.canonical(CASE WHEN octet_length(retention_of.from_address) <= 998
                                              THEN retention_of.from_address END) AS from_address,
                   pipehandler.canonical(CASE WHEN octet_length(retention_of.list_id) <= 998
                                              THEN retention_of.list_id END) AS list_id
             WHERE EXISTS (SELECT FROM pipehandler.retention)
            OFFSET 0) AS folded -- once, not for each rule
      JOIN pipehandler.retention r
        ON (r.recipient IS NULL OR folded.recipient LIKE r.recipient)
       AND (r.sender IS NULL OR folded.sender LIKE r.sender OR folded.from_address LIKE r.sender)
       AND (r.list_id IS NULL OR folded.list_id LIKE r.list_id)
     ORDER BY r.ordinal
     LIMIT 1;
END;
COMMENT ON FUNCTION pipehandler.retention_of(text, text, text, text) IS
'The first rule of pipehandler.retention that matches a delivery, given its recipient, its envelope sender, the
address of From, and List-Id; no row where none matches. A value of more than 998 octets matches no pattern.';

CREATE OR REPLACE FUNCTION pipehandler.lock_messages(deliveries bigint[], OUT days date[], OUT messages uuid[])
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    each_day date[];
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'mail is removed in transactions that are READ COMMITTED, or a message that has just been '
                        'delivered again could be lost' USING ERRCODE = 'invalid_transaction_state';
    END IF;
    SELECT array_agg(o.day), array_agg(o.message) INTO days, messages
      FROM (SELECT DISTINCT d.day, d.message FROM pipehandler.delivery d WHERE d.id = ANY (deliveries)) AS o;
    each_day := ARRAY(SELECT DISTINCT k.day FROM unnest(days) AS k (day));
    PERFORM FROM unnest(days, messages) AS k (day, id)
      JOIN pipehandler.message m ON m.day = k.day AND m.id = k.id
     WHERE m.day = ANY (each_day)
     ORDER BY m.id, m.day
       FOR UPDATE OF m;
END
$$;
COMMENT ON FUNCTION pipehandler.lock_messages(bigint[]) IS
'For the functions that remove mail, before they lock anything else but one lease: locks the messages of these
deliveries. Returns them: their days, and at the same places their ids. Raises invalid_transaction_state where the
transaction is not READ COMMITTED.';

CREATE OR REPLACE FUNCTION pipehandler.remove_unreferenced(
    days     date[],
    messages uuid[],
    OUT messages_removed     bigint,
    OUT raw_messages_removed bigint,
    OUT attachments_removed  bigint
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    each_day CONSTANT date[] := ARRAY(SELECT DISTINCT k.day FROM unnest(days) AS k (day));
BEGIN
    DELETE FROM pipehandler.message m
     USING unnest(days, messages) AS k (day, id)
     WHERE m.day = ANY (each_day) AND m.day = k.day AND m.id = k.id
       AND NOT EXISTS (SELECT FROM pipehandler.delivery d WHERE d.message = m.id AND d.day = m.day);
    GET DIAGNOSTICS messages_removed = ROW_COUNT;
    DELETE FROM pipehandler.raw_message r
     USING unnest(days, messages) AS k (day, id)
     WHERE r.day = ANY (each_day) AND r.day = k.day AND r.message = k.id
       AND NOT EXISTS (SELECT FROM pipehandler.delivery d
                        WHERE d.message = r.message AND d.day = r.day
                          AND (d.raw_until IS NULL OR d.raw_until > now()));
    GET DIAGNOSTICS raw_messages_removed = ROW_COUNT;
    UPDATE pipehandler.attachment a
       SET content = NULL
      FROM unnest(days, messages) AS k (day, id)
     WHERE a.day = ANY (each_day) AND a.day = k.day AND a.message = k.id AND a.content IS NOT NULL
       AND NOT EXISTS (SELECT FROM pipehandler.delivery d
                        WHERE d.message = a.message AND d.day = a.day
                          AND (d.attachments_until IS NULL OR d.attachments_until > now()));
    GET DIAGNOSTICS attachments_removed = ROW_COUNT;
END
$$;
COMMENT ON FUNCTION pipehandler.remove_unreferenced(date[], uuid[]) IS
'For the functions that remove mail. Of these messages, which the caller has locked in an earlier statement
(pipehandler.lock_messages), removes what no delivery needs any more: the message, its bytes, the contents of its
attachments. Returns how many of each; bytes and contents of a removed message are not counted.';

CREATE OR REPLACE FUNCTION pipehandler.remove_due(
    due bigint[],
    OUT deliveries   bigint,
    OUT messages     bigint,
    OUT raw_messages bigint,
    OUT attachments  bigint
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    locked record;
BEGIN
    -- Each statement sees what was committed before it began, and asks again what is due: a lease may have been
    -- extended in the meantime, or the delivery got another message.
    SELECT l.days, l.messages INTO locked FROM pipehandler.lock_messages(due) AS l;
    DELETE FROM pipehandler.delivery d
     WHERE d.id = ANY (ARRAY(SELECT o.id
                               FROM pipehandler.delivery o
                               LEFT JOIN pipehandler.address a ON a.lease = o.lease
                               LEFT JOIN pipehandler.web_inbox w ON w.lease = o.lease
                              WHERE o.id = ANY (due)
                                AND (o.day, o.message) IN (SELECT k.day, k.id
                                                             FROM unnest(locked.days, locked.messages) AS k (day, id))
                                AND (o.expires_at <= now()
                                     OR CASE WHEN w.lease IS NULL THEN a.expires_at ELSE w.mail_until END <= now())
                              ORDER BY o.recipient COLLATE "C", o.id
                                FOR UPDATE OF o));
    GET DIAGNOSTICS deliveries = ROW_COUNT;
    UPDATE pipehandler.delivery d
       SET raw_until         = CASE WHEN d.raw_until <= now() THEN 'epoch' ELSE d.raw_until END,
           attachments_until = CASE WHEN d.attachments_until <= now() THEN 'epoch' ELSE d.attachments_until END
     WHERE d.id = ANY (due)
       AND (d.raw_until > 'epoch' AND d.raw_until <= now()
            OR d.attachments_until > 'epoch' AND d.attachments_until <= now());
    SELECT r.messages_removed, r.raw_messages_removed, r.attachments_removed
      INTO messages, raw_messages, attachments
      FROM pipehandler.remove_unreferenced(locked.days, locked.messages) AS r;
END
$$;
COMMENT ON FUNCTION pipehandler.remove_due(bigint[]) IS
'For pipehandler.expire: removes those of the deliveries that are due, and what of their messages no delivery needs any
more.';

CREATE OR REPLACE FUNCTION pipehandler.expire(
    batch       integer     DEFAULT 500,
    resume_from timestamptz DEFAULT '-infinity',
    OUT deliveries   bigint,
    OUT messages     bigint,
    OUT raw_messages bigint,
    OUT attachments  bigint,
    OUT next_from    timestamptz,
    OUT raws         bigint,
    OUT reached      timestamptz,
    OUT skipped      bigint[]
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    due  bigint[];
    one  record;
    -- The days whose deliveries are removed one by one: not those that wait to go as a whole (pipehandler.remove_days).
    days CONSTANT date[] := ARRAY(SELECT o.day FROM pipehandler.days() AS o WHERE o.first_due <= now() AND NOT o.waits);
BEGIN
    skipped := '{}';
    -- Choose, without locks. The invariant of next_from: everything that was due before it is among what this call
    -- has chosen. That is why both steps read in the order of time, why step 2 reads no further than step 1 did, and
    -- why the next call may resume from there. It includes that very moment: more may be due at it than fitted into
    -- the batch.
    WITH due_by_time AS MATERIALIZED (
        -- Step 1: deliveries that their own times make due. Each SELECT has an index; at most batch rows in all.
        (SELECT e.id, e.expires_at AS due_at
           FROM unnest(days) AS o (day),
                LATERAL (SELECT d.id, d.expires_at
                           FROM pipehandler.delivery d
                          WHERE d.day = o.day AND d.expires_at BETWEEN resume_from AND now()
                          ORDER BY d.expires_at
                          LIMIT batch) AS e
          ORDER BY e.expires_at
          LIMIT batch)
        UNION ALL
        (SELECT d.id, d.raw_until
           FROM pipehandler.delivery d
          WHERE d.raw_until > 'epoch' AND d.raw_until BETWEEN resume_from AND now()
          ORDER BY d.raw_until
          LIMIT batch)
        UNION ALL
        (SELECT d.id, d.attachments_until
           FROM pipehandler.delivery d
          WHERE d.attachments_until > 'epoch' AND d.attachments_until BETWEEN resume_from AND now()
          ORDER BY d.attachments_until
          LIMIT batch)
        ORDER BY due_at
        LIMIT batch
    ),
    known_through AS (
        -- So far step 1 has seen everything: until now, unless the batch was too small.
        SELECT CASE WHEN count(*) < batch THEN now() ELSE max(t.due_at) END AS due_at
          FROM due_by_time t
    ),
    due_by_lease AS MATERIALIZED (
        -- Step 2: deliveries whose lease has expired; of a visitor of the inbox page, with its time of grace.
        (SELECT d.id, a.expires_at AS due_at
           FROM pipehandler.address a
           JOIN pipehandler.delivery d ON d.lease = a.lease
          WHERE a.expires_at BETWEEN resume_from AND (SELECT k.due_at FROM known_through k)
            AND NOT EXISTS (SELECT FROM pipehandler.web_inbox w WHERE w.lease = a.lease)
          ORDER BY a.expires_at
          LIMIT batch)
        UNION ALL
        (SELECT d.id, w.mail_until
           FROM pipehandler.web_inbox w
           JOIN pipehandler.delivery d ON d.lease = w.lease
          WHERE w.mail_until BETWEEN resume_from AND (SELECT k.due_at FROM known_through k)
          ORDER BY w.mail_until
          LIMIT batch)
    )
    SELECT array_agg(c.id), max(c.due_at)
      INTO due, next_from
      FROM (SELECT t.id, t.due_at FROM due_by_time t
             UNION ALL
            SELECT l.id, l.due_at FROM due_by_lease l
             ORDER BY due_at
             LIMIT batch) AS c;

    -- Remove. A row that cannot be removed, such as one that the disk has damaged, one that a session has locked and
    -- keeps, or one that a foreign key of an application refers to, must not keep all others.
    BEGIN
        SELECT r.deliveries, r.messages, r.raw_messages, r.attachments
          INTO deliveries, messages, raw_messages, attachments
          FROM pipehandler.remove_due(due) AS r;
    EXCEPTION
        WHEN transaction_rollback OR serialization_failure OR deadlock_detected THEN
            RAISE; -- other sessions changed the same rows: the caller tries again
        WHEN OTHERS THEN
            IF SQLSTATE = '55P03' THEN -- lock_not_available; what was waited for is not waited for again
                PERFORM set_config('lock_timeout', '1ms', true);
            END IF;
            deliveries := 0;
            messages := 0;
            raw_messages := 0;
            attachments := 0;
            FOR one IN SELECT d.id FROM pipehandler.delivery d WHERE d.id = ANY (due) ORDER BY d.message, d.day LOOP
                BEGIN
                    SELECT expire.deliveries + r.deliveries, expire.messages + r.messages,
                           expire.raw_messages + r.raw_messages, expire.attachments + r.attachments
                      INTO STRICT deliveries, messages, raw_messages, attachments
                      FROM pipehandler.remove_due(ARRAY[one.id]) AS r;
                EXCEPTION
                    WHEN transaction_rollback OR serialization_failure OR deadlock_detected THEN
                        RAISE;
                    WHEN OTHERS THEN
                        RAISE WARNING 'delivery % cannot be removed: % (SQLSTATE %)', one.id, SQLERRM, SQLSTATE;
                        skipped := skipped || one.id;
                END;
            END LOOP;
    END;

    -- What is still due was kept without an error, by a trigger or a rule of an application.
    FOR one IN
        SELECT d.id
          FROM pipehandler.delivery d
          LEFT JOIN pipehandler.address a ON a.lease = d.lease
          LEFT JOIN pipehandler.web_inbox w ON w.lease = d.lease
         WHERE d.id = ANY (due) AND d.id <> ALL (skipped)
           AND (d.expires_at <= now()
                OR CASE WHEN w.lease IS NULL THEN a.expires_at ELSE w.mail_until END <= now()
                OR d.raw_until > 'epoch' AND d.raw_until <= now()
                OR d.attachments_until > 'epoch' AND d.attachments_until <= now())
    LOOP
        RAISE WARNING 'delivery % cannot be removed: a trigger or a rule keeps it', one.id;
        skipped := skipped || one.id;
    END LOOP;

    -- What was skipped would be chosen again, and nothing else.
    IF deliveries + raw_messages + attachments = 0 AND cardinality(skipped) > 0 THEN
        next_from := next_from + interval '1 microsecond';
    END IF;
    raws := raw_messages;
    reached := next_from;
END
$$;
COMMENT ON FUNCTION pipehandler.expire(integer, timestamptz) IS
'Removes up to batch deliveries that have expired, by themselves or with their lease, and with its last delivery each
message; and bytes and contents of attachments that no delivery needs any more; but nothing of a day that waits to be
removed as a whole (pipehandler.days, pipehandler.remove_days), unless its lease has expired. Call it again, each call
in its own transaction, until next_from is null: then nothing is left. resume_from: next_from of the previous call, so
that nothing is read twice; omit it in the first call. May fail with 40001 or 40P01 where other sessions change the same
rows: call it again. skipped: the deliveries that cannot be removed, or that another session keeps locked; a warning has
the reason. raws and reached are the former names of raw_messages and next_from, for one release.';

CREATE OR REPLACE FUNCTION pipehandler.remove_leases(
    batch       integer     DEFAULT 500,
    resume_from timestamptz DEFAULT '-infinity',
    grace       interval    DEFAULT '120 hours',
    OUT leases    bigint,
    OUT next_from timestamptz,
    OUT reached   timestamptz
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    chosen bigint[];
    one    bigint;
BEGIN
    -- Ingest holds the leases of its recipients while it waits for messages, so this must not wait for a lease; a later
    -- call takes it.
    SELECT array_agg(o.lease), max(o.expires_at)
      INTO chosen, next_from
      FROM (SELECT a.lease, a.expires_at
              FROM pipehandler.address a
             WHERE a.expires_at BETWEEN resume_from AND now() - grace
               AND NOT EXISTS (SELECT FROM pipehandler.delivery d WHERE d.lease = a.lease)
               AND NOT EXISTS (SELECT FROM pipehandler.web_inbox w WHERE w.lease = a.lease AND w.mail_until > now())
             ORDER BY a.expires_at
             LIMIT batch
               FOR UPDATE SKIP LOCKED) AS o;
    BEGIN
        DELETE FROM pipehandler.address a
         WHERE a.lease = ANY (chosen) AND NOT EXISTS (SELECT FROM pipehandler.delivery d WHERE d.lease = a.lease);
        GET DIAGNOSTICS leases = ROW_COUNT;
        next_from := CASE WHEN leases > 0 THEN next_from END;
    EXCEPTION
        WHEN transaction_rollback OR serialization_failure OR deadlock_detected THEN
            RAISE;
        WHEN OTHERS THEN -- as in pipehandler.expire
            leases := 0;
            FOREACH one IN ARRAY chosen LOOP
                BEGIN
                    DELETE FROM pipehandler.address a
                     WHERE a.lease = one AND NOT EXISTS (SELECT FROM pipehandler.delivery d WHERE d.lease = a.lease);
                    leases := leases + 1;
                EXCEPTION
                    WHEN transaction_rollback OR serialization_failure OR deadlock_detected THEN
                        RAISE;
                    WHEN OTHERS THEN
                        RAISE WARNING 'lease % cannot be removed: % (SQLSTATE %)', one, SQLERRM, SQLSTATE;
                END;
            END LOOP;
            -- What is kept would be chosen again, and nothing else.
            next_from := next_from + interval '1 microsecond';
    END;
    reached := next_from;
    PERFORM pipehandler.remove_ended_keys();
END
$$;
COMMENT ON FUNCTION pipehandler.remove_leases(integer, timestamptz, interval) IS
'Removes up to batch leases that expired longer than grace ago and have no deliveries. Called in the same way as
pipehandler.expire. grace: how long a message that was accepted for the address may still wait in the queue of Postfix
(maximal_queue_lifetime); until then it can be distinguished from one for an address that never existed. Removes keys,
tombstones and closed networks of the inbox page that have ended as well. reached is the former name of next_from, for
one release.';

CREATE OR REPLACE FUNCTION pipehandler.remove_mail_of_lease(lease bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    locked  record;
    removed bigint;
BEGIN
    -- The one lease comes first, as in ingest; from here on no delivery is added to it.
    PERFORM FROM pipehandler.address a WHERE a.lease = remove_mail_of_lease.lease FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no lease %: it was removed', lease USING ERRCODE = 'no_data_found';
    END IF;
    SELECT l.days, l.messages INTO locked
      FROM pipehandler.lock_messages(ARRAY(SELECT d.id FROM pipehandler.delivery d
                                            WHERE d.lease = remove_mail_of_lease.lease)) AS l;
    DELETE FROM pipehandler.delivery d
     WHERE d.id = ANY (ARRAY(SELECT o.id FROM pipehandler.delivery o WHERE o.lease = remove_mail_of_lease.lease
                              ORDER BY o.recipient COLLATE "C", o.id FOR UPDATE));
    GET DIAGNOSTICS removed = ROW_COUNT;
    PERFORM pipehandler.remove_unreferenced(locked.days, locked.messages);
    RETURN removed;
END
$$;
COMMENT ON FUNCTION pipehandler.remove_mail_of_lease(bigint) IS
'For the functions that remove a lease or empty it: removes its deliveries, and the messages that have no other one, and
keeps the lease locked. Returns how many deliveries it had. Raises no_data_found where there is no such lease.';

CREATE OR REPLACE FUNCTION pipehandler.remove_lease(lease bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    removed bigint;
BEGIN
    PERFORM pipehandler.secure_transaction();
    removed := pipehandler.remove_mail_of_lease(lease);
    DELETE FROM pipehandler.address a WHERE a.lease = remove_lease.lease;
    RETURN removed;
END
$$;
COMMENT ON FUNCTION pipehandler.remove_lease(bigint) IS
'Removes a lease, its deliveries, and the messages that have no other delivery, all or nothing. Returns how many
deliveries the lease had. Raises no_data_found where there is no such lease.';

CREATE OR REPLACE FUNCTION pipehandler.remove_deliveries(
    ids bigint[],
    OUT deliveries bigint,
    OUT messages   bigint
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    locked record;
BEGIN
    SELECT l.days, l.messages INTO locked FROM pipehandler.lock_messages(ids) AS l;
    DELETE FROM pipehandler.delivery d
     WHERE d.id = ANY (ARRAY(SELECT o.id FROM pipehandler.delivery o WHERE o.id = ANY (ids)
                              ORDER BY o.recipient COLLATE "C", o.id FOR UPDATE));
    GET DIAGNOSTICS deliveries = ROW_COUNT;
    SELECT r.messages_removed INTO messages FROM pipehandler.remove_unreferenced(locked.days, locked.messages) AS r;
    -- Open pages show it no longer.
    IF deliveries > 0 AND pg_notification_queue_usage() < 0.9 THEN -- as announce_change
        PERFORM pg_notify('pipehandler_inbox', '');
    END IF;
END
$$;
COMMENT ON FUNCTION pipehandler.remove_deliveries(bigint[]) IS
'Removes these deliveries, expired or not, and the messages that have no other delivery, with their bytes and
attachments: all or nothing. Returns how many of each. A number that no delivery has is ignored. May fail with 40001,
40P01 or 23503 where other sessions change the same rows: call it again.';

CREATE OR REPLACE FUNCTION pipehandler.set_retention(rules jsonb) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    forever CONSTANT float8 := 31536000000; -- seconds in a thousand years
    new_rules     pipehandler.retention[];
    present_rules pipehandler.retention[];
BEGIN
    -- At most a thousand years, so that no time leaves the range of what clients can read.
    -- In hours: a day has 23 or 25 of them where clocks change, in whatever zone a session has.
    SELECT coalesce(array_agg(ROW(n, pipehandler.canonical(r ->> 'recipient'), pipehandler.canonical(r ->> 'sender'),
                                  pipehandler.canonical(r ->> 'list_id'), make_interval(secs => t.keep),
                                  make_interval(secs => t.raw), make_interval(secs => t.attachments)
                                  )::pipehandler.retention
                              ORDER BY n), '{}')
      INTO new_rules
      FROM jsonb_array_elements(rules) WITH ORDINALITY AS e (r, n),
           LATERAL (SELECT CASE WHEN k.keep < forever THEN k.keep ELSE forever * sign(k.keep) END AS keep,
                           CASE WHEN k.raw < forever THEN k.raw ELSE forever * sign(k.raw) END AS raw,
                           CASE WHEN k.attachments < forever THEN k.attachments ELSE forever * sign(k.attachments) END
                           AS attachments
                      FROM jsonb_to_record(e.r) AS k (keep float8, raw float8, attachments float8)) AS t;
    FOR pass IN 1..2 LOOP
        SELECT coalesce(array_agg(r ORDER BY r.ordinal), '{}') INTO present_rules FROM pipehandler.retention r;
        IF present_rules = new_rules THEN
            DELETE FROM pipehandler.retention_hold; -- the change was taken back
            RETURN false;
        END IF;
        -- One change after the other. Sessions that only read the rules do not wait.
        LOCK TABLE pipehandler.retention IN SHARE ROW EXCLUSIVE MODE;
    END LOOP;
    DELETE FROM pipehandler.retention_hold;
    DELETE FROM pipehandler.retention;
    INSERT INTO pipehandler.retention (ordinal, recipient, sender, list_id, keep, raw, attachments)
    SELECT r.ordinal, r.recipient, r.sender, r.list_id, r.keep, r.raw, r.attachments FROM unnest(new_rules) AS r;
    INSERT INTO pipehandler.retention_change DEFAULT VALUES
        ON CONFLICT (single) DO UPDATE SET xid = NULL, through = 0;
    RETURN true;
END
$$;
COMMENT ON FUNCTION pipehandler.set_retention(jsonb) IS
'Replaces the rules of pipehandler.retention where they differ; returns whether they did. rules: an array of
{"recipient", "sender", "list_id": patterns for LIKE, "keep", "raw", "attachments": seconds}; a null or missing value
is null in the table. New deliveries follow the new rules from the commit on; pipehandler.apply_rules applies them
to stored ones.';

CREATE OR REPLACE FUNCTION pipehandler.renew(due bigint[]) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    days CONSTANT date[] := ARRAY(SELECT DISTINCT d.day FROM pipehandler.delivery d WHERE d.id = ANY (due));
    changed bigint;
BEGIN
    UPDATE pipehandler.delivery d
       SET expires_at = n.expires_at, raw_until = n.raw_until, attachments_until = n.attachments_until
      FROM pipehandler.delivery_under_current_rules n
     WHERE d.id = ANY (due) AND n.id = ANY (due) AND n.id = d.id AND n.day = ANY (days)
       AND (d.expires_at, d.raw_until, d.attachments_until)
           IS DISTINCT FROM (n.expires_at, n.raw_until, n.attachments_until);
    GET DIAGNOSTICS changed = ROW_COUNT;
    RETURN changed;
END
$$;
COMMENT ON FUNCTION pipehandler.renew(bigint[]) IS
'For pipehandler.apply_rules: gives these deliveries the times that the current rules mean; returns how many changed.';

CREATE OR REPLACE FUNCTION pipehandler.apply_rules(
    batch integer DEFAULT 1000,
    OUT applied bigint,
    OUT changed bigint,
    OUT waits   boolean,
    OUT skipped bigint[]
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    change pipehandler.retention_change;
    due    bigint[];
    one    bigint;
BEGIN
    applied := 0;
    changed := 0;
    waits := false;
    skipped := '{}';
    SELECT c.* INTO change FROM pipehandler.retention_change c FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- Ingest takes its transaction id before it reads the rules, and ours was assigned after they changed. So a
    -- transaction that read the old rules has a smaller one; when all of those have ended, all of their deliveries
    -- are visible.
    -- One that was not assigned here yet is of the cluster that a dump was taken from: no transaction of it goes on.
    IF change.xid IS NULL OR change.xid > pg_current_xact_id() THEN
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
    PERFORM FROM pipehandler.delivery d
      WHERE d.id = ANY (due)
      ORDER BY d.recipient COLLATE "C", d.id
        FOR NO KEY UPDATE;
    -- A row whose times cannot be computed or stored keeps those that it has, and must not keep all others from theirs.
    BEGIN
        changed := pipehandler.renew(due);
    EXCEPTION
        WHEN transaction_rollback OR serialization_failure OR deadlock_detected OR lock_not_available THEN
            RAISE;
        WHEN OTHERS THEN
            FOREACH one IN ARRAY due LOOP
                BEGIN
                    changed := changed + pipehandler.renew(ARRAY[one]);
                EXCEPTION
                    WHEN transaction_rollback OR serialization_failure OR deadlock_detected OR lock_not_available THEN
                        RAISE;
                    WHEN OTHERS THEN
                        RAISE WARNING 'the rules cannot be applied to delivery %: % (SQLSTATE %)', one, SQLERRM,
                            SQLSTATE;
                        skipped := skipped || one;
                END;
            END LOOP;
    END;
    UPDATE pipehandler.retention_change SET through = due[applied];
END
$$;
COMMENT ON FUNCTION pipehandler.apply_rules(integer) IS
'After a change of the rules: gives the next batch of deliveries the times that the current rules mean. Returns how
many were examined and how many of them changed. With 0 examined, all are done; or, where waits is true, a transaction
that may have read the old rules is still running: call it again later. skipped: deliveries to which the rules cannot be
applied, which keep the times that they have; a warning has the reason. Each call belongs in its own transaction. May
fail with 40P01: call it again.';

-- Without the column skipped: the previous release takes every column, and knows three. For one release.
CREATE OR REPLACE FUNCTION pipehandler.apply_retention(
    batch integer DEFAULT 1000,
    OUT applied bigint,
    OUT changed bigint,
    OUT waits   boolean
)
LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT r.applied, r.changed, r.waits FROM pipehandler.apply_rules(apply_retention.batch) AS r;
END;
COMMENT ON FUNCTION pipehandler.apply_retention(integer) IS
'Deprecated: use pipehandler.apply_rules.';

-- The former names of arguments, for calls that name them; for one release. The order of the arguments differs, so
-- that no call without names becomes ambiguous.

CREATE OR REPLACE FUNCTION pipehandler.expire(
    since timestamptz,
    batch integer DEFAULT 500,
    OUT deliveries  bigint,
    OUT messages    bigint,
    OUT raws        bigint,
    OUT attachments bigint,
    OUT reached     timestamptz
)
LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT e.deliveries, e.messages, e.raws, e.attachments, e.reached
      FROM pipehandler.expire(expire.batch, expire.since) AS e;
END;
COMMENT ON FUNCTION pipehandler.expire(timestamptz, integer) IS
'Deprecated, for calls with since => ...: use pipehandler.expire(batch, resume_from).';

CREATE OR REPLACE FUNCTION pipehandler.remove_leases(
    since timestamptz,
    batch integer  DEFAULT 500,
    grace interval DEFAULT '120 hours',
    OUT leases  bigint,
    OUT reached timestamptz
)
LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT r.leases, r.reached
      FROM pipehandler.remove_leases(remove_leases.batch, remove_leases.since, remove_leases.grace) AS r;
END;
COMMENT ON FUNCTION pipehandler.remove_leases(timestamptz, integer, interval) IS
'Deprecated, for calls with since => ...: use pipehandler.remove_leases(batch, resume_from, grace).';
