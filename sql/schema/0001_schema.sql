-- The tables. A message is stored once, however many recipients it has; a delivery is one message for one recipient.

CREATE SCHEMA IF NOT EXISTS pipehandler;
COMMENT ON SCHEMA pipehandler IS 'Incoming mail, stored by pipehandler from Postfix. Start with the view inbox, then the tables delivery and message.';

CREATE TABLE pipehandler.message (
    id              uuid        PRIMARY KEY,
    received_at     timestamptz NOT NULL,
    message_id      text,
    in_reply_to     text[]      NOT NULL DEFAULT '{}',
    reference_ids   text[]      NOT NULL DEFAULT '{}',
    date            timestamptz,
    date_offset     smallint,
    subject         text,
    from_name       text,
    from_address    text,
    from_list       jsonb       NOT NULL DEFAULT '[]',
    sender_list     jsonb       NOT NULL DEFAULT '[]',
    reply_to_list   jsonb       NOT NULL DEFAULT '[]',
    to_list         jsonb       NOT NULL DEFAULT '[]',
    cc_list         jsonb       NOT NULL DEFAULT '[]',
    bcc_list        jsonb       NOT NULL DEFAULT '[]',
    list_id         text,
    text_body       text,
    html_body       text,
    header          jsonb       NOT NULL DEFAULT '[]',
    authentication  jsonb       NOT NULL DEFAULT '{}',
    size            integer     NOT NULL CHECK (size >= 0),
    sha256          bytea       NOT NULL CHECK (octet_length(sha256) = 32),
    state           text        NOT NULL CHECK (state IN ('parsed', 'failed')),
    error           text,
    defects         jsonb       NOT NULL DEFAULT '[]',
    parser          text        NOT NULL,
    CONSTRAINT message_error CHECK ((state = 'failed') = (error IS NOT NULL))
);
-- What is indexed is short (ingest sees to it): an index row has at most 2,704 octets, and the sender chooses these values.
CREATE INDEX message_message_id ON pipehandler.message (message_id) WHERE message_id IS NOT NULL;
CREATE INDEX message_from_address ON pipehandler.message (lower(from_address), received_at) WHERE from_address IS NOT NULL;
CREATE INDEX message_failed ON pipehandler.message (received_at) WHERE state = 'failed';

