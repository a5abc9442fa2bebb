-- The views list their columns: a new column of a table appears in a view only when this file says so.

CREATE OR REPLACE VIEW pipehandler.current_delivery AS
SELECT d.id, d.message, d.recipient, d.fingerprint, d.original_recipient, d.sender, d.queue_id, d.mail_host, d.ingress,
       d.client_address, d.client_hostname, d.client_helo, d.client_port, d.client_protocol, d.sasl_username,
       d.prepended, d.received_at, d.stored_at, d.lease, d.expires_at, d.xid, d.extension, d.raw_until,
       d.attachments_until
  FROM pipehandler.delivery d
  LEFT JOIN pipehandler.address a ON a.lease = d.lease
 WHERE (d.expires_at IS NULL OR d.expires_at > now()) AND (a.expires_at IS NULL OR a.expires_at > now());
COMMENT ON VIEW pipehandler.current_delivery IS
'The deliveries that have not expired, neither by themselves nor with their lease.';

CREATE OR REPLACE VIEW pipehandler.delivery_under_current_rules AS
SELECT d.id, d.message, d.lease, d.received_at + r.keep AS expires_at,
       CASE WHEN d.raw_until = 'epoch' THEN d.raw_until ELSE d.received_at + r.raw END AS raw_until,
       CASE WHEN d.attachments_until = 'epoch' THEN d.attachments_until ELSE d.received_at + r.attachments END
       AS attachments_until
  FROM pipehandler.delivery d
  JOIN pipehandler.message m ON m.id = d.message
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
SELECT d.id, d.recipient, d.received_at, d.sender, m.from_name, m.from_address, m.subject, m.date, m.list_id, m.size,
       (SELECT count(*) FROM pipehandler.attachment a WHERE a.message = m.id)::integer AS attachments,
       m.state, m.text_body, m.html_body, m.id AS message, m.message_id, d.queue_id, d.expires_at, d.lease, d.extension
  FROM pipehandler.current_delivery d
  JOIN pipehandler.message m ON m.id = d.message;
COMMENT ON VIEW pipehandler.inbox IS
'Start here: each delivery that has not expired, with its message.';
