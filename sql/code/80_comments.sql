-- What each table, column, view and type means; \d+ in psql shows it. (Each function has its comment where it is
-- defined.)

COMMENT ON SCHEMA pipehandler IS
'Incoming mail, stored by pipehandler from Postfix. Start with the view inbox, then the tables delivery and message.';

COMMENT ON TABLE pipehandler.message IS
'One distinct sequence of bytes that arrived, and what was read from them. The bytes themselves are in raw_message.';
COMMENT ON COLUMN pipehandler.message.id IS
'UUID version 8 made from sha256: the same bytes have the same id on every mail host. The same message that came again
on another day, for another recipient, has a row for each day: day and id together are unique.';
COMMENT ON COLUMN pipehandler.message.day IS
'The day (UTC, the clock of the database) on which the message was stored; there is a partition for each. 1970-01-01:
stored before the tables were partitioned, or while the partition of its day was missing. Name it in conditions and in
joins, or a statement looks into all partitions.';
COMMENT ON COLUMN pipehandler.message.received_at IS
'When the message was first received here.';
COMMENT ON COLUMN pipehandler.message.message_id IS
'Message-ID (RFC 5322 3.6.4) without angle brackets. Chosen by the sender, so neither unique nor trustworthy. Null
where it is longer than 998 octets; then see header.';
COMMENT ON COLUMN pipehandler.message.in_reply_to IS
'In-Reply-To: the message ids that this message answers, without angle brackets.';
COMMENT ON COLUMN pipehandler.message.reference_ids IS
'References: the message ids of the thread, oldest first, without angle brackets.';
COMMENT ON COLUMN pipehandler.message.date IS
'Date (RFC 5322 3.6.1), as the sender claims it; null where it is missing or invalid.';
COMMENT ON COLUMN pipehandler.message.date_offset IS
'The zone of Date in minutes east of UTC; null where the sender gave none.';
COMMENT ON COLUMN pipehandler.message.subject IS
'Subject, decoded (RFC 2047).';
COMMENT ON COLUMN pipehandler.message.from_name IS
'Display name of the first mailbox of From, decoded; empty where it has none.';
COMMENT ON COLUMN pipehandler.message.from_address IS
'Address of the first mailbox of From, as the sender wrote it; it may be forged. Null where it is longer than 998
octets; then see from_list.';
COMMENT ON COLUMN pipehandler.message.from_list IS
'All mailboxes of From: an array of {"name", "address", "group"}, decoded, in order.';
COMMENT ON COLUMN pipehandler.message.sender_list IS
'The mailbox of the field Sender, in the form of from_list.';
COMMENT ON COLUMN pipehandler.message.reply_to_list IS
'Reply-To, in the form of from_list.';
COMMENT ON COLUMN pipehandler.message.to_list IS
'To, in the form of from_list. The actual recipients are in delivery.';
COMMENT ON COLUMN pipehandler.message.cc_list IS
'Cc, in the form of from_list.';
COMMENT ON COLUMN pipehandler.message.bcc_list IS
'Bcc, in the form of from_list; rarely present.';
COMMENT ON COLUMN pipehandler.message.list_id IS
'List-Id (RFC 2919) without angle brackets and description.';
COMMENT ON COLUMN pipehandler.message.text_body IS
'The text/plain parts that are not attachments, decoded and joined. NUL and invalid characters are U+FFFD.';
COMMENT ON COLUMN pipehandler.message.html_body IS
'The text/html parts that are not attachments, decoded and joined; as sent, so not safe to show without sanitising.';
COMMENT ON COLUMN pipehandler.message.text_from_html IS
'What a reader sees of html_body, as text: a line for each block, the target of a link behind it in angle brackets. Only
where text_body is null, and of the beginning only where html_body is long. To read the text of any message:
coalesce(text_body, text_from_html).';
COMMENT ON COLUMN pipehandler.message.preview IS
'The first words of the message, on one line of at most 200 characters; empty where it has none, null where it was
stored by an earlier release and not parsed again.';
COMMENT ON COLUMN pipehandler.message.auto_submitted IS
'The keyword of Auto-Submitted (RFC 3834 5) in lower case: no, auto-generated, auto-replied, auto-notified (RFC 5436
2.7.1), or another.';
COMMENT ON COLUMN pipehandler.message.precedence IS
'The word of Precedence (RFC 3834 3.1.8) in lower case: bulk, list, junk, or another.';
COMMENT ON COLUMN pipehandler.message.list_unsubscribe IS
'The URIs of List-Unsubscribe (RFC 2369 3.2), in order, the preferred one first; mailto:, https: and others. Chosen by
the sender.';
COMMENT ON COLUMN pipehandler.message.list_unsubscribe_post IS
'Whether a POST of List-Unsubscribe=One-Click to the https: URI unsubscribes (RFC 8058). The sender claims it:
authentication has to show a DKIM signature that covers both fields.';
COMMENT ON COLUMN pipehandler.message.report IS
'Of a message that is a report, what it reports; else null. "type" is delivery-status (RFC 3464: "recipients" is an
array of {"final_recipient", "original_recipient", "action", "status", "diagnostic_code", ...}, beside it
"reporting_mta", "original_envelope_id", "arrival_date"), feedback-report (RFC 5965: "feedback_type", "source_ip",
"original_rcpt_to", ...) or disposition-notification (RFC 8098: "disposition", "final_recipient", ...).
"original_message_id" is the Message-ID of the message that it is about. All of it may be forged.';
COMMENT ON COLUMN pipehandler.message.header IS
'All header fields in order, with repeats: an array of [name, body]; unfolded, encoded-words not decoded.';
COMMENT ON COLUMN pipehandler.message.authentication IS
'Results of trusted hosts only: {"spf", "dkim", "dmarc", "arc", "spam", "spam_score"}, each where it is known (RFC
8601).';
COMMENT ON COLUMN pipehandler.message.size IS
'Octets of raw_message.raw.';
COMMENT ON COLUMN pipehandler.message.sha256 IS
'SHA-256 of raw_message.raw.';
COMMENT ON COLUMN pipehandler.message.state IS
'parsed; or failed: only the bytes are stored (quarantine), and error gives the reason.';
COMMENT ON COLUMN pipehandler.message.error IS
'Why the message was not parsed; null where it was.';
COMMENT ON COLUMN pipehandler.message.defects IS
'What was guessed, replaced or left out while decoding: an array of {"code", "where", "detail"}.';
COMMENT ON COLUMN pipehandler.message.parser IS
'The version of the parser that made this row.';

