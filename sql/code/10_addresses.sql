-- Recipient addresses with a lifetime. A lease is one period of one address. An address that is issued again gets
-- another lease: the former one is superseded, can no longer be extended, and shows nothing to its successor.
--
-- In all files of sql/code:
--   * Functions pin search_path, so that no object of a caller is mistaken for one of ours. Those with BEGIN ATOMIC or
--     RETURN need not: their names were resolved when they were created, by `migrate`.
--   * SECURITY DEFINER functions run as their owner: whoever may execute one needs no right on a table.
--   * enable_seqscan = off, where rows are found by index. A session keeps the plans of its statements. Plans made
--     while a table was small would go on reading all of it while it grows, as long as a worker is connected.
--   * CREATE OR REPLACE keeps the comment and the grants of a function, and drops each SET clause that is not repeated.

CREATE OR REPLACE FUNCTION pipehandler.secure_transaction() RETURNS void
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    -- Set for the transaction: a SET clause of a function ends with the function, before the commit. remote_apply is
    -- stronger than on, and stays.
    IF current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
    -- PostgreSQL 17 and later. The session's statement_timeout is the limit.
    IF current_setting('transaction_timeout', true) <> '0' THEN
        PERFORM set_config('transaction_timeout', '0', true);
    END IF;
END
$$;
COMMENT ON FUNCTION pipehandler.secure_transaction() IS
'For the functions whose answer is a promise: what a role, a database or a session sets must neither make the commit of
the transaction weaker nor end it.';

