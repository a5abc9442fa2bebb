-- The one statement of a delivery. It runs in the transaction of its caller, whose end is the commit point.
--
-- For SECURITY DEFINER, search_path and enable_seqscan, see 10_addresses.sql; for the order of the locks,
-- 20_retention.sql.

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
               AND (jsonb_build_array(parsed -> 'report' -> 'feedback_type', parsed -> 'report' -> 'disposition',
                                      parsed -> 'report' -> 'original_message_id')
                    @@ 'strict !exists($[*] ? (@.type() != "string" && @.type() != "null"))') IS TRUE
               AND NOT parsed @? '$.report.**{20}'
               AND NOT parsed @? '$.report.** ? (@.type() == "number" && (@ > 1.7e308 || @ < -1.7e308))');
COMMENT ON FUNCTION pipehandler.is_parsed(jsonb) IS
'Whether this has the shape that pipehandler.ingest expects of its argument parsed, and that readers rely on. In strict
mode of jsonpath a comparison is true where it is for any item, and unknown where an item has not the member.';

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
    received_at CONSTANT timestamptz := CASE WHEN envelope ->> 'received_at'
                                                  ~ '^(19[7-9][0-9]|[2-9][0-9]{3})-[-0-9T:.+Z ]*$'
                                             THEN least((envelope ->> 'received_at')::timestamptz,
                                                        timestamptz '9999-12-31 00:00+00')
                                             ELSE stored_at END;
    client_port CONSTANT integer := CASE WHEN envelope ->> 'client_port' ~ '^[0-9]{1,5}$'
                                          AND (envelope ->> 'client_port')::integer < 65536
                                         THEN (envelope ->> 'client_port')::integer END;
    addressees  jsonb;
    claimed     integer;
    written     integer;
    brought     integer;
    incomplete  bigint[] := ARRAY[]::bigint[];
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

    -- A recipient that is stored shortened is whole in original_recipient, where that is not known.
    -- The lease of each recipient. Mail that was stored already is never rejected: its sender would get a bounce for
    -- it.
    SELECT jsonb_agg(jsonb_build_object(
               'recipient', r.recipient, 'given', r.given, 'original_recipient', r.original_recipient, 'lease', l.lease,
               'extension', l.extension, 'rejected', l.rejects
               AND NOT EXISTS (SELECT FROM pipehandler.delivery d
                                WHERE d.recipient COLLATE "C" = r.recipient AND d.fingerprint = ANY (either)
                                  AND d.fingerprint_version IN (1, version)
                                  AND coalesce(d.lease, 0) = coalesce(l.lease, 0))))
      INTO addressees
      FROM (SELECT g.recipient AS given, s.recipient,
                   CASE WHEN s.recipient = g.recipient THEN g.original_recipient
                        ELSE coalesce(g.original_recipient, g.recipient) END AS original_recipient
              FROM jsonb_to_recordset(envelope -> 'recipients') AS g (recipient text, original_recipient text),
                   LATERAL (SELECT pipehandler.stored_recipient(g.recipient) AS recipient
                             OFFSET 0) AS s) AS r, -- once, not for each use
           LATERAL (SELECT o.extension,
                           -- An archive brings mail back that was stored before its address had a lease: that is not
                           -- stored again. Live mail is, or the holder of the lease would never get it.
                           CASE WHEN envelope ->> 'ingress' = 'import'
                                     AND EXISTS (SELECT FROM pipehandler.delivery d
                                                  WHERE d.recipient COLLATE "C" = r.recipient
                                                    AND d.fingerprint = ANY (either)
                                                    AND d.fingerprint_version IN (1, version) AND d.lease IS NULL)
                                     AND NOT EXISTS (SELECT FROM pipehandler.delivery d
                                                      WHERE d.recipient COLLATE "C" = r.recipient
                                                        AND d.fingerprint = ANY (either)
                                                        AND d.fingerprint_version IN (1, version)
                                                        AND d.lease = o.lease)
                                THEN NULL ELSE o.lease END AS lease,
                           CASE WHEN o.lease IS NULL THEN envelope ->> 'policy' = 'known'
                                ELSE o.expires_at <= now() AND envelope ->> 'expired' = 'reject' END IS TRUE AS rejects
                      FROM pipehandler.lease_of(r.recipient, coalesce(envelope ->> 'delimiter', '+')) AS o) AS l;

    -- Before it reads the rules of retention: pipehandler.apply_rules waits for all that may have read old ones.
    PERFORM pg_current_xact_id();

    -- A commit that did not wait for its standby is reported as a warning, which no setting may hide. The caller says
    -- so for its session, too; a pooler that changes sessions loses that.
    PERFORM set_config('client_min_messages', 'warning', true);

    -- Claim the deliveries first; in one order everywhere, so that two handlers never wait for each other.
    INSERT INTO pipehandler.delivery (
        message, recipient, fingerprint, original_recipient, sender, queue_id, mail_host, ingress, client_address,
        client_hostname, client_helo, client_port, client_protocol, sasl_username, prepended, received_at, stored_at,
        lease, extension, expires_at, raw_until, attachments_until, fingerprint_version)
    SELECT new_message, r.recipient, incoming.fingerprint, r.original_recipient, e.sender, e.queue_id,
           e.mail_host, e.ingress, e.client_address, e.client_hostname, e.client_helo, incoming.client_port,
           e.client_protocol, e.sasl_username, ingest.prepended, incoming.received_at, incoming.stored_at, r.lease,
           r.extension, incoming.stored_at + t.keep, incoming.stored_at + t.raw, incoming.stored_at + t.attachments,
           version
      FROM jsonb_to_record(envelope) AS e (
               sender text, queue_id text, mail_host text, ingress text, client_address inet, client_hostname text,
               client_helo text, client_protocol text, sasl_username text)
     CROSS JOIN jsonb_to_recordset(addressees) AS r (
               recipient text, original_recipient text, lease bigint, extension text, rejected boolean)
      LEFT JOIN LATERAL pipehandler.retention_of(
               r.recipient, e.sender, parsed -> 'from_list' -> 0 ->> 'address', parsed ->> 'list_id') AS t ON true
     WHERE NOT r.rejected
       AND NOT EXISTS (SELECT FROM pipehandler.delivery d
                        WHERE d.recipient COLLATE "C" = r.recipient AND d.fingerprint = former
                          AND d.fingerprint_version = 1 AND coalesce(d.lease, 0) = coalesce(r.lease, 0))
     ORDER BY r.recipient COLLATE "C"
        ON CONFLICT (recipient COLLATE "C", fingerprint, coalesce(lease, 0)) DO NOTHING;
    GET DIAGNOSTICS claimed = ROW_COUNT;

    -- A delivery that is already there is a promise that its message can be read. Where a restored or damaged table
    -- lacks something that retention has not removed, these bytes are stored in its place, and it is not a duplicate.
    -- Nothing else is: the caller chooses the fingerprint, and must not exchange a message whose bytes are there. What
    -- can be read from them, `reparse` restores.
    IF claimed < jsonb_array_length(addressees) THEN
        incomplete := ARRAY(
            SELECT d.id
              FROM jsonb_to_recordset(addressees) AS r (recipient text, lease bigint)
              JOIN pipehandler.delivery d
                ON d.recipient COLLATE "C" = r.recipient AND d.fingerprint = ANY (either)
               AND d.fingerprint_version IN (1, version) AND coalesce(d.lease, 0) = coalesce(r.lease, 0)
              LEFT JOIN pipehandler.message m ON m.id = d.message
             WHERE d.xid <> pg_current_xact_id()
               AND (m.id IS NULL
                    OR (coalesce(d.raw_until > now(), true)
                        AND NOT EXISTS (SELECT FROM pipehandler.raw_message b WHERE b.message = d.message))
                    OR (d.message = new_message AND coalesce(d.attachments_until > now(), true)
                        AND EXISTS (SELECT FROM pipehandler.attachment a
                                     WHERE a.message = d.message AND a.content IS NULL
                                       AND sha256(ingest.contents[a.ordinal]) = a.sha256))));
    END IF;

    -- Write the message only for what was claimed. Another recipient's delivery may have written it before.
    IF claimed > 0 OR cardinality(incomplete) > 0 THEN
        INSERT INTO pipehandler.message (
            id, received_at, message_id, in_reply_to, reference_ids, date, date_offset, subject, from_name,
            from_address, from_list, sender_list, reply_to_list, to_list, cc_list, bcc_list, list_id, text_body,
            html_body, header, authentication, size, sha256, state, error, defects, parser, text_from_html, preview,
            auto_submitted, precedence, list_unsubscribe, list_unsubscribe_post, report)
        SELECT new_message, incoming.received_at,
               CASE WHEN octet_length(d.message_id) <= 998 THEN d.message_id END, d.in_reply_to, d.reference_ids,
               d.date, d.date_offset, d.subject, d.from_list -> 0 ->> 'name',
               CASE WHEN octet_length(d.from_list -> 0 ->> 'address') <= 998 THEN d.from_list -> 0 ->> 'address' END,
               d.from_list, d.sender_list, d.reply_to_list, d.to_list, d.cc_list, d.bcc_list, d.list_id,
               ingest.text_body, ingest.html_body, d.header, d.authentication, octet_length(ingest.raw),
               digest, CASE WHEN d.error IS NULL THEN 'parsed' ELSE 'failed' END, d.error,
               CASE WHEN EXISTS (SELECT FROM jsonb_to_recordset(addressees) AS r (given text, recipient text)
                                  WHERE r.given <> r.recipient)
                    THEN '[{"code": "envelope-value", "where": "recipient", "detail": ""}]' || d.defects
                    ELSE d.defects END,
               d.parser, d.text_from_html, d.preview, d.auto_submitted, d.precedence,
               coalesce(d.list_unsubscribe, '{}'), coalesce(d.list_unsubscribe_post, false), d.report
          FROM jsonb_to_record(parsed) AS d (
                   message_id text, in_reply_to text[], reference_ids text[], date timestamptz, date_offset smallint,
                   subject text, from_list jsonb, sender_list jsonb, reply_to_list jsonb, to_list jsonb, cc_list jsonb,
                   bcc_list jsonb, list_id text, header jsonb, authentication jsonb, error text, defects jsonb,
                   parser text, text_from_html text, preview text, auto_submitted text, precedence text,
                   list_unsubscribe text[], list_unsubscribe_post boolean, report jsonb)
            ON CONFLICT (id) DO NOTHING;
        GET DIAGNOSTICS written = ROW_COUNT;

        -- Hold it, so that no removal takes it before this transaction ends. The caller tries again after 40001.
        PERFORM FROM pipehandler.message m WHERE m.id = new_message FOR KEY SHARE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'message % was removed while it was delivered again', new_message
                USING ERRCODE = 'serialization_failure';
        END IF;

        INSERT INTO pipehandler.raw_message (message, raw)
        VALUES (new_message, ingest.raw)
            ON CONFLICT (message) DO NOTHING;
        GET DIAGNOSTICS brought = ROW_COUNT;

        -- An earlier delivery could not read it, perhaps for want of memory or of time; this one has.
        IF written = 0 AND parsed ->> 'error' IS NULL
           AND EXISTS (SELECT FROM pipehandler.message m WHERE m.id = new_message AND m.state = 'failed') THEN
            PERFORM pipehandler.reparse(new_message, parsed, ingest.text_body, ingest.html_body, contents);
        END IF;

        INSERT INTO pipehandler.attachment (
            message, ordinal, part, file_name, content_type, content_id, disposition, size, sha256, content, parameters,
            content_location, content_description)
        SELECT new_message, a.ordinal, a.part, a.file_name, a.content_type, a.content_id, a.disposition, a.size,
               decode(a.sha256, 'hex'), ingest.contents[a.ordinal], coalesce(a.parameters, '{}'), a.content_location,
               a.content_description
          FROM jsonb_to_recordset(parsed -> 'attachments') AS a (
                   ordinal integer, part text, file_name text, content_type text, content_id text, disposition text,
                   size integer, sha256 text, parameters jsonb, content_location text, content_description text)
         WHERE written > 0 OR brought > 0
            ON CONFLICT (message, ordinal) DO NOTHING;

        -- Retention may have taken from it what this delivery wants.
        UPDATE pipehandler.attachment a
           SET content = ingest.contents[a.ordinal]
         WHERE written = 0 AND a.message = new_message AND a.content IS NULL
           AND sha256(ingest.contents[a.ordinal]) = a.sha256;

        -- The bytes of another transmission of the same message take the place of those that are missing.
        UPDATE pipehandler.delivery d
           SET message = new_message, prepended = ingest.prepended
         WHERE d.id = ANY (incomplete) AND d.message <> new_message;
    END IF;

    -- What a copy that is not stored has of its own: another alias, or another list, that led to the same recipient.
    -- At most 100 of each, because a sender may go on with new ones. Locked in the order of above.
    IF claimed < jsonb_array_length(addressees) THEN
        WITH copy AS (
            SELECT r.recipient, r.lease,
                   coalesce(array_agg(DISTINCT r.original_recipient) FILTER (WHERE r.original_recipient IS NOT NULL),
                            '{}') AS originals,
                   CASE WHEN octet_length(parsed ->> 'list_id') <= 998 THEN ARRAY[parsed ->> 'list_id'] ELSE '{}' END
                   AS lists
              FROM jsonb_to_recordset(addressees) AS r (recipient text, lease bigint, original_recipient text)
             GROUP BY r.recipient, r.lease
        ), added AS MATERIALIZED (
            SELECT d.id,
                   ARRAY(SELECT o FROM unnest(c.originals) AS o
                          WHERE o IS DISTINCT FROM d.original_recipient AND o <> ALL (d.later_original_recipients))
                   AS originals,
                   ARRAY(SELECT l FROM unnest(c.lists) AS l
                          WHERE l IS DISTINCT FROM m.list_id AND l <> ALL (d.later_list_ids)) AS lists
              FROM copy c
              JOIN pipehandler.delivery d
                ON d.recipient COLLATE "C" = c.recipient AND coalesce(d.lease, 0) = coalesce(c.lease, 0)
              LEFT JOIN pipehandler.message m ON m.id = d.message
             WHERE d.fingerprint = ANY (either) AND d.fingerprint_version IN (1, version)
               AND (cardinality(d.later_original_recipients) < 100
                    AND NOT array_remove(c.originals, d.original_recipient) <@ d.later_original_recipients
                    OR cardinality(d.later_list_ids) < 100
                    AND NOT array_remove(c.lists, m.list_id) <@ d.later_list_ids)
             ORDER BY d.recipient COLLATE "C"
               FOR NO KEY UPDATE OF d
        )
        UPDATE pipehandler.delivery d
           SET later_original_recipients = (d.later_original_recipients || a.originals)[:100],
               later_list_ids = (d.later_list_ids || a.lists)[:100]
          FROM added a
         WHERE a.id = d.id;
    END IF;

    -- A duplicate is a promise, too. This server may be the only one that has its row, if it crashed before a
    -- synchronous standby had it. A transaction that wrote nothing to the WAL would not wait for the standby; a row
    -- lock is written.
    PERFORM FROM pipehandler.delivery d
       JOIN jsonb_to_recordset(addressees) AS r (recipient text, lease bigint)
         ON d.recipient COLLATE "C" = r.recipient AND coalesce(d.lease, 0) = coalesce(r.lease, 0)
      WHERE d.fingerprint = ANY (either) AND d.fingerprint_version IN (1, version) AND d.xid <> pg_current_xact_id()
      ORDER BY d.recipient COLLATE "C"
        FOR KEY SHARE OF d;

    -- One row for each recipient, even where the caller names one twice.
    RETURN QUERY
        SELECT DISTINCT ON (r.given) r.given, d.id, d.message,
               d.xid <> pg_current_xact_id() AND d.id <> ALL (incomplete)
          FROM jsonb_to_recordset(addressees) AS r (given text, recipient text, lease bigint, rejected boolean)
          LEFT JOIN pipehandler.delivery d
                 ON d.recipient COLLATE "C" = r.recipient AND d.fingerprint = ANY (either)
                AND d.fingerprint_version IN (1, version)
                AND coalesce(d.lease, 0) = coalesce(r.lease, 0)
         WHERE d.id IS NOT NULL OR r.rejected
         ORDER BY r.given, d.id;