COMMENT ON TABLE pipehandler.raw_message IS
'The bytes of a message, exactly as Postfix passed them on. A separate table, so that they can be removed before the
rest.';
COMMENT ON COLUMN pipehandler.raw_message.day IS
'message.day.';
COMMENT ON COLUMN pipehandler.raw_message.message IS
'The message that has these bytes.';
COMMENT ON COLUMN pipehandler.raw_message.raw IS
'The message as it was received, without the fields that Postfix prepends for a single delivery: those are in
delivery.prepended.';

COMMENT ON TABLE pipehandler.attachment IS
'A part of a message that a person would save: a file, an inline image, a calendar, an attached message.';
COMMENT ON COLUMN pipehandler.attachment.day IS
'message.day.';
COMMENT ON COLUMN pipehandler.attachment.message IS
'The message that it belongs to.';
COMMENT ON COLUMN pipehandler.attachment.ordinal IS
'Position among the attachments of its message, from 1.';
COMMENT ON COLUMN pipehandler.attachment.part IS
'Part number as IMAP counts (RFC 3501 6.4.5), such as 1.2.';
COMMENT ON COLUMN pipehandler.attachment.file_name IS
'File name, decoded, as the sender chose it: never use it as a path.';
COMMENT ON COLUMN pipehandler.attachment.content_type IS
'Media type (RFC 2045) in lower case, without parameters.';
COMMENT ON COLUMN pipehandler.attachment.content_id IS
'Content-ID without angle brackets: the target of cid: links in html_body.';
COMMENT ON COLUMN pipehandler.attachment.disposition IS
'Content-Disposition (RFC 2183): attachment, inline or another word; null where the sender gave none.';
COMMENT ON COLUMN pipehandler.attachment.parameters IS
'The parameters of Content-Type, decoded: {"charset": "utf-8", "method": "REQUEST", ...}; names in lower case. A text is
decoded from content with its charset.';
COMMENT ON COLUMN pipehandler.attachment.content_location IS
'Content-Location: the URI by which html_body may refer to it (RFC 2557 4.2).';
COMMENT ON COLUMN pipehandler.attachment.content_description IS
'Content-Description (RFC 2045 8), decoded.';
COMMENT ON COLUMN pipehandler.attachment.size IS
'Octets of the content, its transfer encoding decoded.';
COMMENT ON COLUMN pipehandler.attachment.sha256 IS
'SHA-256 of the content.';
COMMENT ON COLUMN pipehandler.attachment.content IS
'The content itself; null where the configuration keeps it in raw_message only, and after retention removed it.';

