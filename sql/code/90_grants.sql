-- Who may do what. The whole truth about the rights of the group roles (sql/roles.sql): everything is revoked first.
--
-- PostgreSQL lets PUBLIC execute new functions. Nothing is visible before the commit of the migration, so this
-- revokes it in time. ALTER DEFAULT PRIVILEGES would not do: IN SCHEMA it cannot revoke a default, and without it
-- would change all schemas of the database.

REVOKE ALL ON SCHEMA pipehandler
  FROM PUBLIC, pipehandler_ingest, pipehandler_reader, pipehandler_maintenance, pipehandler_lookup,
       pipehandler_address_admin, pipehandler_web;
REVOKE ALL ON ALL TABLES IN SCHEMA pipehandler
  FROM pipehandler_ingest, pipehandler_reader, pipehandler_maintenance, pipehandler_lookup, pipehandler_address_admin,
       pipehandler_web;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA pipehandler
  FROM PUBLIC, pipehandler_ingest, pipehandler_reader, pipehandler_maintenance, pipehandler_lookup,
       pipehandler_address_admin, pipehandler_web;
REVOKE ALL ON ALL ROUTINES IN SCHEMA pipehandler
  FROM PUBLIC, pipehandler_ingest, pipehandler_reader, pipehandler_maintenance, pipehandler_lookup,
       pipehandler_address_admin, pipehandler_web;

GRANT USAGE ON SCHEMA pipehandler
   TO pipehandler_ingest, pipehandler_reader, pipehandler_maintenance, pipehandler_lookup, pipehandler_address_admin,
      pipehandler_web;

-- The handler. Maintenance may store as well: `pipehandler import` brings in archived messages.
GRANT EXECUTE ON FUNCTION pipehandler.ingest TO pipehandler_ingest, pipehandler_maintenance;
GRANT EXECUTE ON FUNCTION pipehandler.health, pipehandler.code_status, pipehandler.data_status,
                          pipehandler.retention_held, pipehandler.cluster_status, pipehandler.replication_status,
                          pipehandler.shard_status, pipehandler.days_prepared
   TO pipehandler_ingest, pipehandler_reader, pipehandler_maintenance;

-- Postfix, and applications that issue addresses.
GRANT EXECUTE ON FUNCTION pipehandler.lookup TO pipehandler_lookup;
GRANT EXECUTE ON FUNCTION pipehandler.lease_address, pipehandler.lease_random_address, pipehandler.extend_lease,
                          pipehandler.expire_lease, pipehandler.remove_lease, pipehandler.find_lease,
                          pipehandler.place_lease
   TO pipehandler_address_admin, pipehandler_maintenance;

-- The inbox page. What of these takes no key returns no content.
GRANT EXECUTE ON FUNCTION pipehandler.inbox_of, pipehandler.open_inbox, pipehandler.inbox_domains,
                          pipehandler.inbox_page, pipehandler.inbox_after, pipehandler.inbox_message,
                          pipehandler.inbox_attachment, pipehandler.inbox_attachments, pipehandler.inbox_raw,
                          pipehandler.extend_inbox, pipehandler.expire_inbox, pipehandler.remove_inbox,
                          pipehandler.remove_inbox_mail, pipehandler.share_inbox, pipehandler.unshare_inbox,
                          pipehandler.inboxes_of, pipehandler.arrivals_after, pipehandler.arrivals_waiting,
                          pipehandler.cursor_now, pipehandler.shard_of_inbox, pipehandler.inbox_shards
   TO pipehandler_web;

-- Readers. They run as themselves, so they may execute what views and functions call.
GRANT SELECT ON ALL TABLES IN SCHEMA pipehandler TO pipehandler_reader, pipehandler_maintenance;
-- pg_dump reads them, too.
GRANT SELECT ON ALL SEQUENCES IN SCHEMA pipehandler TO pipehandler_reader, pipehandler_maintenance;
GRANT EXECUTE ON FUNCTION pipehandler.days, pipehandler.u_label, pipehandler.canonical, pipehandler.lease_of,
                          pipehandler.retention_of, pipehandler.is_automatic, pipehandler.stored_recipient,
                          pipehandler.split_address, pipehandler.shard_of,
                          pipehandler.deliveries_after, pipehandler.cursor_now, pipehandler.cursor_position,
                          pipehandler.deliveries_waiting
   TO pipehandler_reader, pipehandler_maintenance;

-- Retention and repair.
GRANT UPDATE, DELETE ON pipehandler.message, pipehandler.delivery TO pipehandler_maintenance;
GRANT DELETE ON pipehandler.raw_message, pipehandler.doubled, pipehandler.web_tombstone TO pipehandler_maintenance;
GRANT INSERT, UPDATE, DELETE ON pipehandler.attachment, pipehandler.address, pipehandler.retention,
                                pipehandler.retention_change, pipehandler.retention_hold
   TO pipehandler_maintenance;
GRANT EXECUTE ON FUNCTION pipehandler.create_days, pipehandler.drop_day, pipehandler.remove_days,
                          pipehandler.lock_messages, pipehandler.reparse, pipehandler.reparse_on,
                          pipehandler.remove_unreferenced, pipehandler.remove_due,
                          pipehandler.remove_deliveries, pipehandler.set_retention, pipehandler.change_retention,
                          pipehandler.renew, pipehandler.remove_ended_keys, pipehandler.set_web_domains,
                          pipehandler.grant_view, pipehandler.revoke_view, pipehandler.close_inbox,
                          pipehandler.close_network, pipehandler.reopen_network,
                          pipehandler.apply_retention, pipehandler.apply_rules,
                          pipehandler.expire(integer, timestamptz), pipehandler.expire(timestamptz, integer),
                          pipehandler.remove_leases(integer, timestamptz, interval),
                          pipehandler.remove_leases(timestamptz, integer, interval)
   TO pipehandler_maintenance;
