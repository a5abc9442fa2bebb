-- Several databases as one: what a shard has of it. The functions of the proxy are in sql/proxy.
--
-- For search_path and enable_seqscan, see 10_addresses.sql.

CREATE OR REPLACE FUNCTION pipehandler.shard_of(address text, delimiter text, shards integer) RETURNS integer
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    key text;
BEGIN
    -- Most addresses have no delimiter, and so no extension: a statement would cost more than all the rest.
    IF translate(address, delimiter, '') = address AND octet_length(address) <= 998 THEN
        key := address;
    ELSE
        SELECT CASE WHEN s.extension IS NULL THEN s.whole ELSE s.base END INTO key
          FROM pipehandler.split_address(address, delimiter) AS s;
    END IF;
    -- Not hashtext(), which may change with the version of the server, and so may never change where mail is.
    key := coalesce(pipehandler.canonical(key), pipehandler.stored_recipient(address), '');
    RETURN get_byte(sha256(convert_to(key, 'UTF8')), 0) & (shards - 1);
END
$$;
COMMENT ON FUNCTION pipehandler.shard_of(text, text, integer) IS
'The shard, from 0, that has an address with all of its mail, of this many shards (a power of two): the first octet of
the SHA-256 of the address without its extension, as pipehandler.canonical writes it. So user@d, User+x@D and the lease
that either belongs to are on one shard.';

CREATE OR REPLACE FUNCTION pipehandler.belongs_here(canonical text) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    here pipehandler.sharding;
BEGIN
    SELECT s.* INTO here FROM pipehandler.sharding s WHERE s.shard IS NOT NULL;
    IF NOT FOUND OR canonical LIKE '%@%' IS NOT TRUE THEN -- what is not an address is refused as such
        RETURN true;
    END IF;
    -- Shard 0 decides about catch-alls.
    RETURN here.shard = CASE WHEN canonical LIKE '@%' THEN 0
                             ELSE pipehandler.shard_of(canonical, here.delimiter, here.shards) END;
END
$$;
COMMENT ON FUNCTION pipehandler.belongs_here(text) IS
'For the functions that issue addresses: whether mail for an address, as pipehandler.canonical writes it, comes to this
database. False only on a shard, for an address of another one.';

CREATE OR REPLACE FUNCTION pipehandler.key_belongs_here(digest bytea) RETURNS boolean
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = on -- as in pipehandler.cursor_position
AS $$
    SELECT NOT EXISTS (SELECT FROM pipehandler.sharding s
                        WHERE s.shard <> get_byte(digest, 0) & (s.shards - 1))
$$;
COMMENT ON FUNCTION pipehandler.key_belongs_here(bytea) IS
'For the functions of the inbox page: whether the page looks here for the inbox of a key. It has the SHA-256 of the key
alone, whose first octet, modulo the number of shards, is the shard. Always true in a database that is not sharded.';

CREATE OR REPLACE FUNCTION pipehandler.shard_of_inbox(name text, domain text) RETURNS integer
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = on -- as in pipehandler.cursor_position
AS $$
    SELECT pipehandler.shard_of(lower(name COLLATE "C") || '@' || domain, s.delimiter, s.shards)
      FROM pipehandler.sharding s
$$;
COMMENT ON FUNCTION pipehandler.shard_of_inbox(text, text) IS
'Needs no key: the shard, from 0, that pipehandler.open_inbox has to be called on for a name that a visitor chose; null
in a database that is not sharded. Any shard answers.';

CREATE OR REPLACE FUNCTION pipehandler.inbox_shards()
RETURNS TABLE (shard integer, shards integer, conninfo text)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = on -- as in pipehandler.cursor_position
AS $$
    SELECT s.shard, s.shards, NULL FROM pipehandler.sharding s
$$;
COMMENT ON FUNCTION pipehandler.inbox_shards() IS
'Needs no key: the databases that the inbox page connects to, with the number of each and how many there are. conninfo:
null: this database itself. No row in a database that is not sharded.';

CREATE OR REPLACE FUNCTION pipehandler.become_shard(shard integer, shards integer, delimiter text) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    stride CONSTANT integer := 64; -- at least two for each shard, so that lease & (shards - 1) is the shard
    first  CONSTANT integer := stride + become_shard.shard;
    known  pipehandler.sharding;
BEGIN
    SELECT s.* INTO known FROM pipehandler.sharding s;
    IF FOUND AND (known.shard, known.shards, known.delimiter)
                 IS DISTINCT FROM (become_shard.shard, become_shard.shards, become_shard.delimiter) THEN
        RAISE EXCEPTION 'this database is shard % of % with the delimiter %, and stays it', known.shard, known.shards,
            quote_literal(known.delimiter)
            USING HINT = 'Where an address is follows from the number of shards: it cannot change.';
    ELSIF FOUND THEN
        RETURN;
    END IF;
    LOCK TABLE pipehandler.address, pipehandler.delivery IN SHARE ROW EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM pipehandler.address) OR EXISTS (SELECT FROM pipehandler.delivery) THEN
        RAISE EXCEPTION 'this database has mail or leases, and most of them would belong to other shards'
            USING HINT = 'Use an empty one, and bring mail in with pipehandler import.';
    END IF;
    EXECUTE format('ALTER TABLE pipehandler.address ALTER COLUMN lease SET INCREMENT BY %s SET START WITH %s RESTART',
                   stride, first);
    EXECUTE format('ALTER TABLE pipehandler.delivery ALTER COLUMN id SET INCREMENT BY %s SET START WITH %s RESTART',
                   stride, first);
    INSERT INTO pipehandler.sharding (shard, shards, delimiter)
    VALUES (become_shard.shard, become_shard.shards, become_shard.delimiter);