COMMENT ON TABLE pipehandler.delivery IS
'One message for one recipient, as Postfix handed it over. The same message delivered again does not add a row.';
COMMENT ON COLUMN pipehandler.delivery.id IS
'The number of the delivery; greater is newer, nearly (see xid).';
COMMENT ON COLUMN pipehandler.delivery.message IS
'The message that was delivered.';
COMMENT ON COLUMN pipehandler.delivery.day IS
'message.day of the message that was delivered, for joins with message, raw_message and attachment on both columns.';
COMMENT ON COLUMN pipehandler.delivery.recipient IS
'Envelope recipient (RCPT TO) after aliasing, unquoted, its domain in lower case.';
COMMENT ON COLUMN pipehandler.delivery.fingerprint IS
'What makes two deliveries to one recipient the same: SHA-256 over the fields that decide what a reader sees and the
body, or over all bytes where there is not exactly one Message-ID.';
COMMENT ON COLUMN pipehandler.delivery.fingerprint_version IS
'The version of the rules of fingerprint. 1 was stored by a program before 0.2; pipehandler reparse --fingerprints makes
it 2 where the bytes are still stored.';
COMMENT ON COLUMN pipehandler.delivery.original_recipient IS
'Envelope recipient before aliasing; null where Postfix did not pass it.';
COMMENT ON COLUMN pipehandler.delivery.later_original_recipients IS
'Those of the same message when it came again to the same recipient, such as through a second alias: each once, at most
100.';
COMMENT ON COLUMN pipehandler.delivery.later_list_ids IS
'The List-Ids of copies of the message that came later and were duplicates, such as the copy through a list of a message
that was also addressed to the recipient: each once, at most 100.';
COMMENT ON COLUMN pipehandler.delivery.sender IS
'Envelope sender (MAIL FROM), unquoted; empty for the null sender of bounces.';
COMMENT ON COLUMN pipehandler.delivery.queue_id IS
'Queue id in the log of mail_host.';
COMMENT ON COLUMN pipehandler.delivery.mail_host IS
'The mail host that stored this delivery.';
COMMENT ON COLUMN pipehandler.delivery.ingress IS
'How the message came in: pipe, lmtp, maildir, or import.';
COMMENT ON COLUMN pipehandler.delivery.client_address IS
'IP address of the SMTP client; null for a local submission.';
COMMENT ON COLUMN pipehandler.delivery.client_hostname IS
'Host name of the SMTP client, or unknown.';
COMMENT ON COLUMN pipehandler.delivery.client_helo IS
'The argument of HELO or EHLO that the SMTP client sent.';
COMMENT ON COLUMN pipehandler.delivery.client_port IS
'TCP port of the SMTP client.';
COMMENT ON COLUMN pipehandler.delivery.client_protocol IS
'SMTP or ESMTP; null for a local submission.';
COMMENT ON COLUMN pipehandler.delivery.sasl_username IS
'Login name, where the SMTP client authenticated.';
COMMENT ON COLUMN pipehandler.delivery.prepended IS
'Fields that Postfix prepended for this delivery alone; prepended followed by raw_message.raw is exactly what was
read.';
COMMENT ON COLUMN pipehandler.delivery.received_at IS
'When the handler had read the message.';
COMMENT ON COLUMN pipehandler.delivery.stored_at IS
'When the row was written, a moment before the commit.';
COMMENT ON COLUMN pipehandler.delivery.lease IS
'The lease of the recipient address that this delivery belongs to; null: none. When the lease expires, the view inbox no
longer shows the delivery.';
COMMENT ON COLUMN pipehandler.delivery.extension IS
'What follows the delimiter in the local part of recipient (user+extension@domain, RFC 5233), unless the whole address
has a lease of its own.';
COMMENT ON COLUMN pipehandler.delivery.expires_at IS
'After this time the view inbox no longer shows the delivery; null: never.';
COMMENT ON COLUMN pipehandler.delivery.raw_until IS
'Until then this delivery needs the bytes in raw_message. Null: as long as it exists; 1970-01-01 00:00 UTC: no longer.
They are removed when no delivery of the message needs them.';
COMMENT ON COLUMN pipehandler.delivery.attachments_until IS
'The same for attachment.content.';
COMMENT ON COLUMN pipehandler.delivery.xid IS
'The transaction that wrote the row: (xid, id) below pg_snapshot_xmin(pg_current_snapshot()) is a cursor that misses
nothing; id alone is not.';

