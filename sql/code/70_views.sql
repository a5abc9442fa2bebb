-- The views list their columns: a new column of a table appears in a view only when this file says so, and at its end.

-- Without a SET clause, so that it becomes a part of the query that calls it.
CREATE OR REPLACE FUNCTION pipehandler.is_automatic(
    sender         text,
    auto_submitted text,
    precedence     text,
    list_id        text,
    report         jsonb
) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT sender = '' OR coalesce(auto_submitted, 'no') <> 'no' OR list_id IS NOT NULL OR report IS NOT NULL
           OR coalesce(precedence, '') IN ('bulk', 'junk', 'list', 'auto_reply');
END;
COMMENT ON FUNCTION pipehandler.is_automatic(text, text, text, text, jsonb) IS
'Whether a program sent the message, so that no program may answer it (RFC 3834 2): its envelope sender is empty, or
Auto-Submitted, Precedence or List-Id say so, or it is a report. The arguments are the columns of delivery and
message.';

CREATE OR REPLACE VIEW pipehandler.current_delivery AS
SELECT d.id, d.message, d.recipient COLLATE "C" AS recipient, d.fingerprint, d.original_recipient, d.sender, d.queue_id,
       d.mail_host, d.ingress,
       d.client_address, d.client_hostname, d.client_helo, d.client_port, d.client_protocol, d.sasl_username,
       d.prepended, d.received_at, d.stored_at, d.lease, d.expires_at, d.xid, d.extension, d.raw_until,
       d.attachments_until, d.later_original_recipients, d.later_list_ids, d.day
  FROM pipehandler.delivery d
  LEFT JOIN pipehandler.address a ON a.lease = d.lease
 WHERE (d.expires_at IS NULL OR d.expires_at > now()) AND (a.expires_at IS NULL OR a.expires_at > now());
COMMENT ON VIEW pipehandler.current_delivery IS
'The deliveries that have not expired, neither by themselves nor with their lease.';

CREATE OR REPLACE VIEW pipehandler.delivery_under_current_rules AS
SELECT d.id, d.message, d.lease, d.stored_at + r.keep AS expires_at,
       CASE WHEN d.raw_until = 'epoch' THEN d.raw_until ELSE d.stored_at + r.raw END AS raw_until,
       CASE WHEN d.attachments_until = 'epoch' THEN d.attachments_until ELSE d.stored_at + r.attachments END
       AS attachments_until, m.day
  FROM pipehandler.delivery d
  JOIN pipehandler.message m ON m.day = d.day AND m.id = d.message
  LEFT JOIN LATERAL pipehandler.retention_of(d.recipient, d.sender, m.from_list -> 0 ->> 'address', m.list_id) AS r
    ON true;
COMMENT ON VIEW pipehandler.delivery_under_current_rules IS
'Each delivery with the times that the current rules of retention mean for it. The table delivery has the same times,
unless the rules have just changed.';

CREATE OR REPLACE VIEW pipehandler.renewed_delivery AS
SELECT n.id, n.message, n.lease, n.expires_at, n.raw_until, n.attachments_until
  FROM pipehandler.delivery_under_current_rules n;
COMMENT ON VIEW pipehandler.renewed_delivery IS
'Deprecated, for one release: the former name of delivery_under_current_rules.';

CREATE OR REPLACE VIEW pipehandler.inbox AS
SELECT d.id, d.recipient, d.received_at, d.sender, m.from_name, m.from_address COLLATE "C" AS from_address, m.subject,
       m.date, m.list_id, m.size,
       (SELECT count(*) FROM pipehandler.attachment a WHERE a.day = m.day AND a.message = m.id)::integer AS attachments,
       m.state, m.text_body, m.html_body, m.id AS message, m.message_id COLLATE "C" AS message_id, d.queue_id,
       d.expires_at, d.lease, d.extension,
       m.text_from_html, m.preview, m.auto_submitted, m.precedence,
       pipehandler.is_automatic(d.sender, m.auto_submitted, m.precedence, m.list_id, m.report) AS automatic,
       m.list_unsubscribe, m.list_unsubscribe_post, m.report,
       array_remove(d.original_recipient || d.later_original_recipients, NULL) AS original_recipients,
       array_remove(m.list_id || d.later_list_ids, NULL) AS list_ids, m.day
  FROM pipehandler.current_delivery d
  JOIN pipehandler.message m ON m.day = d.day AND m.id = d.message;
COMMENT ON VIEW pipehandler.inbox IS
'Start here: each delivery that has not expired, with its message.';
