-- The indexes of 0017 take the place of the former ones. The views show addresses with the collation of the new ones, so
-- that a comparison with them is quick.

LOCK TABLE pipehandler.message, pipehandler.delivery, pipehandler.address IN ACCESS EXCLUSIVE MODE;

DROP INDEX pipehandler.delivery_once, pipehandler.delivery_recipient, pipehandler.address_current,
           pipehandler.message_message_id, pipehandler.message_from_address;
ALTER INDEX pipehandler.delivery_once_in_c RENAME TO delivery_once;
ALTER INDEX pipehandler.delivery_recipient_in_c RENAME TO delivery_recipient;
ALTER INDEX pipehandler.address_current_in_c RENAME TO address_current;
ALTER INDEX pipehandler.message_message_id_in_c RENAME TO message_message_id;
ALTER INDEX pipehandler.message_from_address_in_c RENAME TO message_from_address;

-- Folding has tables of its own now.
DROP COLLATION pipehandler.folding;

-- CREATE OR REPLACE cannot change the collation of a column. Whoever was granted a view keeps it.
DO $$
DECLARE
    granted CONSTANT text[] := ARRAY(
        SELECT format('GRANT %s ON pipehandler.%I TO %s%s', a.privilege_type, c.relname,
                      CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END,
                      CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
          FROM pg_class c, aclexplode(c.relacl) AS a
         WHERE c.relnamespace = 'pipehandler'::regnamespace AND c.relkind = 'v' AND a.grantee <> c.relowner);
    one text;
BEGIN
    DROP VIEW pipehandler.inbox;
    DROP VIEW pipehandler.current_delivery;
    CREATE VIEW pipehandler.current_delivery AS
    SELECT d.id, d.message, d.recipient COLLATE "C" AS recipient, d.fingerprint, d.original_recipient, d.sender,
           d.queue_id, d.mail_host, d.ingress, d.client_address, d.client_hostname, d.client_helo, d.client_port,
           d.client_protocol, d.sasl_username, d.prepended, d.received_at, d.stored_at, d.lease, d.expires_at, d.xid,
           d.extension, d.raw_until, d.attachments_until
      FROM pipehandler.delivery d
      LEFT JOIN pipehandler.address a ON a.lease = d.lease
     WHERE (d.expires_at IS NULL OR d.expires_at > now()) AND (a.expires_at IS NULL OR a.expires_at > now());
    CREATE VIEW pipehandler.inbox AS
    SELECT d.id, d.recipient, d.received_at, d.sender, m.from_name, m.from_address COLLATE "C" AS from_address, m.subject,
           m.date, m.list_id, m.size,
           (SELECT count(*) FROM pipehandler.attachment a WHERE a.message = m.id)::integer AS attachments,
           m.state, m.text_body, m.html_body, m.id AS message, m.message_id COLLATE "C" AS message_id, d.queue_id,
           d.expires_at, d.lease, d.extension
      FROM pipehandler.current_delivery d
      JOIN pipehandler.message m ON m.id = d.message;
    FOREACH one IN ARRAY granted LOOP
        EXECUTE one;
    END LOOP;
END
$$;

-- Retention counts from stored_at. A mail host whose clock was slow has shortened it for what it stored; the rules are
-- applied again to all that is stored.
UPDATE pipehandler.delivery d
   SET expires_at        = d.expires_at + (d.stored_at - d.received_at),
       raw_until         = CASE WHEN d.raw_until > 'epoch' THEN d.raw_until + (d.stored_at - d.received_at) ELSE d.raw_until END,
       attachments_until = CASE WHEN d.attachments_until > 'epoch'
                                THEN d.attachments_until + (d.stored_at - d.received_at) ELSE d.attachments_until END
 WHERE d.received_at < d.stored_at - interval '1 minute' AND isfinite(d.received_at)
   AND num_nonnulls(d.expires_at, d.raw_until, d.attachments_until) > 0;
INSERT INTO pipehandler.retention_change (xid)
SELECT NULL WHERE EXISTS (SELECT FROM pipehandler.retention)
    ON CONFLICT (single) DO UPDATE SET xid = NULL, through = 0;

-- Functions whose arguments or columns have other names in sql/code, which CREATE OR REPLACE cannot rename. It installs
-- them again in this transaction.
DROP FUNCTION IF EXISTS pipehandler.ingest(jsonb, jsonb, text, text, bytea, bytea, bytea[]);
DROP FUNCTION IF EXISTS pipehandler.reparse(uuid, jsonb, text, text, bytea[], boolean);
DROP FUNCTION IF EXISTS pipehandler.expire(integer, timestamptz);
DROP FUNCTION IF EXISTS pipehandler.expire(timestamptz, integer);
DROP FUNCTION IF EXISTS pipehandler.remove_leases(integer, timestamptz, interval);
DROP FUNCTION IF EXISTS pipehandler.forget(uuid[]);