COMMENT ON TABLE pipehandler.address IS
'One lease: one period of one recipient address. An address that is issued again gets another lease.';
COMMENT ON COLUMN pipehandler.address.lease IS
'The number of the lease; never issued again.';
COMMENT ON COLUMN pipehandler.address.address IS
'The recipient address, as pipehandler.canonical writes it; @domain is a catch-all.';
COMMENT ON COLUMN pipehandler.address.label IS
'Free text of the application.';
COMMENT ON COLUMN pipehandler.address.created_at IS
'When the lease began.';
COMMENT ON COLUMN pipehandler.address.expires_at IS
'When the lease ends; null: never.';
COMMENT ON COLUMN pipehandler.address.superseded IS
'The address was issued again: this lease can no longer be extended.';

COMMENT ON TABLE pipehandler.retention IS
'How long a delivery is kept: the first rule that matches decides; without one, forever. Written by pipehandler expire
from the configuration.';
COMMENT ON COLUMN pipehandler.retention.ordinal IS
'The position of the rule, from 1.';
COMMENT ON COLUMN pipehandler.retention.recipient IS
'A pattern for LIKE that the recipient, as pipehandler.canonical writes it, has to match; null: any.';
COMMENT ON COLUMN pipehandler.retention.sender IS
'The same for the envelope sender or the address of From: one of them has to match.';
COMMENT ON COLUMN pipehandler.retention.list_id IS
'The same for List-Id, in lower case; a message without one does not match.';
COMMENT ON COLUMN pipehandler.retention.keep IS
'How long after delivery.stored_at; null: forever.';
COMMENT ON COLUMN pipehandler.retention.raw IS
'The same for the bytes in raw_message; null: as long as the delivery.';
COMMENT ON COLUMN pipehandler.retention.attachments IS
'The same for attachment.content; null: as long as the delivery.';

COMMENT ON TABLE pipehandler.retention_change IS
'One row while the rules of retention have changed and are not yet applied to everything stored before; otherwise
none.';
COMMENT ON COLUMN pipehandler.retention_change.single IS
'At most one row.';
COMMENT ON COLUMN pipehandler.retention_change.xid IS
'A transaction that began after the change; null until there was one. Those before it may have read the old rules, so
they have to end first.';
COMMENT ON COLUMN pipehandler.retention_change.through IS
'The last delivery that the rules were applied to.';

COMMENT ON TABLE pipehandler.retention_hold IS
'One row while changed rules of retention wait for `pipehandler expire --confirm`, because they would remove too much;
otherwise none. Until then the rules in pipehandler.retention stay in force.';
COMMENT ON COLUMN pipehandler.retention_hold.single IS
'At most one row.';
COMMENT ON COLUMN pipehandler.retention_hold.rules IS
'The rules that wait, as pipehandler.change_retention takes them.';
COMMENT ON COLUMN pipehandler.retention_hold.deliveries IS
'How many deliveries they would take mail, exact bytes or contents of attachments from within a day; null where a
damaged row prevented the count.';
COMMENT ON COLUMN pipehandler.retention_hold.stored IS
'How many deliveries were stored then.';
COMMENT ON COLUMN pipehandler.retention_hold.since IS
'Since when they wait.';