COMMENT ON TABLE pipehandler.message IS 'One distinct sequence of bytes that arrived, and what they say. The bytes themselves are in raw_message.';
COMMENT ON COLUMN pipehandler.message.id IS 'UUID version 8 made from sha256: the same bytes have the same id on every mail host.';
COMMENT ON COLUMN pipehandler.message.received_at IS 'When the message was first received here.';
COMMENT ON COLUMN pipehandler.message.message_id IS 'Message-ID (RFC 5322 3.6.4) without angle brackets; chosen by the sender, so neither unique nor to be trusted. Null where it is longer than 998 octets; then see header.';
COMMENT ON COLUMN pipehandler.message.in_reply_to IS 'In-Reply-To: the message ids that this one answers, without angle brackets.';
COMMENT ON COLUMN pipehandler.message.reference_ids IS 'References: the message ids of the thread, oldest first, without angle brackets.';
COMMENT ON COLUMN pipehandler.message.date IS 'Date (RFC 5322 3.6.1), as the sender claims it; null where it is missing or nonsense.';
COMMENT ON COLUMN pipehandler.message.date_offset IS 'The zone of Date in minutes east of UTC; null where the sender did not name one.';
COMMENT ON COLUMN pipehandler.message.subject IS 'Subject, decoded (RFC 2047).';
COMMENT ON COLUMN pipehandler.message.from_name IS 'Display name of the first mailbox of From, decoded; empty where it has none.';
COMMENT ON COLUMN pipehandler.message.from_address IS 'Address of the first mailbox of From, as the sender wrote it; it may be forged. Null where it is longer than 998 octets; then see from_list.';
COMMENT ON COLUMN pipehandler.message.from_list IS 'All mailboxes of From: an array of {"name", "address", "group"}, decoded, in order.';
COMMENT ON COLUMN pipehandler.message.sender_list IS 'The mailbox of the field Sender, in the shape of from_list.';
COMMENT ON COLUMN pipehandler.message.reply_to_list IS 'Reply-To, in the shape of from_list.';
COMMENT ON COLUMN pipehandler.message.to_list IS 'To, in the shape of from_list. Who really received the message stands in delivery.';
COMMENT ON COLUMN pipehandler.message.cc_list IS 'Cc, in the shape of from_list.';
COMMENT ON COLUMN pipehandler.message.bcc_list IS 'Bcc, in the shape of from_list; rarely there.';
COMMENT ON COLUMN pipehandler.message.list_id IS 'List-Id (RFC 2919) without angle brackets and description.';
COMMENT ON COLUMN pipehandler.message.text_body IS 'The text/plain parts that are no attachments, decoded and joined. NUL and invalid characters are U+FFFD.';
COMMENT ON COLUMN pipehandler.message.html_body IS 'The text/html parts that are no attachments, decoded and joined; as sent, so not safe to show without sanitising.';
COMMENT ON COLUMN pipehandler.message.header IS 'All header fields in order, with repeats: an array of [name, body]; unfolded, encoded-words not decoded.';
COMMENT ON COLUMN pipehandler.message.authentication IS 'Verdicts of trusted hosts only: {"spf", "dkim", "dmarc", "arc", "spam", "spam_score"}, each where it is known (RFC 8601).';
COMMENT ON COLUMN pipehandler.message.size IS 'Octets of raw_message.raw.';
COMMENT ON COLUMN pipehandler.message.sha256 IS 'SHA-256 of raw_message.raw.';
COMMENT ON COLUMN pipehandler.message.state IS 'parsed; or failed: only the bytes are stored (quarantine), error says why.';
COMMENT ON COLUMN pipehandler.message.error IS 'Why the message was not parsed; null where it was.';
COMMENT ON COLUMN pipehandler.message.defects IS 'What was guessed, replaced or left out while decoding: an array of {"code", "where", "detail"}.';
COMMENT ON COLUMN pipehandler.message.parser IS 'The version of the parser that made this row.';

CREATE TABLE pipehandler.raw_message (
    message uuid  PRIMARY KEY REFERENCES pipehandler.message ON DELETE CASCADE,
    raw     bytea NOT NULL
);
COMMENT ON TABLE pipehandler.raw_message IS 'The bytes of a message, exactly as Postfix passed them on. A table of its own, so that they can be dropped earlier than the rest.';
COMMENT ON COLUMN pipehandler.raw_message.message IS 'The message whose bytes these are.';
COMMENT ON COLUMN pipehandler.raw_message.raw IS 'The message as it was received, without the fields that Postfix prepends for a single delivery: those are in delivery.prepended.';

CREATE TABLE pipehandler.attachment (
    message      uuid     NOT NULL REFERENCES pipehandler.message ON DELETE CASCADE,
    ordinal      integer  NOT NULL CHECK (ordinal >= 1),
    part         text     NOT NULL,
    file_name    text,
    content_type text     NOT NULL,
    content_id   text,
    disposition  text,
    size         integer  NOT NULL CHECK (size >= 0),
    sha256       bytea    NOT NULL CHECK (octet_length(sha256) = 32),
    content      bytea,
    PRIMARY KEY (message, ordinal)
);
COMMENT ON TABLE pipehandler.attachment IS 'A part of a message that a person would save: a file, an inline image, a calendar, an attached message.';
COMMENT ON COLUMN pipehandler.attachment.message IS 'The message that holds it.';
COMMENT ON COLUMN pipehandler.attachment.ordinal IS 'Position among the attachments of its message, from 1.';
COMMENT ON COLUMN pipehandler.attachment.part IS 'Part number as IMAP counts (RFC 3501 6.4.5), such as 1.2.';
COMMENT ON COLUMN pipehandler.attachment.file_name IS 'File name, decoded, as the sender chose it: never use it as a path.';
COMMENT ON COLUMN pipehandler.attachment.content_type IS 'Media type (RFC 2045) in lower case, without parameters.';
COMMENT ON COLUMN pipehandler.attachment.content_id IS 'Content-ID without angle brackets: what cid: links in html_body name.';
COMMENT ON COLUMN pipehandler.attachment.disposition IS 'Content-Disposition (RFC 2183): attachment, inline or another word; null where the sender gave none.';
COMMENT ON COLUMN pipehandler.attachment.size IS 'Octets of the content, its transfer encoding undone.';
COMMENT ON COLUMN pipehandler.attachment.sha256 IS 'SHA-256 of the content.';
COMMENT ON COLUMN pipehandler.attachment.content IS 'The content itself; null where the configuration keeps it in raw_message only.';

