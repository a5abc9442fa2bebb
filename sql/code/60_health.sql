-- The state of the database, for monitoring and for `pipehandler check`: numbers and names only, so that neither
-- needs a role that can read mail.

-- The columns of health may only be appended to one release after the program has learned to ignore unknown ones. A
-- lease without deliveries may stay for a while (pipehandler.remove_leases), so it looks for deliveries of leases;
-- those of the last day are enough, and there are not too many of them.
CREATE OR REPLACE FUNCTION pipehandler.health()
RETURNS TABLE (
    schema_version     integer,
    quarantined        bigint,
    oldest_quarantined timestamptz,
    oldest_expired     timestamptz
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (SELECT max(version) FROM pipehandler.migration), count(*), min(m.received_at),
           least((SELECT min(o.due)
                    FROM (SELECT CASE WHEN y.waits THEN y.last_due ELSE y.first_due END AS due
                            FROM pipehandler.days() AS y) AS o
                   WHERE o.due <= now()),
                 (SELECT min(a.expires_at)
                    FROM pipehandler.address a
                   WHERE a.expires_at <= now() - interval '144 hours'
                     AND NOT EXISTS (SELECT FROM pipehandler.web_inbox w
                                      WHERE w.lease = a.lease AND w.mail_until > now() - interval '24 hours')),
                 (SELECT min(a.expires_at)
                    FROM pipehandler.address a
                   WHERE a.expires_at BETWEEN now() - interval '1 day' AND now()
                     AND NOT EXISTS (SELECT FROM pipehandler.web_inbox w WHERE w.lease = a.lease)
                     AND EXISTS (SELECT FROM pipehandler.delivery d WHERE d.lease = a.lease)),
                 (SELECT min(w.mail_until)
                    FROM pipehandler.web_inbox w
                   WHERE w.mail_until BETWEEN now() - interval '1 day' AND now()
                     AND EXISTS (SELECT FROM pipehandler.delivery d WHERE d.lease = w.lease)))
      FROM pipehandler.message m
     WHERE m.state = 'failed'
$$;
COMMENT ON FUNCTION pipehandler.health() IS
'The version of the schema (the greatest in pipehandler.migration), how many messages are in quarantine (state
failed), when the oldest of them was received, and since when something has been expired that pipehandler expire has
not removed yet.';

-- Reads all deliveries, so it is for `pipehandler check`, not for a metric.
CREATE OR REPLACE FUNCTION pipehandler.data_status() RETURNS TABLE (incomplete bigint, doubled bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (SELECT count(*)
              FROM pipehandler.delivery d
             WHERE (d.raw_until IS NULL OR d.raw_until > now()) AND (d.expires_at IS NULL OR d.expires_at > now())
               AND NOT EXISTS (SELECT FROM pipehandler.raw_message r WHERE r.day = d.day AND r.message = d.message)),
           (SELECT count(*) FROM pipehandler.doubled)
$$;
COMMENT ON FUNCTION pipehandler.data_status() IS
'How many deliveries lack their message or its bytes although retention has not removed them, and how many rows
pipehandler.doubled has.';

-- Without the rights of pg_read_all_stats, pg_stat_replication has a row for each standby and null in most columns.
CREATE OR REPLACE FUNCTION pipehandler.replication_status(
    OUT required    integer,
    OUT synchronous bigint,
    OUT connected   bigint
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE WHEN s.names !~ '\S' THEN 0
                ELSE coalesce((regexp_match(s.names, '^\s*(?:(?:first|any)\s+)?([0-9]+)\s*\(', 'i'))[1]::integer, 1)
           END,
           CASE WHEN bool_or(r.pid IS NOT NULL AND r.state IS NULL) THEN NULL
                ELSE count(*) FILTER (WHERE r.sync_state IN ('sync', 'quorum') AND r.state = 'streaming') END,
           count(r.pid)
      FROM (SELECT current_setting('synchronous_standby_names')) AS s (names)
      LEFT JOIN pg_stat_replication r
             ON coalesce(r.state, 'streaming') IN ('streaming', 'catchup')
                AND NOT EXISTS (SELECT FROM pg_replication_slots l
                                 WHERE l.active_pid = r.pid AND l.slot_type = 'logical')
     GROUP BY s.names
$$;
COMMENT ON FUNCTION pipehandler.replication_status() IS
'For how many synchronous standbys a commit waits (0: for none), how many of those are connected (null where the owner
of this function may not see it: grant pg_read_all_stats), and how many standbys are connected in all.';

CREATE OR REPLACE FUNCTION pipehandler.code_objects() RETURNS TABLE (object text, digest text)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off
SET datestyle = 'ISO, YMD'
SET timezone = 'UTC'
AS $$
    SELECT o.object, encode(sha256(convert_to(o.definition, 'UTF8')), 'hex')
      FROM (SELECT 'function ' || p.oid::regprocedure,
                   CASE WHEN p.prokind = 'a' THEN '' ELSE pg_get_functiondef(p.oid) END
              FROM pg_proc p
             WHERE p.pronamespace = 'pipehandler'::regnamespace
            UNION ALL
            SELECT 'view ' || c.oid::regclass, concat_ws(';', pg_get_viewdef(c.oid), c.reloptions::text)
              FROM pg_class c
             WHERE c.relnamespace = 'pipehandler'::regnamespace AND c.relkind IN ('v', 'm')
           ) AS o (object, definition)
$$;
COMMENT ON FUNCTION pipehandler.code_objects() IS
'The functions and views that the schema has now, each with a SHA-256 of its definition as the server prints it.';

-- A definition may be printed differently by another major version of PostgreSQL, so digests are only compared on the
-- one that they were recorded on.
CREATE OR REPLACE FUNCTION pipehandler.code_status()
RETURNS TABLE (version integer, checksum text, server integer, digest text, damaged text[], unknown text[])
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET quote_all_identifiers = off
SET datestyle = 'ISO, YMD'
SET timezone = 'UTC'
AS $$
    WITH recorded AS (
        SELECT c.version, c.checksum, c.server, c.objects
          FROM pipehandler.code c
         ORDER BY c.version DESC
         LIMIT 1
    ),
    present AS MATERIALIZED (
        SELECT o.object, o.digest FROM pipehandler.code_objects() AS o
    )
    SELECT r.version, r.checksum, r.server,
           (SELECT encode(sha256(convert_to(string_agg(concat_ws(' ', p.object, p.digest), ','
                                                       ORDER BY p.object COLLATE "C"), 'UTF8')), 'hex')
              FROM present p),
           ARRAY(SELECT e.key
                   FROM jsonb_each_text(r.objects) AS e
                   LEFT JOIN present p ON p.object = e.key
                  WHERE p.object IS NULL
                     OR (p.digest <> e.value AND r.server = current_setting('server_version_num')::integer / 10000)
                  ORDER BY e.key COLLATE "C"),
           ARRAY(SELECT p.object FROM present p WHERE NOT r.objects ? p.object ORDER BY p.object COLLATE "C")
      FROM recorded r
$$;
COMMENT ON FUNCTION pipehandler.code_status() IS
'Which functions and views migrate installed last: the version and the checksum of sql/code, and the major version of
the server that it was on. And what the schema has now: a digest of it, what is missing or differs (damaged), and what
migrate did not install (unknown). No row where migrate never recorded any.';
