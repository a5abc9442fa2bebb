-- The proxy of a sharded database: functions of sql/code again, which find the shard and call the function of the same
-- name there. `pipehandler migrate` applies these files after those of sql/code, on the proxy alone. The tables of the
-- proxy stay empty.
--
-- In all files of sql/proxy:
--   * PL/Proxy connects as the user that the user mapping of the owner names. So all functions that reach a shard are
--     SECURITY DEFINER, and who may call them is decided here (90_grants.sql).
--   * on_shard_... run on one shard, whose number is their first argument; on_all_shards_... run on every shard at
--     once, and fail where one of them does.
--   * A shard that is away is an error of PL/Proxy itself, internal_error, or one of the classes 08, 53 and 57P. What a
--     shard raises arrives with its SQLSTATE.

CREATE OR REPLACE FUNCTION pipehandler.shard_of_recipient(address text, delimiter text) RETURNS integer
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known pipehandler.sharding;
BEGIN
    SELECT s.* INTO known FROM pipehandler.sharding s;
    -- Another delimiter would find another address, and with it another shard.
    IF delimiter IS DISTINCT FROM known.delimiter THEN
        RAISE EXCEPTION 'the shards were created with the delimiter %, not %', quote_literal(known.delimiter),
            quote_nullable(delimiter)
            USING HINT = 'Set recipients.delimiter, and that of pgsql-recipients.cf, to it.';
    END IF;
    RETURN pipehandler.shard_of(address, known.delimiter, known.shards);
END
$$;
COMMENT ON FUNCTION pipehandler.shard_of_recipient(text, text) IS
'The shard that has an address. Raises raise_exception for a delimiter that the shards were not created with.';

CREATE OR REPLACE FUNCTION pipehandler.shard_of_address(address text) RETURNS integer
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pipehandler.shard_of(address, s.delimiter, s.shards) FROM pipehandler.sharding s
$$;
COMMENT ON FUNCTION pipehandler.shard_of_address(text) IS
'The shard that has an address, by the delimiter of the shards.';

CREATE OR REPLACE FUNCTION pipehandler.route(recipients text[], delimiter text) RETURNS integer[]
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_agg(pipehandler.shard_of_recipient(r.recipient, route.delimiter) ORDER BY r.n)
      FROM unnest(recipients) WITH ORDINALITY AS r (recipient, n)
$$;
COMMENT ON FUNCTION pipehandler.route(text[], text) IS
'The shards of recipients, in their order. The handler asks before it stores: it makes one transaction for each shard,
and none for a shard that it knows to be away. Raises what pipehandler.shard_of_recipient raises.';

-- The functions that run on a shard.

-- Formerly the one that lookup called.
DROP FUNCTION IF EXISTS pipehandler.on_shard_lookup(integer, text, text);

CREATE OR REPLACE FUNCTION pipehandler.on_shard_lease_address(
    shard       integer,
    its_address text,
    ttl         interval,
    its_label   text
)
RETURNS SETOF pipehandler.address
LANGUAGE plproxy VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    CLUSTER 'pipehandler';
    RUN ON shard;
    SELECT a.* FROM pipehandler.lease_address($2, $3, $4) AS a;
$$;

CREATE OR REPLACE FUNCTION pipehandler.on_shard_extend_lease(shard integer, its_lease bigint, ttl interval)
RETURNS SETOF pipehandler.address
LANGUAGE plproxy VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    CLUSTER 'pipehandler';
    RUN ON shard;
    SELECT a.* FROM pipehandler.extend_lease($2, $3) AS a;
$$;

CREATE OR REPLACE FUNCTION pipehandler.on_shard_expire_lease(shard integer, its_lease bigint)
RETURNS SETOF pipehandler.address
LANGUAGE plproxy VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    CLUSTER 'pipehandler';
    RUN ON shard;
    SELECT a.* FROM pipehandler.expire_lease($2) AS a;
$$;

CREATE OR REPLACE FUNCTION pipehandler.on_shard_remove_lease(shard integer, its_lease bigint) RETURNS SETOF bigint
LANGUAGE plproxy VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    CLUSTER 'pipehandler';
    RUN ON shard;
    SELECT r.removed FROM pipehandler.remove_lease($2) AS r (removed);
$$;

CREATE OR REPLACE FUNCTION pipehandler.on_shard_find_lease(shard integer, by_lease bigint, by_address text)
RETURNS TABLE (lease bigint, address text, label text, created_at timestamptz, expires_at timestamptz,
               deliveries bigint)
LANGUAGE plproxy VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    CLUSTER 'pipehandler';
    RUN ON shard;
    SELECT f.* FROM pipehandler.find_lease($2, $3) AS f;
$$;

