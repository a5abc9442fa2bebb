-- What the inbox page may do: every function takes a key, and reaches what that key opens. The role pipehandler_web
-- calls these and reads no table. The database stores the SHA-256 of a key, which is enough for 256 random bits.
--
-- A delivery of another inbox and one that does not exist are the same to a caller, and so are keys that were removed,
-- revoked or never issued. For the SQLSTATEs see 56_inbox_rules.sql; for search_path and enable_seqscan,
-- 10_addresses.sql.

CREATE OR REPLACE FUNCTION pipehandler.usable_key(key bytea)
RETURNS TABLE (capability pipehandler.capability, lease_ends timestamptz)
LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT c, a.expires_at
      FROM pipehandler.capability c
      LEFT JOIN pipehandler.address a ON a.lease = c.lease
      LEFT JOIN pipehandler.web_inbox w ON w.lease = c.lease
     WHERE c.digest = sha256(usable_key.key) AND (c.expires_at IS NULL OR c.expires_at > now())
       -- A lease that no visitor opened: as long as it can be extended for certain (pipehandler.remove_leases).
       AND coalesce(CASE WHEN w.lease IS NULL THEN a.expires_at + interval '120 hours' ELSE w.mail_until END > now(),
                    true);
END;
COMMENT ON FUNCTION pipehandler.usable_key(bytea) IS
'For the functions of the inbox page: the row of a key, and when its lease ends (null: never). No row where the key
opens nothing: it is unknown, was removed, revoked, has expired, or the time of grace of its inbox has ended.';

CREATE OR REPLACE FUNCTION pipehandler.admit(
    key      bytea,
    as_owner boolean DEFAULT false,
    ended    boolean DEFAULT false
) RETURNS pipehandler.capability
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    admitted pipehandler.capability;
    until    timestamptz;
BEGIN
    SELECT (u.capability).*, u.lease_ends
      INTO admitted.digest, admitted.lease, admitted.kind, admitted.label, admitted.created_at, admitted.expires_at,
           until
      FROM pipehandler.usable_key(key) AS u;
    IF admitted.digest IS NULL OR as_owner AND admitted.kind <> 'owner' THEN
        RAISE EXCEPTION 'this key opens no inbox' USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF until <= now() AND NOT ended THEN
        RAISE EXCEPTION 'this inbox has ended' USING ERRCODE = 'PH002', HINT = 'Extend it.';
    END IF;
    RETURN admitted;
END
$$;
COMMENT ON FUNCTION pipehandler.admit(bytea, boolean, boolean) IS
'For the functions of the inbox page: what a key opens. as_owner: only the key of the owner counts. ended: an inbox in
its time of grace counts, too. Raises insufficient_privilege for a key that opens nothing, PH002 where the inbox has
ended.';