CREATE OR REPLACE FUNCTION pipehandler.stored_recipient(recipient text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT CASE WHEN octet_length(stored_recipient.recipient) <= 998 THEN stored_recipient.recipient
                ELSE left(stored_recipient.recipient, 200) || '...'
                     || encode(sha256(convert_to(stored_recipient.recipient, 'UTF8')), 'hex') END;
END;
COMMENT ON FUNCTION pipehandler.stored_recipient(text) IS
'What delivery.recipient holds for an envelope recipient: one of more than 998 octets would not fit into an index, so it
is its first 200 characters with its SHA-256, and each stays another one. RFC 5321 4.5.3.1.3 allows 256 octets.';

CREATE OR REPLACE FUNCTION pipehandler.split_address(recipient text, delimiter text DEFAULT '+')
RETURNS TABLE (whole text, base text, domain text, extension text)
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT part.whole, left(part.local, place - 1) || part.domain, part.domain,
           -- As split_addr(3) of Postfix: nothing before the delimiter is not an address, and some names stay
           -- whole.
           CASE WHEN place > 1 AND NOT (strpos(delimiter, '-') > 0
                                        AND part.local COLLATE "C"
                                            ~* '^(owner-.*|.+-request|mailer-daemon|double-bounce)$')
                THEN substring(part.local FROM place + 1) END
      FROM (SELECT short.recipient AS whole, substring(short.recipient FROM '^(.*)@') AS local,
                   substring(short.recipient FROM '@[^@]*$') AS domain
              -- No lease has a longer address.
              FROM (VALUES (CASE WHEN octet_length(split_address.recipient) <= 998
                                 THEN split_address.recipient END)) AS short (recipient)) AS part,
           strpos(translate(part.local, delimiter, repeat(left(delimiter, 1), length(delimiter))),
                  left(delimiter, 1)) AS place;
END;
COMMENT ON FUNCTION pipehandler.split_address(text, text) IS
'The parts of a recipient that decide which lease and which shard it belongs to: itself (whole), without its extension
(base), its @domain, and the extension (null: it has none, and base means nothing). All null for more than 998 octets.
delimiter: as for pipehandler.lease_of.';

CREATE OR REPLACE FUNCTION pipehandler.lease_of(recipient text, delimiter text DEFAULT '+')
RETURNS TABLE (lease bigint, expires_at timestamptz, extension text)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT found.lease, found.expires_at, CASE WHEN found.rank IS DISTINCT FROM 1 THEN split.extension END
      FROM pipehandler.split_address(lease_of.recipient, delimiter) AS split LEFT JOIN LATERAL (
               SELECT a.lease, a.expires_at, candidate.rank
                 FROM (VALUES (1, split.whole),
                              (2, CASE WHEN split.extension IS NOT NULL THEN split.base END),
                              (3, split.domain)) AS candidate (rank, address)
                CROSS JOIN LATERAL (SELECT x.lease, x.expires_at
                                      FROM pipehandler.address x
                                     WHERE x.address COLLATE "C" = pipehandler.canonical(candidate.address)
                                       AND NOT x.superseded
                                    OFFSET 0) AS a -- by its index, even in a plan for a table that was small
                ORDER BY coalesce(a.expires_at <= now(), false), candidate.rank
                LIMIT 1) AS found ON true;
END;
COMMENT ON FUNCTION pipehandler.lease_of(text, text) IS
'The lease that mail to a recipient belongs to: that of the whole address, else of the address without its extension,
else of @domain, in the order in which Postfix looks up virtual_mailbox_maps. An expired lease is found only where
none of them is current. delimiter: the characters that may begin an extension (recipient_delimiter of Postfix), empty
for none. Returns one row; lease is null where there is none.';

-- Postfix asks at RCPT TO. Before 3.8 it announces LATIN1 to the server, and sends the bytes of UTF-8.
CREATE OR REPLACE FUNCTION pipehandler.lookup(address text, delimiter text DEFAULT '+') RETURNS SETOF text
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    recipient text := address;
BEGIN
    IF current_setting('client_encoding') = 'LATIN1' THEN
        recipient := convert_from(convert_to(address, 'LATIN1'), 'UTF8');
    END IF;
    -- No row instead of null, because Postfix logs a warning for each null.
    RETURN QUERY SELECT 'OK' FROM pipehandler.lease_of(recipient, delimiter) AS l
                  WHERE l.lease IS NOT NULL AND (l.expires_at IS NULL OR l.expires_at > now())
                    AND NOT pipehandler.inbox_is_full(l.lease);
EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN -- not UTF-8, so not an address of ours
    RETURN;
END
$$;
COMMENT ON FUNCTION pipehandler.lookup(text, text) IS
'For virtual_mailbox_maps of Postfix: OK where a current lease accepts mail to this address, else no row; none, either,
where it belongs to a visitor of the inbox page and is full. delimiter: as for lease_of.';

CREATE OR REPLACE FUNCTION pipehandler.issue_lease(
    canonical text,
    ttl       interval,
    label     text,
    holder    bytea
) RETURNS pipehandler.address
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    leased pipehandler.address;
BEGIN
    IF ttl <= interval '0' THEN
        RAISE EXCEPTION 'ttl must be positive, or null for a lease that never ends; got %', ttl;
    ELSIF isfinite(ttl) AND ttl > interval '1000 years' THEN -- clients cannot read a time after the year 9999
        RAISE EXCEPTION 'ttl must be at most 1000 years, or null for a lease that never ends; got %', ttl;
    END IF;
    -- In its external form Postfix would find it at RCPT TO, and the handler would not.
    IF issue_lease.canonical ~ '^".*"@' THEN
        RAISE EXCEPTION 'invalid address %: write the local part without quotes', quote_literal(issue_lease.canonical);
    END IF;
    IF NOT pipehandler.belongs_here(issue_lease.canonical) THEN
        RAISE EXCEPTION 'the mail of % goes to another shard', issue_lease.canonical
            USING ERRCODE = 'PH003', HINT = 'Issue the address on the proxy: without --shard.';
    END IF;
    PERFORM pipehandler.keep_names_apart(issue_lease.canonical, issue_lease.holder);
    BEGIN
        UPDATE pipehandler.address a
           SET superseded = true
         WHERE a.address COLLATE "C" = issue_lease.canonical AND NOT a.superseded AND a.expires_at <= now();
        INSERT INTO pipehandler.address (address, label, expires_at)
        VALUES (issue_lease.canonical, issue_lease.label, nullif(now() + ttl, 'infinity'))
        RETURNING * INTO leased;
    EXCEPTION
        WHEN unique_violation THEN
            RAISE EXCEPTION '% already has a current lease', issue_lease.canonical
                USING ERRCODE = 'unique_violation', HINT = 'Extend it, or expire it first.';
        WHEN check_violation OR not_null_violation THEN
            RAISE EXCEPTION 'invalid address %: expected LOCAL@DOMAIN, or @DOMAIN for a catch-all',
                coalesce(quote_literal(issue_lease.canonical), 'null');
    END;
    RETURN leased;
END
$$;
COMMENT ON FUNCTION pipehandler.issue_lease(text, interval, text, bytea) IS
'For the functions that issue addresses. canonical: the address as pipehandler.canonical writes it. holder: the digest
of the key that it is for, null for one without a key.';

CREATE OR REPLACE FUNCTION pipehandler.lease_address(
    address text,
    ttl     interval DEFAULT NULL,
    label   text     DEFAULT NULL
) RETURNS pipehandler.address
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
    PERFORM pipehandler.secure_transaction();
    RETURN pipehandler.issue_lease(pipehandler.canonical(address), ttl, label, NULL);
END
$$;
COMMENT ON FUNCTION pipehandler.lease_address(text, interval, text) IS
'Issues an address: a new lease, for ttl from now on, or (null) forever. @domain is a catch-all: all addresses of the
domain that have no lease of their own. Raises unique_violation where the address has a current lease, PH004 where it is
one of a domain of the inbox page and pipehandler.keep_names_apart refuses it, PH003 on a shard where the address
belongs to another one, raise_exception for an invalid address.';

CREATE OR REPLACE FUNCTION pipehandler.random_name() RETURNS text
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- Eight syllables of six random bits each; the first six octets of a UUID version 4 are random.
    random_bytes CONSTANT bytea := uuid_send(gen_random_uuid());
BEGIN
    RETURN (SELECT string_agg(substr('bdfghjklmnprstvz', bits / 4 + 1, 1) || substr('aiou', bits % 4 + 1, 1)
                              || CASE WHEN n % 2 = 1 AND n < 7 THEN '.' ELSE '' END, '' ORDER BY n)
              FROM generate_series(0, 7) AS n,
                   LATERAL (SELECT sum(get_bit(random_bytes, n * 6 + b) << b)::integer AS bits
                              FROM generate_series(0, 5) AS b) AS syllable);
END
$$;
COMMENT ON FUNCTION pipehandler.random_name() IS
'A random local part that can be read aloud, such as bodu.kifa.ravo.timu, with 48 random bits.';

CREATE OR REPLACE FUNCTION pipehandler.lease_random_address(
    domain text,
    ttl    interval DEFAULT NULL,
    label  text     DEFAULT NULL
) RETURNS pipehandler.address
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    local text;
BEGIN
    IF strpos(domain, '@') > 0 THEN
        RAISE EXCEPTION 'invalid domain %: expected a name such as example.com', quote_literal(domain);
    END IF;
    LOOP
        local := pipehandler.random_name();
        -- One that no lease has or had.
        CONTINUE WHEN EXISTS (SELECT FROM pipehandler.address a
                               WHERE a.address COLLATE "C" = pipehandler.canonical(local || '@' || domain)
                                 AND NOT a.superseded)
                   OR NOT pipehandler.belongs_here(pipehandler.canonical(local || '@' || domain));
        RETURN pipehandler.lease_address(local || '@' || domain, ttl, label);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pipehandler.lease_random_address(text, interval, text) IS
'Issues a new address of a domain, such as bodu.kifa.ravo.timu@example.com: readable, with 48 random bits. Otherwise the
same as lease_address.';

CREATE OR REPLACE FUNCTION pipehandler.extend_lease(lease bigint, ttl interval DEFAULT NULL) RETURNS pipehandler.address
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    extended pipehandler.address;
BEGIN
    PERFORM pipehandler.secure_transaction();
    IF ttl <= interval '0' THEN
        RAISE EXCEPTION 'ttl must be positive, or null for a lease that never ends; got %', ttl;
    ELSIF isfinite(ttl) AND ttl > interval '1000 years' THEN -- clients cannot read a time after the year 9999
        RAISE EXCEPTION 'ttl must be at most 1000 years, or null for a lease that never ends; got %', ttl;
    END IF;
    UPDATE pipehandler.address a
       SET expires_at = CASE WHEN ttl IS NOT NULL AND a.expires_at IS NOT NULL
                             THEN nullif(greatest(a.expires_at, now() + ttl), 'infinity') END
     WHERE a.lease = extend_lease.lease AND NOT a.superseded
    RETURNING * INTO extended;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'lease % cannot be extended: it was removed, or its address was issued again', lease
            USING ERRCODE = 'no_data_found';
    END IF;
    RETURN extended;
END
$$;
COMMENT ON FUNCTION pipehandler.extend_lease(bigint, interval) IS
'Lets a lease last for ttl from now on, or (null) forever; never shorter than before. An expired lease comes back with
all its mail, unless the lease was removed or its address was issued again: then it raises no_data_found.';

CREATE OR REPLACE FUNCTION pipehandler.expire_lease(lease bigint) RETURNS pipehandler.address
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    expired pipehandler.address;
BEGIN
    PERFORM pipehandler.secure_transaction();
    -- Not before it began: another session may have created it after this transaction started.
    UPDATE pipehandler.address a
       SET expires_at = least(a.expires_at, greatest(a.created_at, now()))
     WHERE a.lease = expire_lease.lease
    RETURNING * INTO expired;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no lease %: it was removed', lease USING ERRCODE = 'no_data_found';
    END IF;
    RETURN expired;
END
$$;
COMMENT ON FUNCTION pipehandler.expire_lease(bigint) IS
'Ends a lease now: Postfix refuses its address, and the view inbox no longer shows its mail. Raises no_data_found
where there is no such lease.';

CREATE OR REPLACE FUNCTION pipehandler.find_lease(by_lease bigint DEFAULT NULL, by_address text DEFAULT NULL)
RETURNS TABLE (lease bigint, address text, label text, created_at timestamptz, expires_at timestamptz,
               deliveries bigint)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
BEGIN ATOMIC
    SELECT a.lease, a.address, a.label, a.created_at, a.expires_at,
           (SELECT count(*) FROM pipehandler.delivery d WHERE d.lease = a.lease)
      FROM pipehandler.address a
     WHERE a.lease = by_lease
        OR (a.address COLLATE "C" = pipehandler.canonical(by_address) AND NOT a.superseded);
END;
COMMENT ON FUNCTION pipehandler.find_lease(bigint, text) IS
'One lease, by its number or by its address, with the number of its deliveries: of an address the lease that it has
now or, without one, had last. For roles that may change leases and read no table. No row where there is none.';
