-- A question to a shard whose server may be frozen, with a time limit. For the rest, see 10_leases.sql.
--
-- PL/Proxy has no limit on a session that was connected before: the end of its time is an error only when something
-- arrives, and statement_timeout makes it ask the shard to cancel, and wait for that. The handler closes its connection
-- to the proxy then; Postfix does not. dblink sends and looks without waiting, and its sessions can be closed at once.

CREATE OR REPLACE FUNCTION pipehandler.ask_shard(shard integer, question text) RETURNS text[]
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    -- connect_timeout is as long. Together they stay below the statement_timeout of pgsql-recipients.cf.
    patience CONSTANT interval := '2 seconds';
    -- A look-up that waits holds up those for all shards that Postfix has in the same process.
    memory   CONSTANT interval := '10 seconds';
    known    CONSTANT text := 'pipehandler.frozen_' || shard;
    begun    CONSTANT timestamptz := clock_timestamp();
    place    text;
    name     text;
    is_new   boolean;
    is_late  boolean := false;
    answer   text[];
BEGIN
    IF extract(epoch FROM begun) < coalesce(nullif(current_setting(known, true), ''), '0')::numeric THEN
        RETURN NULL;
    END IF;
    SELECT s.conninfo || coalesce(m.options, '') INTO STRICT place
      FROM pipehandler.shards() AS s
      LEFT JOIN LATERAL (
               SELECT string_agg(format(' %s=''%s''', o.option_name,
                                        replace(replace(o.option_value, '\', '\\'), '''', '\''')), '') AS options
                 FROM (SELECT u.umoptions FROM pg_user_mappings u
                        WHERE u.srvname = 'pipehandler' AND (u.usename = CURRENT_USER OR u.umuser = 0)
                        ORDER BY u.umuser DESC
                        LIMIT 1) AS own,
                      pg_options_to_table(own.umoptions) AS o) AS m ON true
     WHERE s.shard = ask_shard.shard;
    name := format('pipehandler %s %s', shard, md5(place)); -- another one when the shard has moved
    FOR attempt IN 1 .. 2 LOOP
        is_new := name <> ALL (coalesce(pipehandler_dblink.dblink_get_connections(), '{}'));
        BEGIN
            IF is_new THEN
                PERFORM pipehandler_dblink.dblink_disconnect(c.old)
                   FROM unnest(pipehandler_dblink.dblink_get_connections()) AS c (old)
                  WHERE c.old LIKE format('pipehandler %s %%', shard);
                PERFORM pipehandler_dblink.dblink_connect(name, place);
            END IF;
            IF pipehandler_dblink.dblink_send_query(name, question) = 0 THEN
                RAISE connection_exception;
            END IF;
            WHILE pipehandler_dblink.dblink_is_busy(name) = 1 AND NOT is_late LOOP
                is_late := clock_timestamp() > begun + patience;
                PERFORM pg_sleep(0.001);
            END LOOP;
            IF NOT is_late THEN
                SELECT r.answer INTO STRICT answer FROM pipehandler_dblink.dblink_get_result(name) AS r (answer text[]);
                PERFORM FROM pipehandler_dblink.dblink_get_result(name) AS r (answer text[]); -- its end
                RETURN answer;
            END IF;
        EXCEPTION WHEN query_canceled OR OTHERS THEN
            is_late := clock_timestamp() > begun + patience / 2;
            IF name = ANY (pipehandler_dblink.dblink_get_connections()) THEN
                PERFORM pipehandler_dblink.dblink_disconnect(name);
            END IF;
            -- A connection of an earlier call has ended with its server.
            IF NOT is_late AND (is_new OR sqlstate !~ '^(08|57P)') THEN
                RAISE;
            END IF;
        END;
        EXIT WHEN is_late;
    END LOOP;
    IF name = ANY (pipehandler_dblink.dblink_get_connections()) THEN
        PERFORM pipehandler_dblink.dblink_disconnect(name);
    END IF;
    PERFORM set_config(known, extract(epoch FROM clock_timestamp() + memory)::text, false);
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pipehandler.ask_shard(integer, text) IS
'For the functions of the proxy: what a shard answers to a question, a statement that returns one array; null where it
does not answer within two seconds, and then for ten seconds, without being asked again in this session. Raises what the
shard raises, and connection_exception where it cannot be reached.';

CREATE OR REPLACE FUNCTION pipehandler.expect_shard(shard integer) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    reason text;
BEGIN
    IF pipehandler.ask_shard(shard, 'SELECT ARRAY[''yes'']') IS NULL THEN
        RAISE connection_exception USING MESSAGE = format('shard %s is away: it does not answer', shard);
    END IF;
EXCEPTION WHEN sqlclient_unable_to_establish_sqlconnection THEN
    GET STACKED DIAGNOSTICS reason = PG_EXCEPTION_DETAIL;
    RAISE connection_exception USING MESSAGE = format('shard %s is away: %s', shard, rtrim(reason, E'\n'));
END
$$;
COMMENT ON FUNCTION pipehandler.expect_shard(integer) IS
'For the functions of the proxy, before a function of PL/Proxy, which has no time limit where the shard is frozen. Raises
connection_exception where the shard does not answer, and what pipehandler.ask_shard raises.';

CREATE OR REPLACE FUNCTION pipehandler.expect_all_shards() RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    FOR shard IN 0 .. (SELECT s.shards - 1 FROM pipehandler.sharding s) LOOP
        PERFORM pipehandler.expect_shard(shard);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pipehandler.expect_all_shards() IS
'The same for all shards.';