CREATE TABLE pipehandler.address (
    lease      bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    address    text        NOT NULL,
    label      text,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    CONSTRAINT address_period CHECK (expires_at > created_at)
);
CREATE INDEX address_address ON pipehandler.address (address);
COMMENT ON TABLE pipehandler.address IS 'One lease: one period of one recipient address. An address given out again is another lease.';
COMMENT ON COLUMN pipehandler.address.lease IS 'The number of the lease; never given out again.';
COMMENT ON COLUMN pipehandler.address.address IS 'The recipient address, its domain in lower case.';
COMMENT ON COLUMN pipehandler.address.label IS 'Whatever the application calls it.';
COMMENT ON COLUMN pipehandler.address.created_at IS 'When the lease began.';
COMMENT ON COLUMN pipehandler.address.expires_at IS 'When the lease ends; null: never.';

CREATE TABLE pipehandler.delivery (
    id                 bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- Deferred, because ingest claims the delivery first and writes the message for what it claimed.
    message            uuid        NOT NULL REFERENCES pipehandler.message DEFERRABLE INITIALLY DEFERRED,
    recipient          text        NOT NULL,
    fingerprint        bytea       NOT NULL CHECK (octet_length(fingerprint) = 32),
    original_recipient text,
    sender             text        NOT NULL,
    queue_id           text,
    mail_host          text        NOT NULL,
    ingress            text        NOT NULL,
    client_address     inet,
    client_hostname    text,
    client_helo        text,
    client_port        integer,
    client_protocol    text,
    sasl_username      text,
    prepended          bytea,
    received_at        timestamptz NOT NULL,
    stored_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    lease              bigint      REFERENCES pipehandler.address,
    expires_at         timestamptz,
    xid                xid8        NOT NULL DEFAULT pg_current_xact_id(),
    CONSTRAINT delivery_once UNIQUE (recipient, fingerprint)
);
CREATE INDEX delivery_message ON pipehandler.delivery (message);
CREATE INDEX delivery_recipient ON pipehandler.delivery (recipient, id);
CREATE INDEX delivery_received_at ON pipehandler.delivery USING brin (received_at);
CREATE INDEX delivery_cursor ON pipehandler.delivery (xid, id);
CREATE INDEX delivery_expires_at ON pipehandler.delivery (expires_at) WHERE expires_at IS NOT NULL;
CREATE INDEX delivery_lease ON pipehandler.delivery (lease) WHERE lease IS NOT NULL;