CREATE OR REPLACE FUNCTION pipehandler.on_all_shards_find_lease(by_lease bigint)
RETURNS TABLE (lease bigint, address text, label text, created_at timestamptz, expires_at timestamptz,
               deliveries bigint)
LANGUAGE plproxy VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    CLUSTER 'pipehandler';
    RUN ON ALL;
    SELECT f.* FROM pipehandler.find_lease($1, NULL) AS f;
$$;

CREATE OR REPLACE FUNCTION pipehandler.on_all_shards_place_lease(
    its_lease      bigint,
    its_address    text,
    its_label      text,
    its_created_at timestamptz,
    its_expires_at timestamptz
) RETURNS SETOF boolean
LANGUAGE plproxy VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    CLUSTER 'pipehandler';
    RUN ON ALL;
    SELECT p.placed FROM pipehandler.place_lease($1, $2, $3, $4, $5) AS p (placed);
$$;

-- What Postfix and applications call.

CREATE OR REPLACE FUNCTION pipehandler.lookup(address text, delimiter text DEFAULT '+') RETURNS SETOF text
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    away      CONSTANT text := 'DEFER the mailbox is not available at the moment';
    recipient text := address;
    answers   text[];
BEGIN
    IF current_setting('client_encoding') = 'LATIN1' THEN
        recipient := convert_from(convert_to(address, 'LATIN1'), 'UTF8');
    END IF;
    -- access(5) asks for the domain and for the local part as well. Neither is an address, and @domain adds nothing to
    -- what the whole address has found: no shard answers for them, or one that is away would answer for all.
    IF recipient !~ '^.+@.+$' THEN
        RETURN;
    END IF;
    answers := pipehandler.ask_shard(
        pipehandler.shard_of_recipient(recipient, delimiter),
        format('SELECT ARRAY(SELECT l.answer FROM pipehandler.lookup(%L, %L) AS l (answer))', recipient, delimiter));
    RETURN QUERY SELECT a.answer FROM unnest(coalesce(answers, ARRAY[away])) AS a (answer);
EXCEPTION
    WHEN character_not_in_repertoire OR untranslatable_character THEN -- not UTF-8, so not an address of ours
        RETURN;
    -- Postfix takes any error for one of the whole database, and does not ask it again for a minute.
    WHEN internal_error OR connection_exception OR insufficient_resources OR query_canceled OR admin_shutdown
         OR crash_shutdown OR cannot_connect_now THEN
        RETURN NEXT away;
END
$$;

CREATE OR REPLACE FUNCTION pipehandler.copied(home pipehandler.address) RETURNS pipehandler.address
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF home.address LIKE '@%' THEN
        PERFORM pipehandler.expect_all_shards();
        PERFORM FROM pipehandler.on_all_shards_place_lease(home.lease, home.address, home.label, home.created_at,
                                                           home.expires_at);
    END IF;
    RETURN home;
END
$$;
COMMENT ON FUNCTION pipehandler.copied(pipehandler.address) IS
'For the functions that change leases: a catch-all is on every shard, with the number and the end that it has on shard
0. Returns only when all shards have confirmed; called again, it completes what is missing.';

CREATE OR REPLACE FUNCTION pipehandler.lease_address(
    address text,
    ttl     interval DEFAULT NULL,
    label   text     DEFAULT NULL
) RETURNS pipehandler.address
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    canonical CONSTANT text := pipehandler.canonical(address);
    leased    pipehandler.address;
    copies    bigint;
BEGIN
    IF canonical LIKE '@%' IS NOT TRUE THEN
        PERFORM pipehandler.expect_shard(pipehandler.shard_of_address(address));
        SELECT a.* INTO leased
          FROM pipehandler.on_shard_lease_address(pipehandler.shard_of_address(address), address, ttl, label) AS a;
        RETURN leased;
    END IF;
    PERFORM pipehandler.expect_all_shards();
    PERFORM FROM pipehandler.sharding s FOR NO KEY UPDATE; -- one catch-all after the other
    BEGIN
        SELECT a.* INTO leased FROM pipehandler.on_shard_lease_address(0, address, ttl, label) AS a;
    EXCEPTION WHEN unique_violation THEN
        -- Shard 0 has it. Where another has not, a former call broke off, and this one completes it.
        SELECT f.lease, f.address, f.label, f.created_at, f.expires_at
          INTO leased.lease, leased.address, leased.label, leased.created_at, leased.expires_at
          FROM pipehandler.on_shard_find_lease(0, NULL, address) AS f;
        SELECT count(*) INTO copies
          FROM pipehandler.on_all_shards_find_lease(leased.lease) AS f
         WHERE f.expires_at IS NOT DISTINCT FROM leased.expires_at;
        IF copies = (SELECT s.shards FROM pipehandler.sharding s) THEN
            RAISE EXCEPTION '% already has a current lease', canonical
                USING ERRCODE = 'unique_violation', HINT = 'Extend it, or expire it first.';
        END IF;
    END;
    RETURN pipehandler.copied(leased);