END
$$;
COMMENT ON FUNCTION pipehandler.ingest(jsonb, jsonb, text, text, bytea, bytea, bytea[]) IS
'Stores one message for its recipients, all or nothing. A delivery that is already there is a duplicate and stays as
it is, but for later_original_recipients and later_list_ids; but where its message or its bytes are missing although
retention did not remove them, or (of the same bytes) contents of its attachments, they are stored again, and it is not
called a duplicate. Retention counts from stored_at, the clock of the database; a received_at outside of the years
1970 to 9999 is replaced by it, and a client_port outside of 0 to 65535 by null. A recipient of more than 998 octets
is stored as pipehandler.stored_recipient, and whole as original_recipient, with the defect envelope-value. With
"ingress": "import", one that was stored before its address had a lease is a duplicate, too. Raises
invalid_parameter_value for JSON of another shape.
envelope: {"fingerprint": hex of version 1, "fingerprint_2": hex, "recipients": [{"recipient", "original_recipient"}],
"policy", "expired", "delimiter", and the columns of delivery}. A fingerprint of version 1 matches only deliveries that
have no other. policy: known to reject recipients that have no lease, else any. expired:
reject, or store for a lease that has expired. delimiter: as for pipehandler.lease_of. parsed: the columns of message
and {"attachments": [the columns of attachment]}; contents[n] belongs to ordinal n and may be null. Returns a row for
each recipient: its delivery, the message of this delivery, and whether it was already there; nulls for one that was
rejected. A recipient without a row was removed at that very moment: call again.';