CREATE OR REPLACE FUNCTION pipehandler.inboxes_of(keys bytea[])
RETURNS TABLE (
    place        bigint,
    lease        bigint,
    address      text,
    label        text,
    created_at   timestamptz,
    expires_at   timestamptz,
    grace_until  timestamptz,
    life_until   timestamptz,
    kind         text,
    deliveries   bigint,
    octets       bigint,
    max_messages bigint,
    max_octets   bigint,
    cursor       text,
    state        text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
AS $$
#variable_conflict use_column
DECLARE
    newest CONSTANT text := pipehandler.cursor_now();
BEGIN
    RETURN QUERY
        SELECT k.place, c.lease, a.address, coalesce(c.label, a.label), coalesce(a.created_at, c.created_at),
               least(a.expires_at, c.expires_at),
               CASE WHEN w.lease IS NULL THEN a.expires_at + interval '120 hours' ELSE w.mail_until END,
               CASE WHEN c.kind = 'owner'
                    THEN a.created_at + (SELECT r.max_life FROM pipehandler.web_domain r
                                          WHERE r.domain = substring(a.address FROM '@([^@]*)$')) END,
               c.kind, used.deliveries, used.octets, w.max_messages, w.max_octets, newest,
               CASE WHEN a.expires_at <= now() THEN 'expired' ELSE 'active' END
          FROM unnest(keys) WITH ORDINALITY AS k (key, place)
         CROSS JOIN LATERAL (
                   SELECT (u.capability).lease, (u.capability).kind, (u.capability).label, (u.capability).created_at,
                          (u.capability).expires_at
                     FROM pipehandler.usable_key(k.key) AS u
                   OFFSET 0) AS c
          LEFT JOIN pipehandler.address a ON a.lease = c.lease
          LEFT JOIN pipehandler.web_inbox w ON w.lease = c.lease
          LEFT JOIN LATERAL (
                   -- What a page shows. Of a great many, that they are at least so many is enough.
                   SELECT u.deliveries, u.octets
                     FROM pipehandler.mail_of_lease(c.lease, 10000, false) AS u) AS used ON c.lease IS NOT NULL
         ORDER BY k.place;
END
$$;
COMMENT ON FUNCTION pipehandler.inboxes_of(bytea[]) IS
'The inboxes that keys open, by their places in the array: the lease and its address (null: all mail), until when the
key reads it, until when it can be brought back (grace_until), how long its owner can make it last (life_until), the
kind of the key, how much mail it has (at most 10,000 are counted) and may have, pipehandler.cursor_now() and the state:
active, or expired. No row for a key that opens nothing. Open streams ask after a notification of the channel
pipehandler_inbox.';

CREATE OR REPLACE FUNCTION pipehandler.inbox_of(key bytea)
RETURNS TABLE (
    lease        bigint,
    address      text,
    label        text,
    created_at   timestamptz,
    expires_at   timestamptz,
    grace_until  timestamptz,
    life_until   timestamptz,
    kind         text,
    deliveries   bigint,
    octets       bigint,
    max_messages bigint,
    max_octets   bigint,
    cursor       text,
    state        text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
#variable_conflict use_column
BEGIN
    PERFORM pipehandler.admit(key, ended => true);
    RETURN QUERY
        SELECT i.lease, i.address, i.label, i.created_at, i.expires_at, i.grace_until, i.life_until, i.kind,
               i.deliveries, i.octets, i.max_messages, i.max_octets, i.cursor, i.state
          FROM pipehandler.inboxes_of(ARRAY[key]) AS i;
END
$$;
COMMENT ON FUNCTION pipehandler.inbox_of(bytea) IS
'The same of one key. Raises insufficient_privilege for a key that opens nothing.';

CREATE OR REPLACE FUNCTION pipehandler.open_inbox(
    key    bytea,
    domain text,
    name   text,
    ttl    interval,
    label  text DEFAULT NULL,
    client inet DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    key_digest CONSTANT bytea := sha256(key);
    rules      pipehandler.web_domain;
    local      text := lower(name COLLATE "C");
    leased     pipehandler.address;
BEGIN
    PERFORM pipehandler.secure_transaction();
    IF octet_length(key) = 32 IS NOT TRUE THEN
        RAISE EXCEPTION 'a key has 32 octets' USING ERRCODE = 'invalid_parameter_value';
    ELSIF NOT pipehandler.key_belongs_here(key_digest) THEN
        RAISE EXCEPTION 'this key belongs to another shard' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF EXISTS (SELECT FROM pipehandler.web_closed_network n
                WHERE n.network >>= client AND (n.expires_at IS NULL OR n.expires_at > now())) THEN
        RAISE EXCEPTION 'this network may not open inboxes' USING ERRCODE = 'PH006';
    END IF;
    SELECT r.* INTO rules
      FROM pipehandler.web_domain r
     WHERE r.domain = substring(pipehandler.canonical('@' || open_inbox.domain) FROM 2);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there are no addresses of %', quote_nullable(left(domain, 100)) USING ERRCODE = 'PH003';
    END IF;
    IF (ttl > interval '0' AND ttl <= rules.max_ttl) IS NOT TRUE THEN
        RAISE EXCEPTION 'ttl must be positive and at most %; got %', rules.max_ttl, ttl
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF local IS NOT NULL
       AND (local !~ '^[a-z0-9]([a-z0-9.-]{0,30}[a-z0-9])?$' OR strpos(local, '..') > 0
            OR translate(local, rules.delimiter, '') <> local
            OR pipehandler.is_reserved_name(local, rules.reserved_names)) THEN
        RAISE EXCEPTION 'the name % is not free to choose', quote_literal(left(name, 100)) USING ERRCODE = 'PH003';
    END IF;

    -- Its inbox can still be brought back, or was not removed yet.
    DELETE FROM pipehandler.capability c
     USING pipehandler.web_inbox w
     WHERE c.digest = key_digest AND c.kind = 'owner' AND w.lease = c.lease AND w.mail_until <= now();
    IF EXISTS (SELECT FROM pipehandler.capability c WHERE c.digest = key_digest) THEN
        RAISE EXCEPTION 'this key opens another inbox already' USING ERRCODE = 'PH004';
    END IF;
    PERFORM pipehandler.require_room_for_inbox(rules);

    LOOP
        local := coalesce(local, pipehandler.random_name());
        EXIT WHEN name IS NOT NULL
               OR pipehandler.belongs_here(local || '@' || rules.domain)
                  AND NOT EXISTS (SELECT FROM pipehandler.address a
                                   WHERE a.address COLLATE "C" = local || '@' || rules.domain AND NOT a.superseded);
        local := NULL;
    END LOOP;
    leased := pipehandler.issue_lease(local || '@' || rules.domain, least(ttl, rules.max_life), left(label, 200),
                                      key_digest);
    INSERT INTO pipehandler.web_inbox (lease, domain, opened_at, address_digest, holder, network, grace, held,
                                       mail_until, max_messages, max_octets)
    VALUES (leased.lease, rules.domain, clock_timestamp(), sha256(convert_to(leased.address, 'UTF8')), key_digest,
            set_masklen(client::cidr, CASE family(client) WHEN 6 THEN 64 ELSE 32 END), rules.grace, rules.held,
            leased.expires_at + rules.grace, rules.max_messages, rules.max_octets);
    INSERT INTO pipehandler.capability (digest, lease, kind) VALUES (key_digest, leased.lease, 'owner');
    RETURN leased.lease;
EXCEPTION WHEN unique_violation THEN
    RAISE EXCEPTION '% has a lease', quote_literal(left(name, 100)) USING ERRCODE = 'PH004';
END
$$;
COMMENT ON FUNCTION pipehandler.open_inbox(bytea, text, text, interval, text, inet) IS
'Opens an inbox for a new key of 32 random octets, which becomes its owner''s: leases an address of a domain in
pipehandler.web_domain, for ttl. name: the local part that the visitor chose, of ASCII letters, digits, dot and hyphen;
null for a random one. client: the address of the visitor. A visitor whose inbox has ended, or who has removed it, gets
the address back with the same key. Returns the lease. Raises PH003 for a domain or a name that visitors do not get,
PH004 where the address or the key is in use or was until recently, PH006 where the network is closed, PH009 where
there are as many inboxes as may be (pipehandler.require_room_for_inbox), invalid_parameter_value for a ttl, or a key of
another size or another shard (pipehandler.key_belongs_here).';

CREATE OR REPLACE FUNCTION pipehandler.inbox_domains()
RETURNS TABLE (domain text, max_ttl interval, max_life interval, grace interval)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT r.domain, r.max_ttl, r.max_life, r.grace FROM pipehandler.web_domain r ORDER BY r.ordinal, r.domain
$$;
COMMENT ON FUNCTION pipehandler.inbox_domains() IS
'The domains whose addresses visitors of the inbox page get, the first one unless they choose.';

CREATE OR REPLACE FUNCTION pipehandler.delivery_of(
    key       bytea,
    delivery  bigint,
    OUT lease     bigint,
    OUT id        bigint,
    OUT xid       xid8,
    OUT day       date,
    OUT message   uuid,
    OUT prepended bytea
)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
#variable_conflict use_column
BEGIN
    lease := (pipehandler.admit(key)).lease;
    SELECT d.id, d.xid, d.day, d.message, d.prepended INTO id, xid, day, message, prepended
      FROM pipehandler.current_delivery d
     WHERE d.id = delivery_of.delivery AND (delivery_of.lease IS NULL OR d.lease = delivery_of.lease);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no delivery % in this inbox', delivery USING ERRCODE = 'no_data_found';
    END IF;
END
$$;
COMMENT ON FUNCTION pipehandler.delivery_of(bytea, bigint) IS
'For the functions of the inbox page: a delivery that a key opens, and the lease that the key opens (null: all mail).
Raises what pipehandler.admit raises, and no_data_found for another delivery.';

CREATE OR REPLACE FUNCTION pipehandler.count_attachments(day date, message uuid) RETURNS integer
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET plan_cache_mode = force_custom_plan
AS $$
BEGIN
    RETURN (SELECT count(*)
              FROM pipehandler.attachment a
             WHERE a.day = count_attachments.day AND a.message = count_attachments.message
               -- An image that the HTML shows in its own place is no attachment to a reader.
               AND NOT (a.content_id IS NOT NULL AND a.content_type ILIKE 'image/%'
                        AND EXISTS (SELECT FROM pipehandler.message m
                                     WHERE m.day = count_attachments.day AND m.id = count_attachments.message
                                       AND strpos(left(m.html_body, 200000),
                                                  'cid:' || trim(BOTH '<>' FROM a.content_id)) > 0)));
END
$$;
COMMENT ON FUNCTION pipehandler.count_attachments(date, uuid) IS
'For the functions of the inbox page: how many attachments a message has to a reader, so without images that belong to
its HTML.';

CREATE OR REPLACE FUNCTION pipehandler.wanted_of(deliveries bigint[], wanted jsonb) RETURNS bigint[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    days CONSTANT date[] := ARRAY(SELECT DISTINCT d.day FROM pipehandler.delivery d WHERE d.id = ANY (deliveries));
BEGIN
    RETURN ARRAY(
        SELECT d.id
          FROM pipehandler.delivery d
          JOIN pipehandler.message m ON m.day = ANY (days) AND m.day = d.day AND m.id = d.message
         WHERE d.id = ANY (deliveries)
           AND NOT EXISTS (
                   SELECT FROM jsonb_to_recordset(wanted -> 'terms') AS t ("in" text, pattern text, "not" boolean)
                    WHERE coalesce(t."not", false) = (
                              (t."in" IN ('any', 'subject') AND m.subject COLLATE "C" ~* t.pattern) IS TRUE
                              OR (t."in" IN ('any', 'from')
                                  AND (m.from_name COLLATE "C" ~* t.pattern OR m.from_address COLLATE "C" ~* t.pattern
                                       OR d.sender COLLATE "C" ~* t.pattern)) IS TRUE
                              OR (t."in" IN ('any', 'to')
                                  AND (d.recipient COLLATE "C" ~* t.pattern
                                       OR m.to_list::text COLLATE "C" ~* t.pattern)) IS TRUE
                              OR (t."in" IN ('any', 'text')
                                  AND coalesce(m.text_body, m.text_from_html) COLLATE "C" ~* t.pattern) IS TRUE
                              OR (t."in" IN ('any', 'file')
                                  AND EXISTS (SELECT FROM pipehandler.attachment f
                                               WHERE f.day = ANY (days) AND f.day = m.day AND f.message = m.id
                                                 AND f.file_name COLLATE "C" ~* t.pattern))
                              -- The last, for its cost. What text_from_html has is of the same HTML.
                              OR CASE WHEN t."in" IN ('any', 'text') AND m.text_from_html IS NULL
                                      THEN pipehandler.html_has(m.html_body, t.pattern) END IS TRUE))
           AND coalesce((wanted ->> 'attachment')::boolean
                        = (pipehandler.count_attachments(m.day, m.id) > 0), true)
           AND coalesce(d.received_at < (wanted ->> 'before')::timestamptz, true)
           AND coalesce(d.received_at >= (wanted ->> 'after')::timestamptz, true)
           AND coalesce(m.size > (wanted ->> 'larger')::bigint, true)
           AND coalesce(m.size < (wanted ->> 'smaller')::bigint, true));
END
$$;
COMMENT ON FUNCTION pipehandler.wanted_of(bigint[], jsonb) IS
'For pipehandler.inbox_page: those of the deliveries that a search finds, in any order. wanted: {"terms": [{"in": any,
subject, from, to, text or file, "pattern": a pattern for ~* with COLLATE "C", "not": whether it must not match}],
"attachment": whether it has some, "before", "after": times, "larger", "smaller": octets}; all of them have to match.
The text of a message with both parts is its text, and the words of its HTML (pipehandler.html_words).';

CREATE OR REPLACE FUNCTION pipehandler.inbox_page(
    key      bytea,
    before   text    DEFAULT NULL,
    max_rows integer DEFAULT 50,
    wanted   jsonb   DEFAULT NULL
) RETURNS TABLE (
    cursor         text,
    delivery       bigint,
    subject        text,
    sender_name    text,
    sender_address text,
    received_at    timestamptz,
    size           integer,
    attachments    integer,
    state          text,
    preview        text,
    recipient      text,
    newest         text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 50
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_sort = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_custom_plan
SET jit = off -- as in pipehandler.deliveries_after
AS $$
#variable_conflict use_column
DECLARE
    -- As in pipehandler.deliveries_after, so that a stream that begins at newest continues this page without a gap.
    horizon  CONSTANT xid8 := pg_snapshot_xmin(pg_current_snapshot());
    its      CONSTANT bigint := (pipehandler.admit(key)).lease;
    limited  CONSTANT integer := least(greatest(coalesce(max_rows, 50), 1), 200);
    most     CONSTANT integer := CASE WHEN wanted IS NULL THEN limited ELSE 1000 END; -- that are looked at
    prefix   text;
    last_xid xid8;
    last_id  bigint;
    scope    record;
    wished   bigint[];
    hits     bigint[] := ARRAY[]::bigint[];
    days     date[];
    first    integer := 1;
    seen     integer := 0; -- of scope, those that were looked at
BEGIN
    SELECT p.prefix, p.xid, p.id INTO prefix, last_xid, last_id FROM pipehandler.cursor_position(before) AS p;
    IF coalesce(before, '') = '' THEN
        last_xid := horizon;
        last_id := 0;
    END IF;
    -- First the deliveries, then their messages, as in pipehandler.deliveries_after.
    SELECT coalesce(array_agg(o.id), '{}') AS ids, array_agg(o.cursor) AS cursors INTO scope
      FROM (SELECT d.id, prefix || d.xid || '-' || d.id AS cursor
              FROM pipehandler.current_delivery d
             WHERE (d.xid, d.id) < (last_xid, last_id) AND d.xid < horizon
               AND (its IS NULL OR d.lease = its)
             ORDER BY d.xid DESC, d.id DESC
             LIMIT most + 1) AS o;
    -- A search reads no more messages than it needs, a hundred at a time.
    WHILE seen < least(cardinality(scope.ids), most) AND cardinality(hits) < limited LOOP
        IF seen = first - 1 THEN
            wished := CASE WHEN wanted IS NULL THEN scope.ids
                           ELSE pipehandler.wanted_of(scope.ids[first:first + 99], wanted) END;
            first := first + 100;
        END IF;
        seen := seen + 1;
        IF wanted IS NULL OR scope.ids[seen] = ANY (wished) THEN
            hits := hits || scope.ids[seen];
        END IF;
    END LOOP;
    days := ARRAY(SELECT DISTINCT d.day FROM pipehandler.delivery d WHERE d.id = ANY (hits));
    RETURN QUERY
        SELECT scope.cursors[array_position(scope.ids, d.id)], d.id, left(m.subject, 300), left(m.from_name, 200),
               left(coalesce(m.from_address, d.sender), 300), d.received_at, m.size,
               pipehandler.count_attachments(m.day, m.id), m.state, m.preview, left(d.recipient, 300), NULL
          FROM unnest(hits) WITH ORDINALITY AS k (id, place)
          JOIN pipehandler.delivery d ON d.id = k.id
          JOIN pipehandler.message m ON m.day = ANY (days) AND m.day = d.day AND m.id = d.message
         ORDER BY k.place;
    -- All that a page shows is in it, or there is more.
    cursor := CASE WHEN seen < cardinality(scope.ids) THEN scope.cursors[seen] END;
    delivery := NULL;
    newest := pipehandler.cursor_now();
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION pipehandler.inbox_page(bytea, text, integer, jsonb) IS
'A page of an inbox, the newest delivery first: those before a cursor (null: all), at most max_rows (200) of them.
wanted: a search as in pipehandler.wanted_of, which looks at the newest 1,000 of them. The last row has no delivery: its
cursor is where the next page begins, null where there is none; newest is the cursor at which the stream goes on after
this page (pipehandler.inbox_after). Rows are shortened. Raises what pipehandler.admit raises, and raise_exception for
an invalid cursor.';

CREATE OR REPLACE FUNCTION pipehandler.inbox_after(
    key      bytea,
    after    text,
    max_rows integer DEFAULT 100
) RETURNS TABLE (
    cursor         text,
    delivery       bigint,
    subject        text,
    sender_name    text,
    sender_address text,
    received_at    timestamptz,
    size           integer,
    attachments    integer,
    state          text,
    preview        text,
    recipient      text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 100
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    page CONSTANT pipehandler.streamed_delivery[] := ARRAY(
        SELECT s
          FROM pipehandler.deliveries_after(after, NULL, (pipehandler.admit(key)).lease,
                                            least(greatest(max_rows, 1), 1000)) AS s);
    days CONSTANT date[] := ARRAY(
        SELECT DISTINCT d.day FROM pipehandler.delivery d WHERE d.id IN (SELECT s.id FROM unnest(page) AS s));
BEGIN
    RETURN QUERY
        SELECT s.cursor, s.id, left(s.subject, 300), left(s.from_name, 200),
               left(coalesce(s.from_address, s.sender), 300), s.received_at, s.size,
               CASE WHEN s.attachments = 0 THEN 0 ELSE pipehandler.count_attachments(m.day, m.id) END, s.state,
               m.preview, left(s.recipient, 300)
          FROM unnest(page) WITH ORDINALITY AS s
          JOIN pipehandler.delivery d ON d.id = s.id
          JOIN pipehandler.message m ON m.day = ANY (days) AND m.day = d.day AND m.id = d.message
         ORDER BY s.ordinality;
END
$$;
COMMENT ON FUNCTION pipehandler.inbox_after(bytea, text, integer) IS
'The deliveries of an inbox after a cursor, as pipehandler.deliveries_after returns them: each once, in the order of the
stream; at most max_rows (1,000). Raises what pipehandler.admit raises, and raise_exception for an invalid cursor.';

CREATE OR REPLACE FUNCTION pipehandler.cut_text(value text, octets integer) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    encoded bytea;
    length  integer := octets;
BEGIN
    IF value IS NULL OR octet_length(value) <= octets THEN
        RETURN value;
    END IF;
    encoded := convert_to(left(value, octets), 'UTF8');
    WHILE length > 0 AND length < octet_length(encoded) AND get_byte(encoded, length) & 192 = 128 LOOP
        length := length - 1; -- not within a character
    END LOOP;
    RETURN convert_from(substring(encoded FOR length), 'UTF8');
END
$$;
COMMENT ON FUNCTION pipehandler.cut_text(text, integer) IS
'The beginning of a text, of at most so many octets in UTF-8.';

CREATE OR REPLACE FUNCTION pipehandler.inbox_message(key bytea, delivery bigint)
RETURNS TABLE (
    id                    bigint,
    cursor                text,
    message               uuid,
    recipient             text,
    extension             text,
    sender                text,
    subject               text,
    from_list             jsonb,
    sender_list           jsonb,
    reply_to_list         jsonb,
    to_list               jsonb,
    cc_list               jsonb,
    date                  timestamptz,
    date_offset           smallint,
    received_at           timestamptz,
    size                  integer,
    state                 text,
    error                 text,
    preview               text,
    text_body             text,
    text_from_html        text,
    html_body             text,
    is_cut                boolean,
    header                jsonb,
    message_id            text,
    list_id               text,
    list_unsubscribe      text[],
    list_unsubscribe_post boolean,
    authentication        jsonb,
    defects               jsonb,
    report                jsonb,
    is_automatic          boolean,
    has_raw               boolean,
    attachments           jsonb,
    previous              bigint,
    next                  bigint
)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 1
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_sort = off
SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    largest CONSTANT integer := 2097152; -- octets of a body
    its     record;
BEGIN
    SELECT o.lease, o.id, o.xid, o.day, o.message INTO its
      FROM pipehandler.delivery_of(key, inbox_message.delivery) AS o;
    RETURN QUERY
        SELECT d.id, (SELECT p.prefix FROM pipehandler.cursor_position('') AS p) || d.xid || '-' || d.id, d.message,
               d.recipient, d.extension, d.sender, m.subject, m.from_list, m.sender_list, m.reply_to_list,
               m.to_list, m.cc_list, m.date, m.date_offset, d.received_at, m.size, m.state, m.error, m.preview,
               pipehandler.cut_text(m.text_body, largest), pipehandler.cut_text(m.text_from_html, largest),
               pipehandler.cut_text(m.html_body, largest),
               greatest(octet_length(m.text_body), octet_length(m.text_from_html), octet_length(m.html_body))
               > largest IS TRUE,
               m.header, m.message_id, m.list_id, m.list_unsubscribe, m.list_unsubscribe_post, m.authentication,
               m.defects, m.report,
               pipehandler.is_automatic(d.sender, m.auto_submitted, m.precedence, m.list_id, m.report),
               EXISTS (SELECT FROM pipehandler.raw_message r WHERE r.day = its.day AND r.message = its.message),
               coalesce((SELECT jsonb_agg(jsonb_build_object(
                                    'ordinal', a.ordinal, 'part', a.part, 'file_name', a.file_name, 'content_type',
                                    a.content_type, 'content_id', a.content_id, 'disposition', a.disposition, 'size',
                                    a.size, 'kept', a.content IS NOT NULL, 'parameters', a.parameters,
                                    'content_location', a.content_location, 'content_description',
                                    a.content_description) ORDER BY a.ordinal)
                           FROM pipehandler.attachment a WHERE a.day = its.day AND a.message = its.message), '[]'),
               (SELECT n.id FROM pipehandler.current_delivery n
                 WHERE (n.xid, n.id) > (its.xid, its.id) AND (its.lease IS NULL OR n.lease = its.lease)
                 ORDER BY n.xid, n.id LIMIT 1),
               (SELECT n.id FROM pipehandler.current_delivery n
                 WHERE (n.xid, n.id) < (its.xid, its.id) AND (its.lease IS NULL OR n.lease = its.lease)
                 ORDER BY n.xid DESC, n.id DESC LIMIT 1)
          FROM pipehandler.current_delivery d
          JOIN pipehandler.message m ON m.day = its.day AND m.id = its.message
         WHERE d.id = its.id;
END
$$;
COMMENT ON FUNCTION pipehandler.inbox_message(bytea, bigint) IS
'One delivery of an inbox with its message: the columns of delivery and message; bodies of at most 2 MiB each (is_cut:
there is more); attachments as an array of {"ordinal", "part", "file_name", "content_type", "content_id",
"disposition", "size", "kept": whether its content is stored, "parameters", "content_location",
"content_description"}; has_raw: whether its bytes are stored; previous and next: the deliveries above and below it in
pipehandler.inbox_page. Raises what pipehandler.admit raises, and no_data_found for a delivery of another inbox.';

CREATE OR REPLACE FUNCTION pipehandler.inbox_attachment(
    key      bytea,
    delivery bigint,
    ordinal  integer,
    first    bigint  DEFAULT 0,
    octets   integer DEFAULT 262144
) RETURNS bytea
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    its  record;
    most CONSTANT integer := least(greatest(octets, 1), 1048576);
    piece bytea;
BEGIN
    SELECT o.day, o.message INTO its FROM pipehandler.delivery_of(key, delivery) AS o;
    SELECT substring(a.content FROM (first + 1)::integer FOR most) INTO piece
      FROM pipehandler.attachment a
     WHERE a.day = its.day AND a.message = its.message AND a.ordinal = inbox_attachment.ordinal;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the delivery has no attachment %', ordinal USING ERRCODE = 'no_data_found';
    ELSIF piece IS NULL THEN
        RAISE EXCEPTION 'the content of attachment % was not kept', ordinal USING ERRCODE = 'PH008';
    END IF;
    RETURN piece;
END
$$;
COMMENT ON FUNCTION pipehandler.inbox_attachment(bytea, bigint, integer, bigint, integer) IS
'A piece of the content of an attachment of an inbox: octets (at most 1 MiB) of it after the first ones; empty at its
end. Raises what pipehandler.inbox_message raises, and PH008 where the content was not kept.';

CREATE OR REPLACE FUNCTION pipehandler.inbox_attachments(key bytea, delivery bigint, ordinals integer[])
RETURNS TABLE (ordinal integer, content bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    its record;
BEGIN
    SELECT o.day, o.message INTO its FROM pipehandler.delivery_of(key, inbox_attachments.delivery) AS o;
    RETURN QUERY
        SELECT s.ordinal, s.content
          FROM (SELECT a.ordinal, a.content, sum(octet_length(a.content)) OVER (ORDER BY a.ordinal) AS together
                  FROM pipehandler.attachment a
                 WHERE a.day = its.day AND a.message = its.message AND a.ordinal = ANY (ordinals)
                   AND a.content IS NOT NULL) AS s
         WHERE s.together <= 1048576;
END
$$;
COMMENT ON FUNCTION pipehandler.inbox_attachments(bytea, bigint, integer[]) IS
'The whole content of several attachments of an inbox that was kept, in their order: as many as have at most 1 MiB
together. Raises what pipehandler.inbox_message raises.';

CREATE OR REPLACE FUNCTION pipehandler.inbox_raw(
    key      bytea,
    delivery bigint,
    first    bigint  DEFAULT 0,
    octets   integer DEFAULT 262144
) RETURNS bytea
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    its   record;
    most  CONSTANT integer := least(greatest(octets, 1), 1048576);
    own   bytea; -- of what Postfix prepended
    piece bytea;
BEGIN
    SELECT o.day, o.message, coalesce(o.prepended, '') AS prepended INTO its
      FROM pipehandler.delivery_of(key, delivery) AS o;
    own := substring(its.prepended FROM (least(first, octet_length(its.prepended)) + 1)::integer FOR most);
    SELECT substring(r.raw FROM (greatest(first - octet_length(its.prepended), 0) + 1)::integer
                     FOR most - octet_length(own))
      INTO piece
      FROM pipehandler.raw_message r
     WHERE r.day = its.day AND r.message = its.message;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the bytes of delivery % were not kept', delivery USING ERRCODE = 'PH008';
    END IF;
    RETURN own || piece;
END
$$;
COMMENT ON FUNCTION pipehandler.inbox_raw(bytea, bigint, bigint, integer) IS
'The same of the bytes of a delivery, exactly as they were delivered.';

CREATE OR REPLACE FUNCTION pipehandler.extend_inbox(key bytea, ttl interval) RETURNS timestamptz
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    admitted CONSTANT pipehandler.capability := pipehandler.admit(key, as_owner => true, ended => true);
    leased pipehandler.address;
    rules  pipehandler.web_domain;
    until  timestamptz;
BEGIN
    PERFORM pipehandler.secure_transaction();
    SELECT a.* INTO leased FROM pipehandler.address a WHERE a.lease = admitted.lease FOR NO KEY UPDATE;
    SELECT r.* INTO rules
      FROM pipehandler.web_domain r
     WHERE r.domain = substring(leased.address FROM '@([^@]*)$');
    IF NOT FOUND OR leased.superseded THEN
        RAISE EXCEPTION 'there are no addresses of this domain any more' USING ERRCODE = 'PH003';
    END IF;
    IF (ttl > interval '0' AND ttl <= rules.max_ttl) IS NOT TRUE THEN
        RAISE EXCEPTION 'ttl must be positive and at most %; got %', rules.max_ttl, ttl
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    until := greatest(leased.expires_at,
                      least(greatest(leased.expires_at, now()) + ttl, leased.created_at + rules.max_life));
    IF until <= now() THEN
        RAISE EXCEPTION 'this inbox has reached its longest lifetime' USING ERRCODE = 'PH007';
    END IF;
    UPDATE pipehandler.address a SET expires_at = until WHERE a.lease = leased.lease AND a.expires_at < until;
    RETURN until;
END
$$;
COMMENT ON FUNCTION pipehandler.extend_inbox(bytea, interval) IS
'For the owner: lets an inbox last for ttl more, or brings it back for ttl in its time of grace; never longer than
web_domain.max_life after it was opened. Returns the new end. Raises what pipehandler.admit raises, PH007 where an inbox
that has ended cannot be brought back, PH003 where the domain is not issued any more.';

CREATE OR REPLACE FUNCTION pipehandler.expire_inbox(key bytea) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
    PERFORM pipehandler.expire_lease((pipehandler.admit(key, as_owner => true, ended => true)).lease);
END
$$;
COMMENT ON FUNCTION pipehandler.expire_inbox(bytea) IS
'For the owner: ends an inbox now. It can be brought back in its time of grace.';

CREATE OR REPLACE FUNCTION pipehandler.remove_inbox(key bytea) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    its CONSTANT bigint := (pipehandler.admit(key, as_owner => true, ended => true)).lease;
    removed bigint;
BEGIN
    PERFORM pipehandler.secure_transaction();
    removed := pipehandler.remove_mail_of_lease(its);
    -- The row stays for a while, so that mail that was accepted at RCPT TO finds that its address has ended.
    PERFORM pipehandler.expire_lease(its);
    UPDATE pipehandler.web_inbox w SET grace = '0', mail_until = now() WHERE w.lease = its;
    DELETE FROM pipehandler.capability c WHERE c.lease = its AND c.kind <> 'viewer';
    RETURN removed;
END
$$;
COMMENT ON FUNCTION pipehandler.remove_inbox(bytea) IS
'For the owner: removes the mail of an inbox and the keys of its owner for good, and ends the address. Only the same key
gets it back within web_domain.held (pipehandler.open_inbox), empty. Returns how many deliveries it had.';

CREATE OR REPLACE FUNCTION pipehandler.remove_inbox_mail(key bytea, deliveries bigint[]) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    its CONSTANT bigint := (pipehandler.admit(key, as_owner => true)).lease;
    ids CONSTANT bigint[] := ARRAY(SELECT d.id
                                     FROM pipehandler.current_delivery d
                                    WHERE d.id = ANY (deliveries[:1000]) AND d.lease = its);
BEGIN
    PERFORM pipehandler.secure_transaction();
    IF cardinality(ids) = 0 THEN
        RAISE EXCEPTION 'there is none of these deliveries in this inbox' USING ERRCODE = 'no_data_found';
    END IF;
    RETURN (SELECT r.deliveries FROM pipehandler.remove_deliveries(ids) AS r);
END
$$;
COMMENT ON FUNCTION pipehandler.remove_inbox_mail(bytea, bigint[]) IS
'For the owner: removes these deliveries of an inbox for good, the first 1,000 of them; others are ignored. Returns how
many there were; raises no_data_found where there was none.';

CREATE OR REPLACE FUNCTION pipehandler.share_inbox(key bytea, new_digest bytea, ttl interval DEFAULT NULL) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    shared CONSTANT bigint := (pipehandler.admit(key, as_owner => true)).lease;
BEGIN
    PERFORM pipehandler.secure_transaction();
    IF ttl <= interval '0' THEN
        RAISE EXCEPTION 'ttl must be positive, or null for as long as the inbox; got %', ttl
            USING ERRCODE = 'invalid_parameter_value';
    ELSIF NOT pipehandler.key_belongs_here(new_digest) THEN
        RAISE EXCEPTION 'the new key belongs to another shard' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM FROM pipehandler.address a WHERE a.lease = shared FOR NO KEY UPDATE; -- one after the other
    IF (SELECT count(*) FROM pipehandler.capability c WHERE c.lease = shared AND c.kind = 'shared') >= 20 THEN
        RAISE EXCEPTION 'this inbox is shared by 20 keys; revoke them first' USING ERRCODE = 'PH005';
    END IF;
    INSERT INTO pipehandler.capability (digest, lease, kind, expires_at)
    VALUES (new_digest, shared, 'shared', now() + ttl);
END
$$;
COMMENT ON FUNCTION pipehandler.share_inbox(bytea, bytea, interval) IS
'For the owner: another key reads this inbox, and changes nothing, for ttl, or (null) as long as the inbox exists.
new_digest: SHA-256 of that key. Raises PH005 where 20 keys do, invalid_parameter_value for a key of another shard.';

CREATE OR REPLACE FUNCTION pipehandler.unshare_inbox(key bytea) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    shared CONSTANT bigint := (pipehandler.admit(key, as_owner => true, ended => true)).lease;
    revoked bigint;
BEGIN
    PERFORM pipehandler.secure_transaction();
    DELETE FROM pipehandler.capability c WHERE c.lease = shared AND c.kind = 'shared';
    GET DIAGNOSTICS revoked = ROW_COUNT;
    RETURN revoked;
END
$$;
COMMENT ON FUNCTION pipehandler.unshare_inbox(bytea) IS
'For the owner: revokes all keys of pipehandler.share_inbox; returns how many there were.';

CREATE OR REPLACE FUNCTION pipehandler.arrivals_after(after text, max_rows integer DEFAULT 1000)
RETURNS TABLE (cursor text, lease bigint)
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 100
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_sort = off
SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    -- As in pipehandler.deliveries_after.
    horizon  CONSTANT xid8 := pg_snapshot_xmin(pg_current_snapshot());
    prefix   text;
    last_xid xid8;
    last_id  bigint;
BEGIN
    SELECT p.prefix, p.xid, p.id INTO prefix, last_xid, last_id FROM pipehandler.cursor_position(after) AS p;
    RETURN QUERY
        SELECT prefix || d.xid || '-' || d.id, d.lease
          FROM pipehandler.delivery d
         WHERE (d.xid, d.id) > (last_xid, last_id) AND d.xid < horizon
         ORDER BY d.xid, d.id
         LIMIT max_rows;
END
$$;
COMMENT ON FUNCTION pipehandler.arrivals_after(text, integer) IS
'Needs no key and returns no content: the leases (null: none) of the deliveries after a cursor, in the order of the
stream, so that the streams of these leases are woken. Raises raise_exception for an invalid cursor.';

CREATE OR REPLACE FUNCTION pipehandler.arrivals_waiting() RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
    SELECT EXISTS (SELECT FROM pipehandler.delivery d WHERE d.xid >= pg_snapshot_xmin(pg_current_snapshot()))
$$;
COMMENT ON FUNCTION pipehandler.arrivals_waiting() IS
'Needs no key: as pipehandler.deliveries_waiting, for a role that reads no table.';
