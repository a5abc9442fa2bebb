-- The rules of the inbox page: which addresses visitors may have, how much mail one takes, who is refused. They are
-- checked here and not by the page, because a page that was taken over calls the functions of 57_inbox.sql directly.
--
-- What has to happen one after the other locks rows or tables. Any role that can connect could take an advisory lock,
-- and keep it.
--
-- SQLSTATEs of our own: PH002 the inbox has ended; PH003 a name or a domain is refused; PH004 an address belongs to
-- another one; PH005 there are too many keys; PH006 the network is closed; PH007 the longest lifetime is reached; PH008
-- the content was not kept; PH009 there are as many inboxes as there may be.

CREATE OR REPLACE FUNCTION pipehandler.is_reserved_name(name text, more text[]) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT translate(is_reserved_name.name, '.-', '') IN (
               -- RFC 2142
               'info', 'marketing', 'sales', 'support', 'abuse', 'noc', 'security', 'postmaster', 'hostmaster',
               'usenet', 'news', 'webmaster', 'www', 'uucp', 'ftp',
               -- who may order a certificate for the domain, or once could
               'admin', 'administrator', 'root', 'sysadmin', 'ssladmin', 'ssladministrator', 'sslwebmaster', 'is',
               'it', 'mis',
               -- programs, and what a reader would take for the operator
               'mailerdaemon', 'daemon', 'bounce', 'bounces', 'nobody', 'noreply', 'donotreply', 'listserv',
               'majordomo', 'autoconfig', 'autodiscover', 'mail', 'mailadmin', 'mta', 'dmarc', 'tlsrpt', 'smtp', 'api',
               'billing', 'contact', 'help', 'helpdesk', 'hello', 'service', 'office', 'team', 'staff', 'owner',
               'operator', 'moderator', 'official', 'privacy', 'legal', 'dpo', 'gdpr', 'compliance', 'trust', 'cert',
               'csirt', 'pki', 'press', 'jobs', 'payments', 'invoice', 'accounts', 'system', 'test')
           OR is_reserved_name.name LIKE 'owner-%' OR is_reserved_name.name LIKE '%-request' -- RFC 2142 6
           OR translate(is_reserved_name.name, '.-', '') = ANY (
                  SELECT translate(lower(m.word COLLATE "C"), '.-', '') FROM unnest(more) AS m (word));
END;
COMMENT ON FUNCTION pipehandler.is_reserved_name(text, text[]) IS
'Whether no visitor may choose this local part, in lower case: names of roles (RFC 2142), names with which certificates
for a domain are ordered, others that a reader would take for the operator, and more. Dots and hyphens do not count.';

CREATE OR REPLACE FUNCTION pipehandler.keep_names_apart(canonical text, holder bytea) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    local      CONSTANT text := substring(canonical FROM '^(.*)@');
    its_domain CONSTANT text := substring(canonical FROM '@([^@]*)$');
    rules      pipehandler.web_domain;
    place      integer;
    base       text;
    digest     bytea;
    other      text;
    until      timestamptz;
