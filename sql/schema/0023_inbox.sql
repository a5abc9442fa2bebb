-- The inbox page (pipehandler web): who may read which lease, which domains visitors get addresses of, and what becomes of
-- an address afterwards. A lease that a visitor opened has a row in web_inbox; no other lease is changed by any of this.

LOCK TABLE pipehandler.address IN SHARE ROW EXCLUSIVE MODE;

CREATE TABLE pipehandler.capability (
    digest     bytea       PRIMARY KEY CHECK (octet_length(digest) = 32),
    lease      bigint      REFERENCES pipehandler.address ON DELETE CASCADE,
    kind       text        NOT NULL CHECK (kind IN ('owner', 'shared', 'viewer')),
    label      text,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    CONSTRAINT capability_scope CHECK (lease IS NOT NULL OR kind = 'viewer')
);
CREATE INDEX capability_lease ON pipehandler.capability (lease);
CREATE INDEX capability_label ON pipehandler.capability (label COLLATE "C") WHERE kind = 'viewer';
CREATE INDEX capability_expires_at ON pipehandler.capability (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE pipehandler.web_domain (
    domain         text     COLLATE "C" PRIMARY KEY CHECK (domain ~ '^[^@[:cntrl:][:space:]]+$'),
    ordinal        bigint   NOT NULL,
    max_ttl        interval NOT NULL CHECK (max_ttl > '0'),
    max_life       interval NOT NULL CHECK (max_life > '0'),
    grace          interval NOT NULL CHECK (grace >= '0'),
    held           interval NOT NULL CHECK (held >= '0'),
    delimiter      text     NOT NULL,
    reserved_names text[]   NOT NULL,
    max_messages   bigint   NOT NULL CHECK (max_messages > 0),
    max_octets     bigint   NOT NULL CHECK (max_octets > 0)
);

CREATE TABLE pipehandler.web_inbox (
    lease          bigint      PRIMARY KEY REFERENCES pipehandler.address ON DELETE CASCADE,
    address_digest bytea       NOT NULL CHECK (octet_length(address_digest) = 32),
    holder         bytea       CHECK (octet_length(holder) = 32),
    network        cidr,
    grace          interval    NOT NULL,
    held           interval    NOT NULL,
    mail_until     timestamptz,
    max_messages   bigint      NOT NULL,
    max_octets     bigint      NOT NULL
);
CREATE INDEX web_inbox_address_digest ON pipehandler.web_inbox (address_digest);
CREATE INDEX web_inbox_mail_until ON pipehandler.web_inbox (mail_until);
CREATE INDEX web_inbox_network ON pipehandler.web_inbox USING gist (network inet_ops) WHERE network IS NOT NULL;

CREATE TABLE pipehandler.web_tombstone (
    address_digest bytea       PRIMARY KEY CHECK (octet_length(address_digest) = 32),
    holder         bytea       CHECK (octet_length(holder) = 32),
    held_until     timestamptz NOT NULL
);
CREATE INDEX web_tombstone_held_until ON pipehandler.web_tombstone (held_until);

CREATE TABLE pipehandler.web_closed_network (
    network    cidr        PRIMARY KEY,
    label      text,
    closed_at  timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz
);

-- Whatever changes the end of a lease, its mail follows. It runs as the owner, because a role that may change leases
-- has no right on these tables.
CREATE FUNCTION pipehandler.follow_lease() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
    UPDATE pipehandler.web_inbox w SET mail_until = new.expires_at + w.grace WHERE w.lease = new.lease;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pipehandler.follow_lease() IS
'Trigger of address: keeps web_inbox.mail_until as long after the end of the lease as its grace says.';
CREATE TRIGGER follow_lease AFTER UPDATE OF expires_at ON pipehandler.address
   FOR EACH ROW WHEN (old.expires_at IS DISTINCT FROM new.expires_at)
   EXECUTE FUNCTION pipehandler.follow_lease();

CREATE FUNCTION pipehandler.bury_address() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    until CONSTANT timestamptz := least(now(), old.mail_until) + old.held;
BEGIN
    IF until > now() THEN
        INSERT INTO pipehandler.web_tombstone AS t (address_digest, holder, held_until)
        VALUES (old.address_digest, old.holder, until)
            ON CONFLICT (address_digest) DO UPDATE SET holder = excluded.holder, held_until = excluded.held_until
         WHERE excluded.held_until > t.held_until;
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pipehandler.bury_address() IS
'Trigger of web_inbox: whoever removes the lease of a visitor leaves a row in web_tombstone, so that the address goes to
no other person for a while.';
CREATE TRIGGER bury_address AFTER DELETE ON pipehandler.web_inbox
   FOR EACH ROW EXECUTE FUNCTION pipehandler.bury_address();

-- Wakes the open streams. A lease without keys wakes nothing, so most transactions send nothing: NOTIFY holds a lock of
-- the whole cluster during the commit. Removal of a lease removes its keys.
CREATE FUNCTION pipehandler.announce_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
    IF tg_table_name = 'capability' THEN
        IF EXISTS (SELECT FROM changed) THEN
            PERFORM pg_notify('pipehandler_inbox', '');
        END IF;
    ELSIF EXISTS (SELECT FROM changed c, pipehandler.capability k WHERE k.lease = c.lease) THEN
        PERFORM pg_notify('pipehandler_inbox', '');
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pipehandler.announce_change() IS
'Trigger of address and capability: notifies the channel pipehandler_inbox, without a payload, when a key, or a lease
that a key opens, is changed or removed.';
CREATE TRIGGER announce_change AFTER UPDATE ON pipehandler.address REFERENCING NEW TABLE AS changed
   FOR EACH STATEMENT EXECUTE FUNCTION pipehandler.announce_change();
CREATE TRIGGER announce_change AFTER UPDATE ON pipehandler.capability REFERENCING NEW TABLE AS changed
   FOR EACH STATEMENT EXECUTE FUNCTION pipehandler.announce_change();
CREATE TRIGGER announce_removal AFTER DELETE ON pipehandler.capability REFERENCING OLD TABLE AS changed
   FOR EACH STATEMENT EXECUTE FUNCTION pipehandler.announce_change();