END
$$;
COMMENT ON FUNCTION pipehandler.become_shard(integer, integer, text) IS
'For `pipehandler migrate --proxy-of`, as the owner: makes an empty database this shard of so many, forever. From
now on the numbers of its leases and deliveries have the number of the shard as their remainder by 64.
delimiter: the characters that begin an extension (recipients.delimiter). Does nothing where it is that shard already;
raises raise_exception where it is another one, or has mail.';

CREATE OR REPLACE FUNCTION pipehandler.place_lease(
    lease      bigint,
    address    text,
    label      text,
    created_at timestamptz,
    expires_at timestamptz
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
#variable_conflict use_column
BEGIN
    PERFORM pipehandler.secure_transaction();
    IF place_lease.address NOT LIKE '@%'
       OR NOT EXISTS (SELECT FROM pipehandler.sharding s WHERE s.shard IS NOT NULL) THEN
        RAISE EXCEPTION 'only a catch-all is copied, and only to a shard; got %', place_lease.address
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM pipehandler.keep_names_apart(place_lease.address, NULL);
    UPDATE pipehandler.address a
       SET superseded = true
     WHERE a.address COLLATE "C" = place_lease.address AND NOT a.superseded AND a.lease <> place_lease.lease;
    INSERT INTO pipehandler.address AS a (lease, address, label, created_at, expires_at) OVERRIDING SYSTEM VALUE
    VALUES (place_lease.lease, place_lease.address, place_lease.label, place_lease.created_at, place_lease.expires_at)
        ON CONFLICT (lease) DO UPDATE SET label = excluded.label, expires_at = excluded.expires_at
     WHERE (a.label, a.expires_at) IS DISTINCT FROM (excluded.label, excluded.expires_at);
    RETURN true;
END
$$;
COMMENT ON FUNCTION pipehandler.place_lease(bigint, text, text, timestamptz, timestamptz) IS
'For the proxy: a catch-all has the same lease on every shard, and this is how a shard gets it, its new end, or its
successor. Safe to repeat. Raises what pipehandler.keep_names_apart raises.';

CREATE OR REPLACE FUNCTION pipehandler.shard_status()
RETURNS TABLE (
    shard          integer,
    shards         integer,
    delimiter      text,
    numbers        boolean,
    started        timestamptz,
    role           text,
    code           integer,
    checksum       text,
    routing        text,
    setting        text,
    value          text
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT s.shard, s.shards, s.delimiter,
           (SELECT bool_and(q.seqincrement = 64 AND mod(q.seqstart, 64) = s.shard)
              FROM pg_sequence q
             WHERE q.seqrelid IN (pg_get_serial_sequence('pipehandler.address', 'lease')::regclass,
                                  pg_get_serial_sequence('pipehandler.delivery', 'id')::regclass)),
           pg_postmaster_start_time(), session_user::text, o.version, o.checksum, r.digest, g.name,
           current_setting(g.name)
      FROM pipehandler.sharding s
      LEFT JOIN (SELECT k.version, k.checksum FROM pipehandler.code k ORDER BY k.version DESC LIMIT 1) AS o ON true
     CROSS JOIN unnest(ARRAY['client_min_messages', 'synchronous_commit', 'statement_timeout',
                             'lock_timeout', 'DateStyle', 'IntervalStyle', 'TimeZone', 'lc_messages', 'server_encoding',
                             'fsync', 'full_page_writes', 'transaction_read_only', 'in_hot_standby']) AS g (name)
     CROSS JOIN LATERAL (
               SELECT string_agg(pipehandler.canonical(e.example), ' ' ORDER BY e.n) AS digest
                 FROM unnest(ARRAY['User+X@Example.COM', 'ÄÖÜ@Straße.example', 'İıſ@ΣΑΣ.example',
                                   'ﬁ@Ｗｉｄｅ.example', '편지@xn--bcher-kva.example', 'Ꮳᏸ@ǅ.example'])
                      WITH ORDINALITY AS e (example, n)) AS r
$$;
COMMENT ON FUNCTION pipehandler.shard_status() IS
'For `pipehandler check`, which asks through the proxy: a row for each setting of this very session that the delivery
depends on, with what the database knows about its place. numbers: whether it gives out those of this shard alone;
started: when its server was, which two databases of one server have in common; routing: what pipehandler.canonical
makes of some addresses, which must be the same everywhere, or an address is on two shards.';
