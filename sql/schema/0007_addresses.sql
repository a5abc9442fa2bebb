-- Recipient addresses with a lifetime. A lease is one period of one address; when the address is given out again, the old lease is
-- superseded: it cannot come back, and shows nothing to its successor.

-- Case is folded as Postfix folds what it looks up, whatever the locale of the database.
DO $$
DECLARE
    chosen text := (SELECT c.collname
                      FROM unnest(ARRAY['pg_c_utf8', 'C.utf8', 'C.UTF-8', 'und-x-icu']) WITH ORDINALITY AS wanted (name, rank)
                      JOIN pg_collation c ON c.collname = wanted.name AND c.collnamespace = 'pg_catalog'::regnamespace
                                         AND c.collencoding IN (-1, pg_char_to_encoding(getdatabaseencoding()))
                     ORDER BY wanted.rank
                     LIMIT 1);
BEGIN
    IF chosen IS NULL THEN
        RAISE NOTICE 'this server has no collation for Unicode: in addresses only ASCII letters are the same in either case';
    END IF;
    EXECUTE format('CREATE COLLATION pipehandler.folding FROM pg_catalog.%I', coalesce(chosen, 'C'));
END
$$;
COMMENT ON COLLATION pipehandler.folding IS 'Which letters of addresses are the same in either case.';

