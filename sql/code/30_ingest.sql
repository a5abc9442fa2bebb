-- The one statement of a delivery. It runs in the transaction of its caller, whose end is the commit point.
--
-- For SECURITY DEFINER, search_path and enable_seqscan, see 10_addresses.sql; for the order of the locks,
-- 20_retention.sql. plan_cache_mode: planning its statements for each message would take longer than running them
-- (docs/design/cost.md), so each has one plan. That is safe only where each finds its rows by the whole key of an
-- index, whatever the tables were like when it was planned: never by joining recipients to a table, and never by
-- fingerprint = ANY (...), which the plan for a small table does not look up in the index. Nor by reading a table that
-- is divided into days: that is what the functions below are for.

CREATE OR REPLACE FUNCTION pipehandler.is_parsed(parsed jsonb) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN (parsed @@ 'strict $.header.type() == "array" && !($.header[*].size() != 2)
        && !($.header[*][0].type() != "string") && !($.header[*][1].type() != "string")
        && $.from_list.type() == "array" && !($.from_list[*].name.type() != "string")
        && !($.from_list[*].address.type() != "string") && !($.from_list[*].group.type() != "string")
        && $.sender_list.type() == "array" && !($.sender_list[*].name.type() != "string")
        && !($.sender_list[*].address.type() != "string") && !($.sender_list[*].group.type() != "string")
        && $.reply_to_list.type() == "array" && !($.reply_to_list[*].name.type() != "string")
        && !($.reply_to_list[*].address.type() != "string") && !($.reply_to_list[*].group.type() != "string")
        && $.to_list.type() == "array" && !($.to_list[*].name.type() != "string")
        && !($.to_list[*].address.type() != "string") && !($.to_list[*].group.type() != "string")
        && $.cc_list.type() == "array" && !($.cc_list[*].name.type() != "string")
        && !($.cc_list[*].address.type() != "string") && !($.cc_list[*].group.type() != "string")
        && $.bcc_list.type() == "array" && !($.bcc_list[*].name.type() != "string")
        && !($.bcc_list[*].address.type() != "string") && !($.bcc_list[*].group.type() != "string")
        && $.in_reply_to.type() == "array" && !($.in_reply_to[*].type() != "string")
        && $.reference_ids.type() == "array" && !($.reference_ids[*].type() != "string")
        && $.defects.type() == "array" && !($.defects[*].code.type() != "string")
        && !($.defects[*].where.type() != "string") && !($.defects[*].detail.type() != "string")
        && $.attachments.type() == "array" && !($.attachments[*].ordinal.type() != "number")
        && !($.attachments[*].part.type() != "string") && !($.attachments[*].content_type.type() != "string")
        && $.authentication.type() == "object" && $.parser.type() == "string"') IS TRUE
       -- What the previous release does not send.
       AND (coalesce(jsonb_typeof(parsed -> 'list_unsubscribe'), 'null') = 'null'
            OR (parsed @@ 'strict $.list_unsubscribe.type() == "array"
                           && !($.list_unsubscribe[*].type() != "string")') IS TRUE)
       AND coalesce(jsonb_typeof(parsed -> 'list_unsubscribe_post'), 'boolean') IN ('boolean', 'null')
       AND (parsed @? 'strict $.attachments[*] ? (exists (@.parameters)).parameters
                       ? (@.type() != "object" && @.type() != "null")') IS NOT TRUE
       AND (parsed @? 'strict $.attachments[*] ? (@.parameters.type() == "object").parameters.*
                       ? (@.type() != "string")') IS NOT TRUE
       -- Readers follow 20 levels, and have numbers of double precision.
       AND NOT parsed @? '$.authentication.**{20}'
       AND NOT parsed @? '$.authentication.** ? (@.type() == "number" && (@ > 1.7e308 || @ < -1.7e308))'
       AND (coalesce(jsonb_typeof(parsed -> 'report'), 'null') = 'null'
            OR (parsed @@ 'strict $.report.type.type() == "string"
                           && !exists($.report.* ? (@.type() != "string" && @.type() != "array"))') IS TRUE
               AND (coalesce(parsed -> 'report' -> 'recipients', '[]')
                    @@ 'strict $.type() == "array" && !($[*].*.type() != "string")') IS TRUE
               AND coalesce(jsonb_typeof(parsed -> 'report' -> 'feedback_type'), 'null') IN ('string', 'null')
               AND coalesce(jsonb_typeof(parsed -> 'report' -> 'disposition'), 'null') IN ('string', 'null')
               AND coalesce(jsonb_typeof(parsed -> 'report' -> 'original_message_id'), 'null') IN ('string', 'null')
               AND NOT parsed @? '$.report.**{20}'
               AND NOT parsed @? '$.report.** ? (@.type() == "number" && (@ > 1.7e308 || @ < -1.7e308))');
COMMENT ON FUNCTION pipehandler.is_parsed(jsonb) IS
'Whether this has the shape that pipehandler.ingest expects of its argument parsed, and that readers rely on. In strict
mode of jsonpath a comparison is true where it is for any item, and unknown where an item has not the member.';

-- What concerns a message that was stored before. Its day is known when these are planned, which a new message is
-- spared.

CREATE OR REPLACE FUNCTION pipehandler.hold_message(day date, message uuid) RETURNS text
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    its_state text;
BEGIN
    SELECT m.state INTO its_state
      FROM pipehandler.message m
     WHERE m.day = hold_message.day AND m.id = hold_message.message
       FOR KEY SHARE;
    RETURN its_state;
END
$$;
COMMENT ON FUNCTION pipehandler.hold_message(date, uuid) IS
'For pipehandler.ingest: no removal takes this message before the transaction ends. Returns its state, null where it is
gone.';

CREATE OR REPLACE FUNCTION pipehandler.is_incomplete(day date, message uuid, with_bytes boolean, contents bytea[])
RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET plan_cache_mode = force_custom_plan
AS $$
BEGIN
    RETURN NOT EXISTS (SELECT FROM pipehandler.message m
                        WHERE m.day = is_incomplete.day AND m.id = is_incomplete.message)
           OR with_bytes
              AND NOT EXISTS (SELECT FROM pipehandler.raw_message r
                               WHERE r.day = is_incomplete.day AND r.message = is_incomplete.message)
           OR EXISTS (SELECT FROM pipehandler.attachment a
                       WHERE a.day = is_incomplete.day AND a.message = is_incomplete.message AND a.content IS NULL
                         AND sha256(contents[a.ordinal]) = a.sha256);
END
$$;
COMMENT ON FUNCTION pipehandler.is_incomplete(date, uuid, boolean, bytea[]) IS
'For pipehandler.ingest: whether a message is missing, or its bytes, or one of these contents of its attachments.';

CREATE OR REPLACE FUNCTION pipehandler.restore_contents(day date, message uuid, contents bytea[]) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET plan_cache_mode = force_custom_plan
AS $$
BEGIN
    UPDATE pipehandler.attachment a
       SET content = contents[a.ordinal]
     WHERE a.day = restore_contents.day AND a.message = restore_contents.message AND a.content IS NULL
       AND sha256(contents[a.ordinal]) = a.sha256;
END
$$;
COMMENT ON FUNCTION pipehandler.restore_contents(date, uuid, bytea[]) IS
'For pipehandler.ingest: stores those of the contents that retention has removed.';

CREATE OR REPLACE FUNCTION pipehandler.list_id_of(day date, message uuid) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET plan_cache_mode = force_custom_plan
AS $$
BEGIN
    RETURN (SELECT m.list_id FROM pipehandler.message m
             WHERE m.day = list_id_of.day AND m.id = list_id_of.message);
END
$$;
COMMENT ON FUNCTION pipehandler.list_id_of(date, uuid) IS
'For pipehandler.ingest: the List-Id of a message.';

CREATE OR REPLACE FUNCTION pipehandler.ingest(
    envelope  jsonb,
    parsed    jsonb,
    text_body text,
    html_body text,
    prepended bytea,
    raw       bytea,
    contents  bytea[]
) RETURNS TABLE (recipient text, delivery bigint, message uuid, duplicate boolean)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET datestyle = 'ISO, YMD'
SET timezone = 'UTC'
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
<<incoming>>
DECLARE
    digest      CONSTANT bytea := sha256(ingest.raw);
    -- UUID version 8 (RFC 9562 5.8), as in mail/identity.py. Computed here and never taken from the caller: a
    -- compromised handler could attach any stored message to a recipient of its own by its id.
    new_message CONSTANT uuid := encode(set_byte(set_byte(substring(digest FOR 16),
                                        6, get_byte(digest, 6) & 15 | 128),
                                        8, get_byte(digest, 8) & 63 | 128), 'hex')::uuid;
    -- The previous release sends only a fingerprint of version 1. A forged message may have the same as the genuine
    -- one, so it counts only against deliveries that have no other (docs/design/identity.md).
    former      CONSTANT bytea := decode(envelope ->> 'fingerprint', 'hex');
    fingerprint CONSTANT bytea := coalesce(decode(envelope ->> 'fingerprint_2', 'hex'), former);
    version     CONSTANT smallint := CASE WHEN envelope ? 'fingerprint_2' THEN 2 ELSE 1 END;
    either      CONSTANT bytea[] := ARRAY[fingerprint, former];
    -- Retention counts from the database's clock. That of the mail host is information: one outside of the years 1970
    -- to 9999 says nothing, so the database's takes its place.
    stored_at   CONSTANT timestamptz := clock_timestamp();
    -- That of the partitions in which the message is stored (15_days.sql).
    day         date := CASE WHEN pipehandler.has_day(stored_at::date) THEN stored_at::date ELSE 'epoch' END;
    received_at CONSTANT timestamptz := CASE WHEN envelope ->> 'received_at'
                                                  ~ '^(19[7-9][0-9]|[2-9][0-9]{3})-[-0-9T:.+Z ]*$'
                                             THEN least((envelope ->> 'received_at')::timestamptz,
                                                        timestamptz '9999-12-31 00:00+00')
                                             ELSE stored_at END;
    client_port CONSTANT integer := CASE WHEN envelope ->> 'client_port' ~ '^[0-9]{1,5}$'
                                          AND (envelope ->> 'client_port')::integer < 65536
                                         THEN (envelope ->> 'client_port')::integer END;
    delimiter   CONSTANT text := coalesce(envelope ->> 'delimiter', '+');
    new_list_id CONSTANT text := CASE WHEN octet_length(parsed ->> 'list_id') <= 998 THEN parsed ->> 'list_id' END;
    addressee   record;
    shortened   boolean := false;
    leased      record;
    earlier     record;
    lease       bigint;
    rejects     boolean;
    claimed     boolean := false;
    copies      jsonb := jsonb '[]'; -- the addressees for whom nothing was claimed
    incomplete  bigint[] := ARRAY[]::bigint[];
    former_messages record; -- of these deliveries: days and messages
    its_day     date; -- of a delivery of these bytes that is incomplete
    state       text;
    is_new      boolean;
    has_bytes   boolean;
BEGIN
    PERFORM pipehandler.secure_transaction();

    -- Readers rely on these shapes. The columns have their own constraints.
    IF (envelope @@ 'strict $.recipients.size() > 0 && !($.recipients[*].recipient.type() != "string")
                     && $.sender.type() == "string" && $.mail_host.type() == "string" && $.ingress.type() == "string"
                     && $.fingerprint.type() == "string"') IS NOT TRUE
       OR ingest.raw IS NULL THEN
        RAISE EXCEPTION 'the envelope has not the shape that pipehandler.ingest expects'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT pipehandler.is_parsed(parsed) OR array_ndims(contents) > 1 OR array_lower(contents, 1) <> 1 THEN
        RAISE EXCEPTION 'the parsed message has not the shape that pipehandler.ingest expects'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;

    -- Before it reads the rules of retention: pipehandler.apply_rules waits for all that may have read old ones.
    PERFORM pg_current_xact_id();

    -- A commit that did not wait for its standby is reported as a warning, which no setting may hide. The caller says
    -- so for its session, too; a pooler that changes sessions loses that.
    PERFORM set_config('client_min_messages', 'warning', true);

    -- Claim the deliveries first; in one order everywhere, so that two handlers never wait for each other. One by one,
    -- so that each row is found by the whole key of its index, whatever the statistics of the tables are.
    -- A recipient that is stored shortened is whole in original_recipient, where that is not known.
    FOR addressee IN
        SELECT g.recipient AS given, s.recipient,
               CASE WHEN s.recipient = g.recipient THEN g.original_recipient
                    ELSE coalesce(g.original_recipient, g.recipient) END AS original_recipient
          FROM jsonb_to_recordset(envelope -> 'recipients') AS g (recipient text, original_recipient text),
               LATERAL (SELECT pipehandler.stored_recipient(g.recipient) AS recipient OFFSET 0) AS s
         ORDER BY s.recipient COLLATE "C"
    LOOP
        shortened := shortened OR addressee.given <> addressee.recipient;
        SELECT l.lease, l.expires_at, l.extension INTO leased
          FROM pipehandler.lease_of(addressee.recipient, incoming.delimiter) AS l;
        lease := leased.lease;
        rejects := CASE WHEN lease IS NULL THEN envelope ->> 'policy' = 'known'
                        ELSE leased.expires_at <= now() AND envelope ->> 'expired' = 'reject' END IS TRUE;
        -- Postfix refuses such a recipient (pipehandler.lookup), but for what it has accepted meanwhile.
        IF lease IS NOT NULL AND envelope ->> 'ingress' <> 'import'
           AND EXISTS (SELECT FROM pipehandler.web_inbox w WHERE w.lease = incoming.lease) THEN
            rejects := rejects OR pipehandler.inbox_is_full(lease);
        END IF;

        -- An archive brings mail back that was stored before its address had a lease: that is not stored again. Live
        -- mail is, or the holder of the lease would never get it.
        IF lease IS NOT NULL AND envelope ->> 'ingress' = 'import'
           AND NOT EXISTS (SELECT FROM unnest(either) AS f (fingerprint),
                                  LATERAL (SELECT FROM pipehandler.delivery d
                                            WHERE d.recipient COLLATE "C" = addressee.recipient
                                              AND d.fingerprint = f.fingerprint
                                              AND coalesce(d.lease, 0) = incoming.lease
                                              AND d.fingerprint_version IN (1, version) OFFSET 0) AS e)
           AND EXISTS (SELECT FROM unnest(either) AS f (fingerprint),
                              LATERAL (SELECT FROM pipehandler.delivery d
                                        WHERE d.recipient COLLATE "C" = addressee.recipient
                                          AND d.fingerprint = f.fingerprint AND coalesce(d.lease, 0) = 0
                                          AND d.fingerprint_version IN (1, version) OFFSET 0) AS e) THEN
            lease := NULL;
        END IF;

        IF NOT rejects THEN
            INSERT INTO pipehandler.delivery (
                day, message, recipient, fingerprint, original_recipient, sender, queue_id, mail_host, ingress,
                client_address, client_hostname, client_helo, client_port, client_protocol, sasl_username, prepended,
                received_at, stored_at, lease, extension, expires_at, raw_until, attachments_until,
                fingerprint_version)
            SELECT incoming.day, new_message, addressee.recipient, incoming.fingerprint, addressee.original_recipient,
                   envelope ->> 'sender', envelope ->> 'queue_id', envelope ->> 'mail_host', envelope ->> 'ingress',
                   (envelope ->> 'client_address')::inet, envelope ->> 'client_hostname', envelope ->> 'client_helo',
                   incoming.client_port, envelope ->> 'client_protocol', envelope ->> 'sasl_username',
                   ingest.prepended, incoming.received_at, incoming.stored_at, incoming.lease, leased.extension,
                   incoming.stored_at + t.keep, incoming.stored_at + t.raw, incoming.stored_at + t.attachments,
                   version
              FROM (SELECT) AS one
              LEFT JOIN pipehandler.retention_of(
                       addressee.recipient, envelope ->> 'sender', parsed -> 'from_list' -> 0 ->> 'address',
                       parsed ->> 'list_id') AS t ON true
             WHERE NOT EXISTS (SELECT FROM pipehandler.delivery d
                                WHERE d.recipient COLLATE "C" = addressee.recipient AND d.fingerprint = former
                                  AND coalesce(d.lease, 0) = coalesce(incoming.lease, 0)
                                  AND d.fingerprint_version = 1)
                ON CONFLICT (recipient COLLATE "C", fingerprint, coalesce(lease, 0)) DO NOTHING
            RETURNING id INTO ingest.delivery;
            IF FOUND THEN
                ingest.recipient := addressee.given;
                ingest.message := new_message;
                ingest.duplicate := false;
                claimed := true;
                RETURN NEXT;
                CONTINUE;
            END IF;
        END IF;

        copies := copies || jsonb_build_object(
            'given', addressee.given, 'recipient', addressee.recipient, 'original_recipient',
            addressee.original_recipient, 'lease', lease, 'rejected', rejects);

        -- A delivery that is already there is a promise that its message can be read. Where a restored or damaged
        -- table lacks something that retention has not removed, these bytes are stored in its place, and it is not a
        -- duplicate. Nothing else is: the caller chooses the fingerprint, and must not exchange a message whose bytes
        -- are there. What can be read from them, `reparse` restores. What has expired is not a promise any more.
        SELECT e.* INTO earlier
          FROM unnest(either) AS f (fingerprint),
               LATERAL (SELECT d.id, d.day, d.message, d.raw_until, d.attachments_until, d.expires_at
                          FROM pipehandler.delivery d
                         WHERE d.recipient COLLATE "C" = addressee.recipient AND d.fingerprint = f.fingerprint
                           AND coalesce(d.lease, 0) = coalesce(incoming.lease, 0)
                           AND d.fingerprint_version IN (1, version) AND d.xid <> pg_current_xact_id()
                        OFFSET 0) AS e;
        IF FOUND AND coalesce(earlier.expires_at > now(), true)
           AND pipehandler.is_incomplete(
                   earlier.day, earlier.message, coalesce(earlier.raw_until > now(), true),
                   CASE WHEN earlier.message = new_message AND coalesce(earlier.attachments_until > now(), true)
                        THEN ingest.contents END) THEN
            incomplete := array_append(incomplete, earlier.id);
            its_day := CASE WHEN earlier.message = new_message THEN earlier.day ELSE its_day END;
        END IF;
    END LOOP;

    -- What is only repaired stays on its day, unless that is gone. It is not dropped from here on: is_incomplete has
    -- read the tables.
    IF NOT claimed AND (its_day <= 'epoch' OR pipehandler.has_day(its_day)) THEN
        day := its_day;
    END IF;

    -- Write the message only for what was claimed. Another recipient's delivery may have written it before.
    IF claimed OR cardinality(incomplete) > 0 THEN
        INSERT INTO pipehandler.message (
            day, id, received_at, message_id, in_reply_to, reference_ids, date, date_offset, subject, from_name,
            from_address, from_list, sender_list, reply_to_list, to_list, cc_list, bcc_list, list_id, text_body,
            html_body, header, authentication, size, sha256, state, error, defects, parser, text_from_html, preview,
            auto_submitted, precedence, list_unsubscribe, list_unsubscribe_post, report)
        SELECT incoming.day, new_message, incoming.received_at,
               CASE WHEN octet_length(d.message_id) <= 998 THEN d.message_id END, d.in_reply_to, d.reference_ids,
               d.date, d.date_offset, d.subject, d.from_list -> 0 ->> 'name',
               CASE WHEN octet_length(d.from_list -> 0 ->> 'address') <= 998 THEN d.from_list -> 0 ->> 'address' END,
               d.from_list, d.sender_list, d.reply_to_list, d.to_list, d.cc_list, d.bcc_list, d.list_id,
               ingest.text_body, ingest.html_body, d.header, d.authentication, octet_length(ingest.raw),
               digest, CASE WHEN d.error IS NULL THEN 'parsed' ELSE 'failed' END, d.error,
               CASE WHEN shortened THEN '[{"code": "envelope-value", "where": "recipient", "detail": ""}]' || d.defects
                    ELSE d.defects END,
               d.parser, d.text_from_html, d.preview, d.auto_submitted, d.precedence,
               coalesce(d.list_unsubscribe, '{}'), coalesce(d.list_unsubscribe_post, false), d.report
          FROM jsonb_to_record(parsed) AS d (
                   message_id text, in_reply_to text[], reference_ids text[], date timestamptz, date_offset smallint,
                   subject text, from_list jsonb, sender_list jsonb, reply_to_list jsonb, to_list jsonb, cc_list jsonb,
                   bcc_list jsonb, list_id text, header jsonb, authentication jsonb, error text, defects jsonb,
                   parser text, text_from_html text, preview text, auto_submitted text, precedence text,
                   list_unsubscribe text[], list_unsubscribe_post boolean, report jsonb)
            ON CONFLICT DO NOTHING; -- the key is that of the partition
        is_new := FOUND;

        -- Hold it, so that no removal takes it before this transaction ends. The caller tries again after 40001.
        IF NOT is_new THEN
            state := pipehandler.hold_message(incoming.day, new_message);
            IF state IS NULL THEN
                RAISE EXCEPTION 'message % was removed while it was delivered again', new_message
                    USING ERRCODE = 'serialization_failure';
            END IF;
        END IF;

        INSERT INTO pipehandler.raw_message (day, message, raw)
        VALUES (incoming.day, new_message, ingest.raw)
            ON CONFLICT DO NOTHING;
        has_bytes := NOT FOUND;
        -- Success means that the bytes are there: a trigger or a rule of an application can leave them out.
        IF has_bytes AND pipehandler.is_incomplete(incoming.day, new_message, true, NULL) THEN
            RAISE EXCEPTION 'the bytes of message % were not stored: is there a trigger or a rule on raw_message?',
                new_message USING ERRCODE = 'object_not_in_prerequisite_state';
        END IF;

        -- An earlier delivery could not read it, perhaps for want of memory or of time; this one has.
        IF NOT is_new AND parsed ->> 'error' IS NULL AND state = 'failed' THEN
            PERFORM pipehandler.reparse_on(incoming.day, new_message, parsed, ingest.text_body, ingest.html_body,
                                           contents);
        END IF;

        IF (is_new OR NOT has_bytes) AND parsed -> 'attachments' <> '[]' THEN
            INSERT INTO pipehandler.attachment (
                day, message, ordinal, part, file_name, content_type, content_id, disposition, size, sha256, content,
                parameters, content_location, content_description)
            SELECT incoming.day, new_message, a.ordinal, a.part, a.file_name, a.content_type, a.content_id,
                   a.disposition, a.size, decode(a.sha256, 'hex'), ingest.contents[a.ordinal],
                   coalesce(a.parameters, '{}'), a.content_location, a.content_description
              FROM jsonb_to_recordset(parsed -> 'attachments') AS a (
                       ordinal integer, part text, file_name text, content_type text, content_id text,
                       disposition text, size integer, sha256 text, parameters jsonb, content_location text,
                       content_description text)
                ON CONFLICT DO NOTHING;
        END IF;

        -- Retention may have taken from it what this delivery wants.
        IF NOT is_new THEN
            PERFORM pipehandler.restore_contents(incoming.day, new_message, contents);
        END IF;

        -- The bytes of another transmission of the same message take the place of those that are missing.
        IF cardinality(incomplete) > 0 THEN
            SELECT l.days, l.messages INTO former_messages FROM pipehandler.lock_messages(incomplete) AS l;
            UPDATE pipehandler.delivery d
               SET day = incoming.day, message = new_message,
                   prepended = CASE d.message WHEN new_message THEN d.prepended ELSE ingest.prepended END
             WHERE d.id = ANY (incomplete) AND (d.day, d.message) IS DISTINCT FROM (incoming.day, new_message);
            -- Of another day, or another transmission: nothing else would remove it.
            PERFORM pipehandler.remove_unreferenced(former_messages.days, former_messages.messages);
        END IF;
    END IF;

    -- What is not stored again, in the order of above.
    FOR addressee IN
        SELECT r.*
          FROM jsonb_to_recordset(copies) AS r (
                   given text, recipient text, original_recipient text, lease bigint, rejected boolean)
         ORDER BY r.recipient COLLATE "C"
    LOOP
        -- A duplicate is a promise, too. This server may be the only one that has its row, if it crashed before a
        -- synchronous standby had it. A transaction that wrote nothing to the WAL would not wait for the standby; a
        -- row lock is written.
        SELECT e.* INTO earlier
          FROM unnest(either) AS f (fingerprint),
               LATERAL (SELECT d.id, d.message, d.xid = pg_current_xact_id() AS is_ours
                          FROM pipehandler.delivery d
                         WHERE d.recipient COLLATE "C" = addressee.recipient AND d.fingerprint = f.fingerprint
                           AND coalesce(d.lease, 0) = coalesce(addressee.lease, 0)
                           AND d.fingerprint_version IN (1, version)
                           FOR KEY SHARE OF d) AS e;
        IF NOT FOUND AND NOT addressee.rejected THEN
            CONTINUE;
        END IF;

        -- What a copy has of its own: another alias, or another list, that led to the same recipient. At most 100 of
        -- each, because a sender may go on with new ones.
        UPDATE pipehandler.delivery d
           SET later_original_recipients = array_append(d.later_original_recipients, addressee.original_recipient)
         WHERE d.id = earlier.id AND addressee.original_recipient IS NOT NULL
           AND addressee.original_recipient IS DISTINCT FROM d.original_recipient
           AND addressee.original_recipient <> ALL (d.later_original_recipients)
           AND cardinality(d.later_original_recipients) < 100;
        UPDATE pipehandler.delivery d
           SET later_list_ids = array_append(d.later_list_ids, new_list_id)
         WHERE d.id = earlier.id AND new_list_id IS NOT NULL AND new_list_id <> ALL (d.later_list_ids)
           AND cardinality(d.later_list_ids) < 100
           AND new_list_id IS DISTINCT FROM pipehandler.list_id_of(d.day, d.message);

        -- One row for each recipient, even where the caller names one twice.
        IF earlier.is_ours IS NOT TRUE AND ingest.recipient IS DISTINCT FROM addressee.given THEN
            ingest.recipient := addressee.given;
            ingest.delivery := earlier.id;
            ingest.message := earlier.message;
            ingest.duplicate := CASE WHEN earlier.id IS NOT NULL THEN earlier.id <> ALL (incomplete) END;
            RETURN NEXT;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pipehandler.ingest(jsonb, jsonb, text, text, bytea, bytea, bytea[]) IS
'Stores one message for its recipients, all or nothing. A delivery that is already there is a duplicate and stays as
it is, but for later_original_recipients and later_list_ids; but where its message or its bytes are missing although
retention did not remove them, or (of the same bytes) contents of its attachments, they are stored again, and it is not
called a duplicate. Retention counts from stored_at, the clock of the database; a received_at outside of the years
1970 to 9999 is replaced by it, and a client_port outside of 0 to 65535 by null. A recipient of more than 998 octets
is stored as pipehandler.stored_recipient, and whole as original_recipient, with the defect envelope-value. With
"ingress": "import", one that was stored before its address had a lease is a duplicate, too; otherwise an inbox of the
inbox page that is full rejects. Raises invalid_parameter_value for JSON of another shape.
envelope: {"fingerprint": hex of version 1, "fingerprint_2": hex, "recipients": [{"recipient", "original_recipient"}],
"policy", "expired", "delimiter", and the columns of delivery}. A fingerprint of version 1 matches only deliveries that
have no other. policy: known to reject recipients that have no lease, else any. expired:
reject, or store for a lease that has expired. delimiter: as for pipehandler.lease_of. parsed: the columns of message
and {"attachments": [the columns of attachment]}; contents[n] belongs to ordinal n and may be null. Returns a row for
each recipient: its delivery, the message of this delivery, and whether it was already there; nulls for one that was
rejected. A recipient without a row was removed at that very moment: call again.';