COMMENT ON TABLE pipehandler.cluster IS
'One row: which cluster the numbers in this database belong to. Where that is another one now, `pipehandler check` asks
for `pipehandler restored`.';
COMMENT ON COLUMN pipehandler.cluster.single IS
'There is one row.';
COMMENT ON COLUMN pipehandler.cluster.system_identifier IS
'The identifier of the cluster (pg_control_system); null where it could not be read.';
COMMENT ON COLUMN pipehandler.cluster.timeline IS
'Its timeline, which a promoted standby and a recovery to a point in time increase.';
COMMENT ON COLUMN pipehandler.cluster.relation IS
'The OID of this table then: a restore from a dump creates another table.';
COMMENT ON COLUMN pipehandler.cluster.cursors IS
'What cursors of the stream begin with; empty in a database that was never restored.';
COMMENT ON COLUMN pipehandler.cluster.recorded_at IS
'Since when.';

COMMENT ON TABLE pipehandler.migration IS
'The files of sql/schema that were applied, recorded by pipehandler migrate.';
COMMENT ON COLUMN pipehandler.migration.version IS
'The number at the start of the file name.';
COMMENT ON COLUMN pipehandler.migration.name IS
'The file name.';
COMMENT ON COLUMN pipehandler.migration.checksum IS
'SHA-256 of the file, in hexadecimal.';
COMMENT ON COLUMN pipehandler.migration.applied_at IS
'When it was applied.';
COMMENT ON COLUMN pipehandler.migration.applied_by IS
'The role that applied it.';

COMMENT ON TABLE pipehandler.code IS
'The versions of sql/code (functions and views) that were applied, recorded by pipehandler migrate; the greatest is
current.';
COMMENT ON COLUMN pipehandler.code.version IS
'The version of sql/code, which only grows.';
COMMENT ON COLUMN pipehandler.code.checksum IS
'SHA-256 of the files of sql/code, in hexadecimal.';
COMMENT ON COLUMN pipehandler.code.server IS
'The major version of the server that it was applied on.';
COMMENT ON COLUMN pipehandler.code.objects IS
'What pipehandler.code_objects returned then: object -> digest.';
COMMENT ON COLUMN pipehandler.code.applied_at IS
'When it was applied.';
COMMENT ON COLUMN pipehandler.code.applied_by IS
'The role that applied it.';

COMMENT ON FUNCTION pipehandler.canonical(text) IS
'The form in which addresses are compared: in lower case, the local part too, as Postfix looks them up (RFC 5321 2.4
leaves it to the host); internationalised domains as U-labels (RFC 5890 2.3.2.1); Unicode in NFKC, case folded
(Unicode 5.18.4) by a table of Unicode 16 that never changes. An address of more than 256 octets (RFC 5321 4.5.3.1.3) is
returned unchanged.';
COMMENT ON FUNCTION pipehandler.u_label(text) IS
'The U-label of an A-label in lower case (RFC 5890 2.3.2.1), such as bücher for xn--bcher-kva; anything else, and
what is longer than a label may be (63 octets, RFC 1035 2.3.4), is returned unchanged.';

COMMENT ON TYPE pipehandler.streamed_delivery IS
'A delivery as pipehandler.deliveries_after returns it: a line of an inbox. The view inbox has the rest, by id.';

-- The columns of views, and of the type, mean what they mean in the tables: in delivery, else in message.
DO $$
DECLARE
    name     text;
    relation regclass;
    purpose  text;
