-- The one statement that a delivery sends. It runs as its owner, so that a role that may execute it needs no right on
-- any table; and in the transaction of its caller, whose end is the commit point.

CREATE FUNCTION pipehandler.ingest(
    envelope  jsonb,
    document  jsonb,
    text_body text,
    html_body text,
    prepended bytea,
    raw       bytea,
    contents  bytea[]
) RETURNS TABLE (recipient text, delivery bigint, message uuid, duplicate boolean)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    digest      CONSTANT bytea := sha256(ingest.raw);
    -- UUID version 8 (RFC 9562 5.8), as in fingerprint.py. Never what the caller says: a handler that was taken over could
    -- hand out everybody's messages by their ids.
    new_message CONSTANT uuid := encode(set_byte(set_byte(substring(digest FOR 16),
                                        6, get_byte(digest, 6) & 15 | 128),
                                        8, get_byte(digest, 8) & 63 | 128), 'hex');
    print       CONSTANT bytea := decode(envelope ->> 'fingerprint', 'hex');
    claimed     integer;
    written     integer;
BEGIN
    -- Claim the deliveries first; in one order everywhere, so that two handlers never wait for each other.
    INSERT INTO pipehandler.delivery (
        message, recipient, fingerprint, original_recipient, sender, queue_id, mail_host, ingress, client_address,
        client_hostname, client_helo, client_port, client_protocol, sasl_username, prepended, received_at)
    SELECT new_message, r.recipient, print, r.original_recipient, e.sender, e.queue_id, e.mail_host, e.ingress,
           e.client_address, e.client_hostname, e.client_helo, e.client_port, e.client_protocol, e.sasl_username,
           ingest.prepended, e.received_at
      FROM jsonb_to_record(envelope) AS e (
               sender text, queue_id text, mail_host text, ingress text, client_address inet, client_hostname text,
               client_helo text, client_port integer, client_protocol text, sasl_username text,
               received_at timestamptz),
           jsonb_to_recordset(envelope -> 'recipients') AS r (recipient text, original_recipient text)
     ORDER BY r.recipient COLLATE "C"
        ON CONFLICT ON CONSTRAINT delivery_once DO NOTHING;
    GET DIAGNOSTICS claimed = ROW_COUNT;

    -- Write the message only for what was claimed. Another recipient's delivery may have written it before.
    IF claimed > 0 THEN
        INSERT INTO pipehandler.message (
            id, received_at, message_id, in_reply_to, reference_ids, date, date_offset, subject, from_name,
            from_address, from_list, sender_list, reply_to_list, to_list, cc_list, bcc_list, list_id, text_body,
            html_body, header, authentication, size, sha256, state, error, defects, parser)
        SELECT new_message, (envelope ->> 'received_at')::timestamptz,
               CASE WHEN octet_length(d.message_id) <= 998 THEN d.message_id END, d.in_reply_to, d.reference_ids,
               d.date, d.date_offset, d.subject, d.from_list -> 0 ->> 'name',
               CASE WHEN octet_length(d.from_list -> 0 ->> 'address') <= 998 THEN d.from_list -> 0 ->> 'address' END,
               d.from_list, d.sender_list, d.reply_to_list, d.to_list, d.cc_list, d.bcc_list, d.list_id,
               ingest.text_body, ingest.html_body, d.header, d.authentication, octet_length(ingest.raw),
               digest, CASE WHEN d.error IS NULL THEN 'parsed' ELSE 'failed' END, d.error, d.defects,
               d.parser
          FROM jsonb_to_record(document) AS d (
                   message_id text, in_reply_to text[], reference_ids text[], date timestamptz, date_offset smallint,
                   subject text, from_list jsonb, sender_list jsonb, reply_to_list jsonb, to_list jsonb, cc_list jsonb,
                   bcc_list jsonb, list_id text, header jsonb, authentication jsonb, error text, defects jsonb,
                   parser text)
            ON CONFLICT (id) DO NOTHING;
        GET DIAGNOSTICS written = ROW_COUNT;

        -- Hold it: nobody may remove it before this transaction ends. The caller tries again after 40001.
        PERFORM FROM pipehandler.message m WHERE m.id = new_message FOR KEY SHARE;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'message % was removed while it was delivered again', new_message
                USING ERRCODE = 'serialization_failure';
        END IF;

        INSERT INTO pipehandler.raw_message (message, raw)
        VALUES (new_message, ingest.raw)
            ON CONFLICT (message) DO NOTHING;

        INSERT INTO pipehandler.attachment (
            message, ordinal, part, file_name, content_type, content_id, disposition, size, sha256, content)
        SELECT new_message, a.ordinal, a.part, a.file_name, a.content_type, a.content_id, a.disposition, a.size,
               decode(a.sha256, 'hex'), ingest.contents[a.ordinal]
          FROM jsonb_to_recordset(document -> 'attachments') AS a (
                   ordinal integer, part text, file_name text, content_type text, content_id text, disposition text,
                   size integer, sha256 text)
         WHERE written > 0;
    END IF;

    -- A duplicate is a promise, too, and this server may be the only one that has its row: it crashed before a synchronous
    -- standby had it. A transaction that wrote nothing to the WAL would not wait for the standby; a row lock is written.
    PERFORM FROM pipehandler.delivery d
      WHERE d.fingerprint = print AND d.xid <> pg_current_xact_id()
        AND d.recipient IN (SELECT r.recipient FROM jsonb_to_recordset(envelope -> 'recipients') AS r (recipient text))
      ORDER BY d.recipient COLLATE "C"
        FOR KEY SHARE;

    -- One row for each recipient, even where the caller names one twice.
    RETURN QUERY
        SELECT DISTINCT d.recipient, d.id, d.message, d.xid <> pg_current_xact_id()
          FROM jsonb_to_recordset(envelope -> 'recipients') AS r (recipient text)
          JOIN pipehandler.delivery d ON d.recipient = r.recipient AND d.fingerprint = print;
END
$$;
COMMENT ON FUNCTION pipehandler.ingest IS
'Stores one message for its recipients, all or nothing; what is there already is a duplicate and is left as it is.
envelope: {"fingerprint": hex, "recipients": [{"recipient", "original_recipient"}], and the columns of
delivery}. document: the columns of message and {"attachments": [the columns of attachment]}; contents[n] belongs to
ordinal n and may be null. Returns a row for each recipient: its delivery, the message that this delivery has, and
whether it was there before. A recipient without a row was removed at that very moment: call again.';