-- RFC 3492 6.2, with the names and the parameters of its section 5.
CREATE FUNCTION pipehandler.u_label(label text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    encoded CONSTANT text    := substring(label FROM '^xn--(?:[ -~]*-)?([a-z0-9]+)$');
    output  text[]           := string_to_array(coalesce(substring(label FROM '^xn--(.*)-'), ''), NULL);
    n       integer          := 128;
    i       bigint           := 0;
    bias    integer          := 72;
    place   integer          := 1;
    old     bigint;
    weight  bigint;
    k       integer;
    t       integer;
    digit   integer;
BEGIN
    IF encoded IS NULL THEN
        RETURN label;
    END IF;
    WHILE place <= length(encoded) LOOP
        old := i;
        weight := 1;
        k := 36;
        LOOP
            IF place > length(encoded) THEN
                RETURN label;
            END IF;
            digit := strpos('abcdefghijklmnopqrstuvwxyz0123456789', substring(encoded FROM place FOR 1)) - 1;
            place := place + 1;
            i := i + digit * weight;
            t := least(greatest(k - bias, 1), 26);
            EXIT WHEN digit < t;
            weight := weight * (36 - t);
            k := k + 36;
        END LOOP;
        bias := (i - old) / CASE old WHEN 0 THEN 700 ELSE 2 END;
        bias := bias + bias / (cardinality(output) + 1);
        k := 0;
        WHILE bias > 455 LOOP
            bias := bias / 35;
            k := k + 36;
        END LOOP;
        bias := k + 36 * bias / (bias + 38);
        n := n + i / (cardinality(output) + 1);
        i := i % (cardinality(output) + 1);
        output := output[:i::integer] || chr(n) || output[i::integer + 1:];
        i := i + 1;
    END LOOP;
    RETURN array_to_string(output, '');
EXCEPTION WHEN numeric_value_out_of_range OR program_limit_exceeded OR invalid_parameter_value THEN -- no code point
    RETURN label;
END
$$;
COMMENT ON FUNCTION pipehandler.u_label(text) IS
'The U-label of an A-label in lower case (RFC 5890 2.3.2.1), such as bücher for xn--bcher-kva; what is none comes back as it is.';

CREATE FUNCTION pipehandler.canonical(address text) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    folded text := lower(address COLLATE "C");
BEGIN
    IF folded ~ '[@.]xn--[^@]*$' THEN
        folded := substring(folded FROM '^.*@')
                  || (SELECT string_agg(CASE WHEN label LIKE 'xn--%' THEN pipehandler.u_label(label) ELSE label END, '.' ORDER BY n)
                        FROM string_to_table(substring(folded FROM '[^@]*$'), '.') WITH ORDINALITY AS l (label, n));
    END IF;
    IF octet_length(folded) > length(folded) THEN
        -- What Postfix asks for is folded already (Unicode's full case folding), what it delivers is not: both must come to the
        -- same. NFKC knows most of what folding does beyond lower case; here is the rest.
        folded := lower(normalize(folded, NFKD) COLLATE pipehandler.folding);
        folded := normalize(replace(translate(folded, U&'\03C2\0345\1C80\1C81\1C82\1C83\1C84\1C85\1C86\1C87\1C88', 'σιвдосттъѣꙋ'), 'ß', 'ss'), NFKC);
    END IF;
    RETURN folded;
END
$$;
COMMENT ON FUNCTION pipehandler.canonical(text) IS
'The form in which addresses are compared: in lower case, the local part too, as Postfix looks them up (RFC 5321 2.4 leaves it to
the host); internationalised domains as U-labels (RFC 5890 2.3.2.1); Unicode in NFKC with its case folded (Unicode 5.18.4).';

ALTER TABLE pipehandler.address
    ADD COLUMN superseded boolean NOT NULL DEFAULT false,
    DROP CONSTRAINT address_period,
    ADD CONSTRAINT address_period CHECK (expires_at >= created_at);
UPDATE pipehandler.address SET address = pipehandler.canonical(address);
UPDATE pipehandler.address a
   SET superseded = true
 WHERE EXISTS (SELECT FROM pipehandler.address b WHERE b.address = a.address AND b.lease > a.lease);
ALTER TABLE pipehandler.address
    ADD CONSTRAINT address_form CHECK (address ~ '^[^[:cntrl:]]*@[^@[:cntrl:][:space:]]+$' AND octet_length(address) <= 998);
DROP INDEX pipehandler.address_address;
CREATE UNIQUE INDEX address_current ON pipehandler.address (address) WHERE NOT superseded;
CREATE INDEX address_expires_at ON pipehandler.address (expires_at) WHERE expires_at IS NOT NULL;
COMMENT ON COLUMN pipehandler.address.address IS 'The recipient address, as pipehandler.canonical writes it; @domain is a catch-all.';
COMMENT ON COLUMN pipehandler.address.superseded IS 'The address was given out again: this lease cannot be extended any more.';

-- The lease is a part of what makes a delivery unique: what the old holder of an address got is no duplicate for the new one.
ALTER TABLE pipehandler.delivery
    DROP CONSTRAINT delivery_once,
    ADD COLUMN extension text;
CREATE UNIQUE INDEX delivery_once ON pipehandler.delivery (recipient, fingerprint, coalesce(lease, 0));
COMMENT ON COLUMN pipehandler.delivery.extension IS 'What stands behind the delimiter in the local part of recipient (user+extension@domain, RFC 5233), unless the whole address has a lease of its own.';
COMMENT ON COLUMN pipehandler.delivery.lease IS 'The lease of the recipient address that this delivery belongs to; null: nobody''s. It is gone from the view inbox when its lease expires.';

CREATE FUNCTION pipehandler.lease_of(recipient text, delimiter text DEFAULT '+')
RETURNS TABLE (lease bigint, expires_at timestamptz, extension text)
LANGUAGE sql STABLE
AS $$
    WITH cut AS (
        SELECT part.domain, left(part.local, place - 1) || part.domain AS base,
               -- As split_addr(3) of Postfix: nothing before the delimiter is no address, and some names are not split.
               CASE WHEN place > 1 AND NOT (strpos(delimiter, '-') > 0
                                            AND part.local ~* '^(owner-.*|.+-request|mailer-daemon|double-bounce)$')
                    THEN substring(part.local FROM place + 1) END AS extension
          FROM (SELECT substring(lease_of.recipient FROM '^(.*)@') AS local,
                       substring(lease_of.recipient FROM '@[^@]*$') AS domain) AS part,
               strpos(translate(part.local, delimiter, repeat(left(delimiter, 1), length(delimiter))), left(delimiter, 1)) AS place
    )
    SELECT found.lease, found.expires_at, CASE WHEN found.rank IS DISTINCT FROM 1 THEN cut.extension END
      FROM cut LEFT JOIN LATERAL (
               SELECT a.lease, a.expires_at, wanted.rank
                 FROM (VALUES (1, lease_of.recipient),
                              (2, CASE WHEN cut.extension IS NOT NULL THEN cut.base END),
                              (3, cut.domain)) AS wanted (rank, address)
                 JOIN pipehandler.address a ON a.address = pipehandler.canonical(wanted.address) AND NOT a.superseded
                ORDER BY coalesce(a.expires_at <= now(), false), wanted.rank
                LIMIT 1) AS found ON true
$$;
COMMENT ON FUNCTION pipehandler.lease_of(text, text) IS
'Whose mail to a recipient is: the lease of the whole address, else of the address without its extension, else of @domain, as
Postfix looks up virtual_mailbox_maps; one that has expired only where none lives. delimiter: the characters that may begin an extension
(recipient_delimiter of Postfix), empty for none. One row; lease is null where there is none.';

-- Postfix asks at RCPT TO. Before 3.8 it tells the server that it speaks LATIN1, and sends the bytes of UTF-8.
CREATE FUNCTION pipehandler.lookup(address text, delimiter text DEFAULT '+') RETURNS SETOF text
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
    -- No row, because Postfix logs a warning for each null.
    RETURN QUERY SELECT 'OK' FROM pipehandler.lease_of(recipient, delimiter) AS l
                  WHERE l.lease IS NOT NULL AND (l.expires_at IS NULL OR l.expires_at > now());
EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN -- no UTF-8: nobody's
    RETURN;
END
$$;
COMMENT ON FUNCTION pipehandler.lookup(text, text) IS
'For Postfix''s virtual_mailbox_maps: OK where mail to this address is somebody''s now, else no row. delimiter: as for lease_of.';

CREATE FUNCTION pipehandler.lease_address(address text, ttl interval DEFAULT NULL, label text DEFAULT NULL)
RETURNS pipehandler.address
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    wanted CONSTANT text := pipehandler.canonical(lease_address.address);
    given  pipehandler.address;
BEGIN
    IF ttl <= interval '0' THEN
        RAISE EXCEPTION 'a lease of % is none; a ttl is longer than 0, or null for ever', ttl;
    END IF;
    UPDATE pipehandler.address a SET superseded = true WHERE a.address = wanted AND NOT a.superseded AND a.expires_at <= now();
    INSERT INTO pipehandler.address (address, label, expires_at)
    VALUES (wanted, lease_address.label, nullif(now() + ttl, 'infinity'))
    RETURNING * INTO given;
    RETURN given;
EXCEPTION
    WHEN unique_violation THEN
        RAISE EXCEPTION '% is given out already', wanted
            USING ERRCODE = 'unique_violation', HINT = 'Extend its lease, or expire it first.';
    WHEN check_violation OR not_null_violation THEN
        RAISE EXCEPTION '% is no address; expected LOCAL@DOMAIN, or @DOMAIN for a catch-all', coalesce(quote_literal(wanted), 'null');
END
$$;
COMMENT ON FUNCTION pipehandler.lease_address(text, interval, text) IS
'Gives an address out, for ttl from now on or (null) for ever: a new lease. @domain is a catch-all: all addresses of the domain that
have no lease of their own. Raises unique_violation where it is given out already, raise_exception for what is no address.';

CREATE FUNCTION pipehandler.lease_random_address(domain text, ttl interval DEFAULT NULL, label text DEFAULT NULL)
RETURNS pipehandler.address
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    noise bytea;
    local text;
BEGIN
    IF strpos(domain, '@') > 0 THEN
        RAISE EXCEPTION '% is no domain; expected a name such as example.com', quote_literal(domain);
    END IF;
    LOOP
        -- Eight syllables of six random bits each; the first six octets of a UUID version 4 are random.
        noise := uuid_send(gen_random_uuid());
        SELECT string_agg(substr('bdfghjklmnprstvz', bits / 4 + 1, 1) || substr('aiou', bits % 4 + 1, 1)
                          || CASE WHEN n % 2 = 1 AND n < 7 THEN '.' ELSE '' END, '' ORDER BY n)
          INTO local
          FROM generate_series(0, 7) AS n,
               LATERAL (SELECT sum(get_bit(noise, n * 6 + b) << b)::integer AS bits FROM generate_series(0, 5) AS b) AS taken;
        -- One that nobody has or had.
        CONTINUE WHEN EXISTS (SELECT FROM pipehandler.address a
                               WHERE a.address = pipehandler.canonical(local || '@' || domain) AND NOT a.superseded);
        RETURN pipehandler.lease_address(local || '@' || domain, ttl, label);
    END LOOP;
END
$$;
COMMENT ON FUNCTION pipehandler.lease_random_address(text, interval, text) IS
'Gives out a new address of a domain, such as bodu.kifa.ravo.timu@example.com: readable, with 48 random bits. Otherwise as lease_address.';

CREATE FUNCTION pipehandler.extend_lease(lease bigint, ttl interval DEFAULT NULL) RETURNS pipehandler.address
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    given pipehandler.address;
BEGIN
    IF ttl <= interval '0' THEN
        RAISE EXCEPTION 'a lease cannot be extended by %; a ttl is longer than 0, or null for ever', ttl;
    END IF;
    UPDATE pipehandler.address a
       SET expires_at = CASE WHEN ttl IS NOT NULL AND a.expires_at IS NOT NULL
                             THEN nullif(greatest(a.expires_at, now() + ttl), 'infinity') END
     WHERE a.lease = extend_lease.lease AND NOT a.superseded
    RETURNING * INTO given;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no lease % that could be extended: it was removed, or its address was given out again', lease
            USING ERRCODE = 'no_data_found';
    END IF;
    RETURN given;
END
$$;
COMMENT ON FUNCTION pipehandler.extend_lease(bigint, interval) IS
'Lets a lease last for ttl from now on, or (null) for ever; never shorter than before. One that has expired comes back with all its
mail, as long as neither it was removed nor its address given out again: then it raises no_data_found.';

CREATE FUNCTION pipehandler.expire_lease(lease bigint) RETURNS pipehandler.address
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    given pipehandler.address;
BEGIN
    -- Not before it began: somebody else may have made it after this transaction started.
    UPDATE pipehandler.address a SET expires_at = least(a.expires_at, greatest(a.created_at, now())) WHERE a.lease = expire_lease.lease
    RETURNING * INTO given;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no lease %: it was removed', lease USING ERRCODE = 'no_data_found';
    END IF;
    RETURN given;
END
$$;
COMMENT ON FUNCTION pipehandler.expire_lease(bigint) IS
'Ends a lease now: its address is refused, and its mail is gone from the view inbox. Raises no_data_found where it is not there.';

DO $$
DECLARE
    name    text;
    purpose text;
BEGIN
    FOR name, purpose IN VALUES
        ('pipehandler_lookup', 'Postfix at RCPT TO: may call pipehandler.lookup and read or change nothing.'),
        ('pipehandler_lessor', 'Applications that give addresses out: may call the functions of the pool and read or change nothing.')
    LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', name);
                EXECUTE format('COMMENT ON ROLE %I IS %L', name, purpose);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;
            END;
        END IF;
    END LOOP;
END
$$;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA pipehandler FROM PUBLIC;
GRANT USAGE ON SCHEMA pipehandler TO pipehandler_lookup, pipehandler_lessor;
GRANT EXECUTE ON FUNCTION pipehandler.lookup TO pipehandler_lookup;
GRANT EXECUTE ON FUNCTION pipehandler.lease_address, pipehandler.lease_random_address, pipehandler.extend_lease, pipehandler.expire_lease
   TO pipehandler_lessor, pipehandler_upkeep;
GRANT EXECUTE ON FUNCTION pipehandler.u_label, pipehandler.canonical, pipehandler.lease_of TO pipehandler_reader, pipehandler_upkeep;