BEGIN
    FOR relation, name, purpose IN
        SELECT DISTINCT ON (v.attrelid, v.attname) v.attrelid, v.attname, col_description(t.attrelid, t.attnum)
          FROM pg_attribute v
          JOIN pg_attribute t
            ON t.attname = v.attname
           AND t.attrelid IN ('pipehandler.delivery'::regclass, 'pipehandler.message'::regclass)
         WHERE v.attnum > 0
           AND v.attrelid IN ('pipehandler.inbox'::regclass, 'pipehandler.current_delivery'::regclass,
                              'pipehandler.delivery_under_current_rules'::regclass,
                              'pipehandler.renewed_delivery'::regclass, 'pipehandler.streamed_delivery'::regclass)
         ORDER BY v.attrelid, v.attname, t.attrelid <> 'pipehandler.delivery'::regclass
    LOOP
        EXECUTE format('COMMENT ON COLUMN %s.%I IS %L', relation, name, purpose);
    END LOOP;
    COMMENT ON COLUMN pipehandler.inbox.automatic IS
'Whether a program sent the message, so that no program may answer it: pipehandler.is_automatic.';
    COMMENT ON COLUMN pipehandler.inbox.original_recipients IS
'Each envelope recipient before aliasing through which the message came, the first one first.';
    COMMENT ON COLUMN pipehandler.inbox.list_ids IS
'The List-Id of the message, and those of its later copies.';
    -- These two mean something else, or are not there.
    FOREACH relation IN ARRAY ARRAY['pipehandler.inbox'::regclass, 'pipehandler.streamed_delivery'::regclass] LOOP
        EXECUTE format('COMMENT ON COLUMN %s.attachments IS %L', relation, 'How many attachments the message has.');
        EXECUTE format('COMMENT ON COLUMN %s.message IS %L', relation,
                       'message.id; with day for joins with message, attachment and raw_message.');
    END LOOP;
END
$$;
COMMENT ON COLUMN pipehandler.streamed_delivery.cursor IS
'Where the stream continues after this delivery. Its form is not part of the interface.';

COMMENT ON TABLE pipehandler.doubled IS
'What an index failed to find after the collation of the database had changed, so that it came to be there twice.
Nothing was removed: decide about each, then delete its row here.';
COMMENT ON COLUMN pipehandler.doubled.kind IS
'delivery: the second delivery of one message to one recipient. lease: a lease of an address that had got a second
one.';
COMMENT ON COLUMN pipehandler.doubled.id IS
'The number of the delivery, or of the lease.';
COMMENT ON COLUMN pipehandler.doubled.found_at IS
'When migrate found it.';

COMMENT ON TABLE pipehandler.capability IS
'The keys of the inbox page, by their digests. Who has a key opens one lease, or all mail.';
COMMENT ON COLUMN pipehandler.capability.digest IS
'SHA-256 of the key, which has 32 random octets and is stored nowhere.';
COMMENT ON COLUMN pipehandler.capability.lease IS
'The lease that it opens; null: all mail.';
COMMENT ON COLUMN pipehandler.capability.kind IS
'owner: the visitor who opened the inbox, who may extend, end and empty it. shared: a key that the owner made, which
reads it. viewer: a key of pipehandler web key, which reads.';
COMMENT ON COLUMN pipehandler.capability.label IS
'The name by which pipehandler web revoke revokes a viewer''s key.';
COMMENT ON COLUMN pipehandler.capability.created_at IS
'Since when.';
COMMENT ON COLUMN pipehandler.capability.expires_at IS
'Until when; null: as long as the lease, or until it is revoked.';

COMMENT ON TABLE pipehandler.web_domain IS
'The domains whose addresses visitors of the inbox page get, and the rules for them. Written by pipehandler expire from
the configuration. Such a domain has no catch-all.';
COMMENT ON COLUMN pipehandler.web_domain.domain IS
'The domain, as pipehandler.canonical writes it.';
COMMENT ON COLUMN pipehandler.web_domain.ordinal IS
'The position in the configuration; visitors get addresses of the first one unless they choose.';
COMMENT ON COLUMN pipehandler.web_domain.max_ttl IS
'How long a new inbox, or one extension, may last.';
COMMENT ON COLUMN pipehandler.web_domain.max_life IS
'How long an inbox may last with all its extensions.';
COMMENT ON COLUMN pipehandler.web_domain.grace IS
'How long after its end an inbox can be brought back with its mail.';
COMMENT ON COLUMN pipehandler.web_domain.held IS
'How long after that its address goes to nobody else.';
COMMENT ON COLUMN pipehandler.web_domain.delimiter IS
'The characters that may begin an extension: no visitor may choose a name with one.';
COMMENT ON COLUMN pipehandler.web_domain.reserved_names IS
'Names that no visitor may choose, beside those of pipehandler.is_reserved_name.';
COMMENT ON COLUMN pipehandler.web_domain.max_messages IS
'How many deliveries one inbox takes.';
COMMENT ON COLUMN pipehandler.web_domain.max_octets IS
'How many octets of messages one inbox takes; the message that exceeds it is the last one.';
COMMENT ON COLUMN pipehandler.web_domain.max_opened_per_hour IS
'How many inboxes of this domain all visitors together may open within an hour.';
COMMENT ON COLUMN pipehandler.web_domain.max_inboxes IS
'How many inboxes all domains may have, with those that can be brought back; beyond it none is opened.';

