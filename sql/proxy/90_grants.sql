-- Who may call what, besides what sql/code/90_grants.sql has granted. The rest is called by other functions alone.

REVOKE ALL ON ALL ROUTINES IN SCHEMA pipehandler FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pipehandler.route, pipehandler.shard_answers
   TO pipehandler_ingest, pipehandler_maintenance;
GRANT EXECUTE ON FUNCTION pipehandler.shards, pipehandler.shards_health, pipehandler.on_shard_health,
                          pipehandler.on_shard_status
   TO pipehandler_ingest, pipehandler_reader, pipehandler_maintenance;

-- The tables of the proxy are empty: an error is better than no rows. pipehandler.sharding says that it is a proxy.
REVOKE SELECT ON ALL TABLES IN SCHEMA pipehandler FROM pipehandler_reader, pipehandler_maintenance;
-- So the inbox page opens and reads nothing here: it asks where the shards are, and then each of them.
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA pipehandler FROM pipehandler_web;
GRANT EXECUTE ON FUNCTION pipehandler.inbox_shards TO pipehandler_web;
GRANT SELECT ON pipehandler.sharding, pipehandler.migration, pipehandler.code TO pipehandler_reader,
                                                                                 pipehandler_maintenance;