BEGIN
    IF local = '' THEN
        LOCK TABLE pipehandler.web_domain IN SHARE MODE; -- no domain becomes one of the page meanwhile
    END IF;
    -- One after the other. Each statement from here on sees what the one before has committed.
    SELECT r.* INTO rules FROM pipehandler.web_domain r WHERE r.domain = its_domain FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF local = '' THEN
        RAISE EXCEPTION 'the inbox page issues addresses of %, so there is no catch-all for the rest of it', its_domain
            USING ERRCODE = 'PH004', HINT = 'Remove the domain from web.domains, and run pipehandler expire.';
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'addresses of % are issued in transactions that are READ COMMITTED, or two of them could '
                        'share mail', its_domain
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    SELECT min(strpos(local, c)) INTO place
      FROM unnest(string_to_array(rules.delimiter, NULL)) AS c
     WHERE strpos(local, c) > 1;
    base := coalesce(left(local, place - 1), local) || '@' || its_domain;
    digest := sha256(convert_to(base, 'UTF8'));

    -- Mail to anna+bank would go to anna, or the reverse.
    SELECT a.address INTO other
      FROM pipehandler.address a
     WHERE base <> canonical AND a.address COLLATE "C" = base AND NOT a.superseded
       AND (a.expires_at IS NULL OR a.expires_at > now());
    IF base = canonical THEN
        SELECT a.address INTO other
          FROM unnest(string_to_array(rules.delimiter, NULL)) AS c
          JOIN pipehandler.address a
            ON a.address COLLATE "C" >= local || c AND a.address COLLATE "C" < local || chr(ascii(c) + 1)
         WHERE NOT a.superseded AND (a.expires_at IS NULL OR a.expires_at > now())
           AND right(a.address, length(its_domain) + 1) = '@' || its_domain
         LIMIT 1;
    END IF;
    IF other IS NOT NULL THEN
        RAISE EXCEPTION '% and % would share mail, and % has a lease', canonical, other, other
            USING ERRCODE = 'PH004';
    END IF;

    -- The next holder would get what is meant for the former one, such as links that reset a password.
    SELECT max(h.until) INTO until
      FROM (SELECT least(now(), w.mail_until) + w.held AS until
              FROM pipehandler.web_inbox w
             WHERE w.address_digest = digest AND w.holder IS DISTINCT FROM keep_names_apart.holder
            UNION ALL
            SELECT t.held_until
              FROM pipehandler.web_tombstone t
             WHERE t.address_digest = digest AND t.holder IS DISTINCT FROM keep_names_apart.holder) AS h
     WHERE h.until > now();
    IF until IS NOT NULL THEN
        RAISE EXCEPTION '% belongs to a visitor of the inbox page, or did until recently', base
            USING ERRCODE = 'PH004', DETAIL = format('It goes to nobody else until %s or later.', until);
    END IF;
END
$$;
COMMENT ON FUNCTION pipehandler.keep_names_apart(text, bytea) IS
'For pipehandler.issue_lease. On a domain of the inbox page, raises PH004 where a lease of this address would share mail
with another lease (anna and anna+bank, in both directions), where it is a catch-all, and where it was that of a visitor
until recently, unless this is the holder (the digest of the key) to whom it belonged. Locks the row of the domain, or
for a catch-all the table web_domain, until the end of the transaction.';