COMMENT ON TABLE pipehandler.web_inbox IS
'The leases that visitors opened on the inbox page, with the rules of that time.';
COMMENT ON COLUMN pipehandler.web_inbox.lease IS
'The lease.';
COMMENT ON COLUMN pipehandler.web_inbox.domain IS
'The domain of its address.';
COMMENT ON COLUMN pipehandler.web_inbox.opened_at IS
'When it was opened.';
COMMENT ON COLUMN pipehandler.web_inbox.address_digest IS
'SHA-256 of its address.';
COMMENT ON COLUMN pipehandler.web_inbox.holder IS
'The digest of the key that opened it, which may have its address again; null: nobody''s, the operator closed it.';
COMMENT ON COLUMN pipehandler.web_inbox.network IS
'From where it was opened: an IPv4 address, or an IPv6 network of 64 bits.';
COMMENT ON COLUMN pipehandler.web_inbox.grace IS
'How long after its end it can be brought back.';
COMMENT ON COLUMN pipehandler.web_inbox.held IS
'How long after that the address goes to nobody else.';
COMMENT ON COLUMN pipehandler.web_inbox.mail_until IS
'The end of its lease and the time of grace: then pipehandler expire removes its mail, and its keys open nothing. Null:
never.';
COMMENT ON COLUMN pipehandler.web_inbox.max_messages IS
'How many deliveries it takes.';
COMMENT ON COLUMN pipehandler.web_inbox.max_octets IS
'How many octets of messages it takes.';

COMMENT ON TABLE pipehandler.web_tombstone IS
'Addresses that visitors had, which go to nobody else for a while: the next holder would get what is meant for them.';
COMMENT ON COLUMN pipehandler.web_tombstone.address_digest IS
'SHA-256 of the address, which itself is gone.';
COMMENT ON COLUMN pipehandler.web_tombstone.holder IS
'The digest of the key that may have it again; null: none may.';
COMMENT ON COLUMN pipehandler.web_tombstone.held_until IS
'Until when; an operator who knows better may delete the row.';

COMMENT ON TABLE pipehandler.web_closed_network IS
'Networks from which no inbox is opened (pipehandler web close).';
COMMENT ON COLUMN pipehandler.web_closed_network.network IS
'The network.';
COMMENT ON COLUMN pipehandler.web_closed_network.label IS
'Why, in the words of the operator.';
COMMENT ON COLUMN pipehandler.web_closed_network.closed_at IS
'Since when.';
COMMENT ON COLUMN pipehandler.web_closed_network.expires_at IS
'Until when; null: until it is opened again.';

COMMENT ON TABLE pipehandler.sharding IS
'Which part of a sharded database this one is. No row in a database that is not sharded.';
COMMENT ON COLUMN pipehandler.sharding.single IS
'Always true: there is at most one row.';
COMMENT ON COLUMN pipehandler.sharding.shard IS
'The number of this shard, from 0; null on the proxy.';
COMMENT ON COLUMN pipehandler.sharding.shards IS
'How many shards there are; it never changes, because where an address is depends on it.';
COMMENT ON COLUMN pipehandler.sharding.delimiter IS
'The characters that begin an extension (recipients.delimiter). Where an address is depends on them as well.';