COMMENT ON TABLE pipehandler.delivery IS 'One message for one recipient, as Postfix handed it over. The same message delivered again is no second row.';
COMMENT ON COLUMN pipehandler.delivery.id IS 'The number of the delivery; greater is newer, nearly (see xid).';
COMMENT ON COLUMN pipehandler.delivery.message IS 'The message that was delivered.';
COMMENT ON COLUMN pipehandler.delivery.recipient IS 'Envelope recipient (RCPT TO) after aliasing, unquoted, its domain in lower case.';
COMMENT ON COLUMN pipehandler.delivery.fingerprint IS 'What makes two deliveries to one recipient the same: SHA-256 over Message-ID, Date, From, To, Cc, Subject and body, or over all bytes where there is not exactly one Message-ID.';
COMMENT ON COLUMN pipehandler.delivery.original_recipient IS 'Envelope recipient before aliasing; null where Postfix did not say.';
COMMENT ON COLUMN pipehandler.delivery.sender IS 'Envelope sender (MAIL FROM), unquoted; empty for the null sender of bounces.';
COMMENT ON COLUMN pipehandler.delivery.queue_id IS 'Queue id in the log of mail_host.';
COMMENT ON COLUMN pipehandler.delivery.mail_host IS 'The mail host that stored this delivery.';
COMMENT ON COLUMN pipehandler.delivery.ingress IS 'The way in: pipe.';
COMMENT ON COLUMN pipehandler.delivery.client_address IS 'IP address of the SMTP client; null for a local submission.';
COMMENT ON COLUMN pipehandler.delivery.client_hostname IS 'Host name of the SMTP client, or unknown.';
COMMENT ON COLUMN pipehandler.delivery.client_helo IS 'What the SMTP client said in HELO or EHLO.';
COMMENT ON COLUMN pipehandler.delivery.client_port IS 'TCP port of the SMTP client.';
COMMENT ON COLUMN pipehandler.delivery.client_protocol IS 'SMTP or ESMTP; empty for a local submission.';
COMMENT ON COLUMN pipehandler.delivery.sasl_username IS 'Login name, where the SMTP client authenticated itself.';
COMMENT ON COLUMN pipehandler.delivery.prepended IS 'Fields that Postfix prepended for this delivery alone; prepended followed by raw_message.raw is exactly what was read.';
COMMENT ON COLUMN pipehandler.delivery.received_at IS 'When the handler had read the message.';
COMMENT ON COLUMN pipehandler.delivery.stored_at IS 'When the row was written, a moment before the commit.';
COMMENT ON COLUMN pipehandler.delivery.lease IS 'The lease of the recipient address that this delivery belongs to.';
COMMENT ON COLUMN pipehandler.delivery.expires_at IS 'After this time the delivery is gone from the view inbox; null: never.';
COMMENT ON COLUMN pipehandler.delivery.xid IS 'The transaction that wrote the row: (xid, id) below pg_snapshot_xmin(pg_current_snapshot()) is a cursor that misses nothing, which id alone is not.';

CREATE VIEW pipehandler.inbox AS
SELECT d.id, d.recipient, d.received_at, d.sender, m.from_name, m.from_address, m.subject, m.date, m.list_id, m.size,
       (SELECT count(*) FROM pipehandler.attachment a WHERE a.message = m.id)::integer AS attachments,
       m.state, m.text_body, m.html_body, m.id AS message, m.message_id, d.queue_id, d.expires_at
  FROM pipehandler.delivery d
  JOIN pipehandler.message m ON m.id = d.message
 WHERE d.expires_at IS NULL OR d.expires_at > now();
COMMENT ON VIEW pipehandler.inbox IS 'What a reader wants: each delivery that has not expired, with its message. The best place to start.';
COMMENT ON COLUMN pipehandler.inbox.attachments IS 'How many attachments the message has.';
COMMENT ON COLUMN pipehandler.inbox.message IS 'message.id, for joins with attachment and raw_message.';
-- The other columns are what they are in the tables, those of delivery first.
DO $$
DECLARE
    name    text;
    purpose text;
BEGIN
    FOR name, purpose IN
        SELECT DISTINCT ON (v.attname) v.attname, col_description(t.attrelid, t.attnum)
          FROM pg_attribute v
          JOIN pg_attribute t ON t.attname = v.attname AND t.attrelid IN ('pipehandler.delivery'::regclass, 'pipehandler.message'::regclass)
         WHERE v.attrelid = 'pipehandler.inbox'::regclass AND col_description(v.attrelid, v.attnum) IS NULL
         ORDER BY v.attname, t.attrelid <> 'pipehandler.delivery'::regclass
    LOOP
        EXECUTE format('COMMENT ON COLUMN pipehandler.inbox.%I IS %L', name, purpose);
    END LOOP;
END
$$;

-- lz4 takes a fraction of the time of pglz; a server built without it keeps its default.
DO $$
BEGIN
    ALTER TABLE pipehandler.raw_message ALTER COLUMN raw SET COMPRESSION lz4;
    ALTER TABLE pipehandler.attachment ALTER COLUMN content SET COMPRESSION lz4;
    ALTER TABLE pipehandler.message ALTER COLUMN text_body SET COMPRESSION lz4;
    ALTER TABLE pipehandler.message ALTER COLUMN html_body SET COMPRESSION lz4;
    ALTER TABLE pipehandler.message ALTER COLUMN header SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
    RAISE NOTICE 'this server has no lz4: messages are compressed with pglz';
END
$$;