CREATE OR REPLACE FUNCTION pipehandler.set_web_domains(
    rules jsonb,
    OUT changed boolean,
    OUT refused text[]
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    one  record;
    kept text[] := ARRAY[]::text[];
    same boolean;
BEGIN
    changed := false;
    refused := '{}';
    FOR one IN
        SELECT substring(pipehandler.canonical('@' || r.domain) FROM 2) AS domain, min(e.n) AS ordinal,
               min(make_interval(secs => r.max_ttl)) AS max_ttl, min(make_interval(secs => r.max_life)) AS max_life,
               min(make_interval(secs => r.grace)) AS grace, min(make_interval(secs => r.held)) AS held,
               min(r.delimiter) AS delimiter, min(r.reserved_names) AS reserved_names,
               min(r.max_messages) AS max_messages, min(r.max_octets) AS max_octets,
               min(r.max_opened_per_hour) AS max_opened_per_hour, min(r.max_inboxes) AS max_inboxes
          FROM jsonb_array_elements(set_web_domains.rules) WITH ORDINALITY AS e (rule, n),
               LATERAL jsonb_to_record(e.rule) AS r (
                   domain text, max_ttl float8, max_life float8, grace float8, held float8, delimiter text,
                   reserved_names text[], max_messages bigint, max_octets bigint, max_opened_per_hour bigint,
                   max_inboxes bigint)
         GROUP BY 1
         ORDER BY 1 -- the order of the locks
    LOOP
        same := EXISTS (SELECT FROM pipehandler.web_domain w
                         WHERE w.domain = one.domain
                           AND (w.ordinal, w.max_ttl, w.max_life, w.grace, w.held, w.delimiter, w.reserved_names,
                                w.max_messages, w.max_octets, w.max_opened_per_hour, w.max_inboxes)
                               IS NOT DISTINCT FROM (one.ordinal, one.max_ttl, one.max_life, one.grace, one.held,
                                                     one.delimiter, one.reserved_names, one.max_messages,
                                                     one.max_octets, one.max_opened_per_hour, one.max_inboxes));
        -- Only what changes something waits: expire calls this before it removes mail. No catch-all is issued from here
        -- on (keep_names_apart).
        IF NOT same THEN
            LOCK TABLE pipehandler.web_domain IN SHARE ROW EXCLUSIVE MODE;
        END IF;
        IF EXISTS (SELECT FROM pipehandler.address a
                    WHERE a.address COLLATE "C" = '@' || one.domain AND NOT a.superseded
                      AND (a.expires_at IS NULL OR a.expires_at > now())) THEN
            refused := refused || one.domain;
            CONTINUE;
        END IF;
        kept := kept || one.domain;
        CONTINUE WHEN same;
        INSERT INTO pipehandler.web_domain AS w (domain, ordinal, max_ttl, max_life, grace, held, delimiter,
                                                 reserved_names, max_messages, max_octets, max_opened_per_hour,
                                                 max_inboxes)
        VALUES (one.domain, one.ordinal, one.max_ttl, one.max_life, one.grace, one.held, one.delimiter,
                one.reserved_names, one.max_messages, one.max_octets, one.max_opened_per_hour, one.max_inboxes)
            ON CONFLICT (domain) DO UPDATE
           SET ordinal = excluded.ordinal, max_ttl = excluded.max_ttl, max_life = excluded.max_life,
               grace = excluded.grace, held = excluded.held, delimiter = excluded.delimiter,
               reserved_names = excluded.reserved_names, max_messages = excluded.max_messages,
               max_octets = excluded.max_octets, max_opened_per_hour = excluded.max_opened_per_hour,
               max_inboxes = excluded.max_inboxes;
        changed := true;
    END LOOP;
    IF EXISTS (SELECT FROM pipehandler.web_domain w WHERE w.domain <> ALL (kept)) THEN
        DELETE FROM pipehandler.web_domain w WHERE w.domain <> ALL (kept);
        changed := true;
    END IF;
END
$$;
COMMENT ON FUNCTION pipehandler.set_web_domains(jsonb) IS
'Replaces the rows of pipehandler.web_domain where they differ; returns whether they did. rules: an array of {"domain",
"max_ttl", "max_life", "grace", "held": seconds, "delimiter", "reserved_names", "max_messages", "max_octets",
"max_opened_per_hour", "max_inboxes"}. refused: the domains that have a catch-all lease, of which visitors get no
addresses. Leases that exist stay as they are.';

CREATE OR REPLACE FUNCTION pipehandler.require_room_for_inbox(rules pipehandler.web_domain) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_sort = off
AS $$
#variable_conflict use_column
DECLARE
    -- Each shard counts its own inboxes, and takes its share.
    shards CONSTANT integer := coalesce((SELECT s.shards FROM pipehandler.sharding s), 1);
    hourly CONSTANT bigint := ceil(rules.max_opened_per_hour::numeric / shards);
    most   CONSTANT bigint := ceil(rules.max_inboxes::numeric / shards);
    moment timestamptz;
    again  timestamptz;
BEGIN
    -- One after the other, so that transactions which do not see each other's inboxes cannot exceed a limit together.
    PERFORM FROM pipehandler.web_domain w ORDER BY w.domain FOR NO KEY UPDATE;
    moment := clock_timestamp(); -- not when the transaction began, which its client decides
    SELECT w.opened_at + interval '1 hour' INTO again
      FROM pipehandler.web_inbox w
     WHERE w.domain = rules.domain AND w.opened_at > moment - interval '1 hour'
     ORDER BY w.opened_at DESC
    OFFSET hourly - 1
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'as many inboxes of % were opened within an hour as may be: %', rules.domain,
                        hourly
            USING ERRCODE = 'PH009', CONSTRAINT = 'domain_opened_per_hour',
                  DETAIL = ceil(extract(epoch FROM again - moment));
    END IF;
    SELECT w.mail_until INTO again
      FROM pipehandler.web_inbox w
     WHERE w.mail_until > moment
     ORDER BY w.mail_until DESC
    OFFSET most - 1
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'there are as many inboxes as may be: %', most
            USING ERRCODE = 'PH009', CONSTRAINT = 'max_inboxes', DETAIL = ceil(extract(epoch FROM again - moment));
    END IF;
