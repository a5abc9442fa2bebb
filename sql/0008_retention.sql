-- How long mail is kept. A delivery is gone from the views at the moment when it or its lease expires; pipehandler.expire removes it later.

ALTER TABLE pipehandler.delivery
    ADD COLUMN raw_until         timestamptz NOT NULL DEFAULT 'infinity',
    ADD COLUMN attachments_until timestamptz NOT NULL DEFAULT 'infinity';
CREATE INDEX delivery_raw_until ON pipehandler.delivery (raw_until) WHERE isfinite(raw_until);
CREATE INDEX delivery_attachments_until ON pipehandler.delivery (attachments_until) WHERE isfinite(attachments_until);
COMMENT ON COLUMN pipehandler.delivery.raw_until IS 'Until then this delivery wants the bytes in raw_message; infinity: for as long as it is there; -infinity: not any more. They go when no delivery of the message wants them.';
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
         WHERE v.attrelid IN ('pipehandler.inbox'::regclass, 'pipehandler.current_delivery'::regclass)
           AND col_description(v.attrelid, v.attnum) IS NULL
         ORDER BY v.attrelid, v.attname, t.attrelid <> 'pipehandler.delivery'::regclass
    LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', relation, name, purpose);
    END LOOP;
END
$$;

REVOKE ALL ON FUNCTION pipehandler.retention_of FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pipehandler.retention_of TO pipehandler_reader, pipehandler_upkeep;
GRANT SELECT ON pipehandler.retention, pipehandler.current_delivery TO pipehandler_reader, pipehandler_upkeep;
