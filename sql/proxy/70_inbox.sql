-- The inbox page asks the proxy where the shards are, and each of them itself: a session of the proxy on a frozen shard
-- could not be ended, and a notification of a shard does not reach the proxy's clients.

CREATE OR REPLACE FUNCTION pipehandler.inbox_shards()
RETURNS TABLE (shard integer, shards integer, conninfo text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.shard, s.shards, p.conninfo FROM pipehandler.shards() AS p CROSS JOIN pipehandler.sharding s
$$;