END
$$;
COMMENT ON FUNCTION pipehandler.require_room_for_inbox(pipehandler.web_domain) IS
'For pipehandler.open_inbox. Raises PH009 where a domain was given out web_domain.max_opened_per_hour times within an
hour, or where there are web_domain.max_inboxes inboxes, those included that can be brought back; CONSTRAINT is the key
in [web], DETAIL the seconds after which there may be room. Of several shards, each has its share of both numbers,
rounded up. Locks the rows of web_domain until the end of the transaction.';

CREATE OR REPLACE FUNCTION pipehandler.mail_of_lease(
    lease        bigint,
    most         bigint,
    with_expired boolean,
    OUT deliveries bigint,
    OUT octets     bigint
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    days     date[];
    messages uuid[];
    each_day date[];
BEGIN
    SELECT array_agg(o.day), array_agg(o.message) INTO days, messages
      FROM (SELECT d.day, d.message
              FROM pipehandler.delivery d
             WHERE d.lease = mail_of_lease.lease
               AND (with_expired OR d.expires_at IS NULL OR d.expires_at > now())
             LIMIT most) AS o;
    each_day := ARRAY(SELECT DISTINCT k.day FROM unnest(days) AS k (day));
    SELECT count(*), coalesce(sum(m.size), 0) INTO deliveries, octets
      FROM unnest(days, messages) AS k (day, id)
      JOIN pipehandler.message m ON m.day = k.day AND m.id = k.id
     WHERE m.day = ANY (each_day);
END
$$;
COMMENT ON FUNCTION pipehandler.mail_of_lease(bigint, bigint, boolean) IS
'How many deliveries a lease has, and how large their messages are, counting up to most of them. with_expired: also
those that have expired by themselves.';

CREATE OR REPLACE FUNCTION pipehandler.inbox_is_full(lease bigint) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    quota record;
BEGIN
    SELECT w.max_messages, w.max_octets INTO quota FROM pipehandler.web_inbox w WHERE w.lease = inbox_is_full.lease;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    -- Octets are not counted any more where there are too many messages.
    RETURN (SELECT u.deliveries >= quota.max_messages OR u.octets >= quota.max_octets
              FROM pipehandler.mail_of_lease(inbox_is_full.lease, quota.max_messages, true) AS u);
END
$$;
COMMENT ON FUNCTION pipehandler.inbox_is_full(bigint) IS
'Whether a lease is an inbox of the inbox page that has as much mail as it may (web_inbox.max_messages and max_octets).
Counts its mail: it has no counter, for which simultaneous deliveries would wait.';

CREATE OR REPLACE FUNCTION pipehandler.grant_view(
    digest bytea,
    lease  bigint,
    label  text,
    ttl    interval DEFAULT NULL
) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
    PERFORM pipehandler.secure_transaction();
    IF coalesce(label, '') = '' OR ttl <= interval '0' THEN
        RAISE EXCEPTION 'a viewer''s key needs a label, by which it is revoked, and a ttl that is positive or null'
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    -- A key to mail that is on every shard is on every shard as well.
    IF NOT pipehandler.key_belongs_here(digest)
       AND EXISTS (SELECT FROM pipehandler.address a WHERE a.lease = grant_view.lease AND a.address NOT LIKE '@%') THEN
        RAISE EXCEPTION 'this key belongs to another shard' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO pipehandler.capability (digest, lease, kind, label, expires_at)
    VALUES (grant_view.digest, grant_view.lease, 'viewer', grant_view.label, now() + ttl);
EXCEPTION WHEN foreign_key_violation THEN
    RAISE EXCEPTION 'there is no lease %: it was removed', lease USING ERRCODE = 'no_data_found';
END
$$;
COMMENT ON FUNCTION pipehandler.grant_view(bytea, bigint, text, interval) IS
'Stores a key that reads the mail of one lease, or (null) all mail, for ttl from now on, or (null) until it is revoked.
digest: SHA-256 of the key, so that the key is in no log of the server. Of several shards, a key to all mail or to a
catch-all has to be stored on each, another one where its lease is, whose shard its digest has to name
(pipehandler.key_belongs_here). Raises no_data_found where there is no such lease.';

CREATE OR REPLACE FUNCTION pipehandler.revoke_view(label text) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    revoked bigint;
BEGIN
    PERFORM pipehandler.secure_transaction();
    DELETE FROM pipehandler.capability c WHERE c.kind = 'viewer' AND c.label COLLATE "C" = revoke_view.label;
    GET DIAGNOSTICS revoked = ROW_COUNT;
    RETURN revoked;
END
$$;
COMMENT ON FUNCTION pipehandler.revoke_view(text) IS
'Removes the viewers'' keys with this label; returns how many there were.';

CREATE OR REPLACE FUNCTION pipehandler.close_inbox(lease bigint) RETURNS pipehandler.address
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    closed pipehandler.address;
BEGIN
    closed := pipehandler.expire_lease(lease);
    UPDATE pipehandler.web_inbox w SET holder = NULL WHERE w.lease = close_inbox.lease;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'lease % was not opened on the inbox page; use pipehandler address expire, or remove', lease
            USING ERRCODE = 'no_data_found';
    END IF;
    DELETE FROM pipehandler.capability c WHERE c.lease = close_inbox.lease AND c.kind <> 'viewer';
    RETURN closed;
END
$$;
COMMENT ON FUNCTION pipehandler.close_inbox(bigint) IS
'Ends a visitor''s inbox against their will: the lease, the keys of the visitor, and the right to get the address back.
Its mail stays, hidden, until its time of grace ends. Raises no_data_found where there is no such inbox.';

CREATE OR REPLACE FUNCTION pipehandler.close_network(
    network cidr,
    ttl     interval DEFAULT NULL,
    label   text     DEFAULT NULL,
    inboxes boolean  DEFAULT false
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
#variable_conflict use_column
BEGIN
    PERFORM pipehandler.secure_transaction();
    INSERT INTO pipehandler.web_closed_network (network, label, expires_at)
    VALUES (close_network.network, close_network.label, now() + ttl)
        ON CONFLICT (network) DO UPDATE
       SET label = excluded.label, closed_at = excluded.closed_at, expires_at = excluded.expires_at;
    IF NOT inboxes THEN
        RETURN 0;
    END IF;
    RETURN (SELECT count(pipehandler.close_inbox(w.lease))
              FROM (SELECT i.lease
                      FROM pipehandler.web_inbox i
                      JOIN pipehandler.address a ON a.lease = i.lease
                     WHERE i.network <<= close_network.network AND a.expires_at > now()
                     ORDER BY i.lease) AS w);
END
$$;
COMMENT ON FUNCTION pipehandler.close_network(cidr, interval, text, boolean) IS
'No visitor from this network opens an inbox for ttl, or (null) until pipehandler.reopen_network. inboxes: also closes
those that were opened from there and have not ended; returns how many.';

CREATE OR REPLACE FUNCTION pipehandler.reopen_network(network cidr) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
    PERFORM pipehandler.secure_transaction();
    DELETE FROM pipehandler.web_closed_network c WHERE c.network = reopen_network.network;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION pipehandler.reopen_network(cidr) IS
'Takes back pipehandler.close_network; returns whether the network was closed. Inboxes that were closed stay closed.';

CREATE OR REPLACE FUNCTION pipehandler.remove_ended_keys() RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
    DELETE FROM pipehandler.capability c WHERE c.expires_at <= now();
    DELETE FROM pipehandler.web_tombstone t WHERE t.held_until <= now();
    DELETE FROM pipehandler.web_closed_network n WHERE n.expires_at <= now();
END
$$;
COMMENT ON FUNCTION pipehandler.remove_ended_keys() IS
'For pipehandler.remove_leases: removes keys, tombstones and closed networks whose time has ended.';