END
$$;

CREATE OR REPLACE FUNCTION pipehandler.lease_random_address(
    domain text,
    ttl    interval DEFAULT NULL,
    label  text     DEFAULT NULL
) RETURNS pipehandler.address
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    name text;
BEGIN
    IF strpos(domain, '@') > 0 THEN
        RAISE EXCEPTION 'invalid domain %: expected a name such as example.com', quote_literal(domain);
    END IF;
    LOOP
        name := pipehandler.random_name() || '@' || domain;
        CONTINUE WHEN EXISTS (SELECT FROM pipehandler.find_lease(NULL, name)); -- one that no lease has or had
        RETURN pipehandler.lease_address(name, ttl, label);
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION pipehandler.extend_lease(lease bigint, ttl interval DEFAULT NULL) RETURNS pipehandler.address
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    extended pipehandler.address;
BEGIN
    PERFORM pipehandler.expect_shard(pipehandler.shard_of_number(lease));
    SELECT a.* INTO extended
      FROM pipehandler.on_shard_extend_lease(pipehandler.shard_of_number(lease), lease, ttl) AS a;
    RETURN pipehandler.copied(extended);
END
$$;

CREATE OR REPLACE FUNCTION pipehandler.expire_lease(lease bigint) RETURNS pipehandler.address
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    expired pipehandler.address;
BEGIN
    PERFORM pipehandler.expect_shard(pipehandler.shard_of_number(lease));
    SELECT a.* INTO expired FROM pipehandler.on_shard_expire_lease(pipehandler.shard_of_number(lease), lease) AS a;
    RETURN pipehandler.copied(expired);
END
$$;

CREATE OR REPLACE FUNCTION pipehandler.shard_of_number(number bigint) RETURNS integer
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT (number & (s.shards - 1))::integer FROM pipehandler.sharding s -- see become_shard
$$;
COMMENT ON FUNCTION pipehandler.shard_of_number(bigint) IS
'The shard that gave out the number of a lease or a delivery.';

CREATE OR REPLACE FUNCTION pipehandler.remove_lease(lease bigint) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    home    CONSTANT integer := pipehandler.shard_of_number(lease);
    total   bigint := 0;
    removed bigint;
    one     integer;
BEGIN
    PERFORM pipehandler.expect_shard(home);
    -- The home of a catch-all comes last: as long as it has it, what broke off can be repeated.
    FOR one IN
        SELECT n
          FROM pipehandler.sharding s, generate_series(0, s.shards - 1) AS n
         WHERE n <> home
           AND EXISTS (SELECT FROM pipehandler.on_shard_find_lease(home, lease, NULL) AS f WHERE f.address LIKE '@%')
    LOOP
        PERFORM pipehandler.expect_shard(one);
        BEGIN
            SELECT r.removed INTO removed FROM pipehandler.on_shard_remove_lease(one, lease) AS r (removed);
            total := total + removed;
        EXCEPTION WHEN no_data_found THEN
            NULL; -- by a call that broke off
        END;
    END LOOP;
    SELECT r.removed INTO removed FROM pipehandler.on_shard_remove_lease(home, lease) AS r (removed);
    RETURN total + removed;
END
$$;

CREATE OR REPLACE FUNCTION pipehandler.find_lease(by_lease bigint DEFAULT NULL, by_address text DEFAULT NULL)
RETURNS TABLE (lease bigint, address text, label text, created_at timestamptz, expires_at timestamptz,
               deliveries bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    home  CONSTANT integer := CASE WHEN by_lease IS NOT NULL THEN pipehandler.shard_of_number(by_lease)
                                   WHEN by_address LIKE '@%' THEN 0
                                   ELSE pipehandler.shard_of_address(by_address) END;
    found record;
BEGIN
    PERFORM pipehandler.expect_shard(home);
    SELECT f.* INTO found FROM pipehandler.on_shard_find_lease(home, by_lease, by_address) AS f;
    IF found.lease IS NULL THEN
        RETURN;
    ELSIF found.address LIKE '@%' THEN
        PERFORM pipehandler.expect_all_shards();
        found.deliveries := (SELECT sum(f.deliveries) FROM pipehandler.on_all_shards_find_lease(found.lease) AS f);
    END IF;
    RETURN QUERY SELECT found.lease, found.address, found.label, found.created_at, found.expires_at, found.deliveries;
END
$$;
