-- Outside of a transaction: each statement commits by itself, and all of them can run again.
-- Indexes on text in the order of its octets (COLLATE "C"), which no library of the operating system changes. They are
-- built while deliveries go on; 0018 puts them in the place of the former ones. Expressions instead of another collation
-- of the columns: that would build the indexes again under a lock that deliveries wait for.

-- What the former indexes failed to find is here twice, and no unique index can have both. Both stay. Of a lease the newest
-- is current, as after any address that is issued again. Of a delivery the first has the fingerprint. All are noted.
DO $$
BEGIN
    PERFORM set_config('enable_indexscan', 'off', true), set_config('enable_indexonlyscan', 'off', true),
            set_config('enable_bitmapscan', 'off', true);
    WITH older AS (
        UPDATE pipehandler.address a
           SET superseded = true
          FROM (SELECT b.lease, row_number() OVER (PARTITION BY b.address COLLATE "C" ORDER BY b.lease DESC) AS place
                  FROM pipehandler.address b
                 WHERE NOT b.superseded) AS n
         WHERE n.place > 1 AND n.lease = a.lease
        RETURNING a.lease)
    INSERT INTO pipehandler.doubled (kind, id) SELECT 'lease', o.lease FROM older o;
    WITH later AS (
        UPDATE pipehandler.delivery d
           SET fingerprint = sha256(d.fingerprint || int8send(d.id))
          FROM (SELECT unnest(c.ids[2:]) AS id
                  FROM (SELECT array_agg(e.id ORDER BY e.id) AS ids
                          FROM pipehandler.delivery e
                         GROUP BY e.recipient COLLATE "C", e.fingerprint, coalesce(e.lease, 0)
                        HAVING count(*) > 1) AS c) AS n
         WHERE d.id = n.id
        RETURNING d.id)
    INSERT INTO pipehandler.doubled (kind, id) SELECT 'delivery', l.id FROM later l;
END
$$;

-- An index that an interrupted run left behind is not valid.
DO $$
DECLARE
    name text;
BEGIN
    FOR name IN
        SELECT c.relname
          FROM pg_index i
          JOIN pg_class c ON c.oid = i.indexrelid
         WHERE c.relnamespace = 'pipehandler'::regnamespace AND NOT i.indisvalid AND right(c.relname, 5) = '_in_c'
    LOOP
        EXECUTE format('DROP INDEX pipehandler.%I', name);
    END LOOP;
END
$$;

CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS delivery_once_in_c
    ON pipehandler.delivery (recipient COLLATE "C", fingerprint, coalesce(lease, 0));

CREATE INDEX CONCURRENTLY IF NOT EXISTS delivery_recipient_in_c
    ON pipehandler.delivery (pipehandler.canonical(recipient COLLATE "C"), xid, id);

CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS address_current_in_c
    ON pipehandler.address (address COLLATE "C") WHERE NOT superseded;

CREATE INDEX CONCURRENTLY IF NOT EXISTS message_message_id_in_c
    ON pipehandler.message (message_id COLLATE "C") WHERE message_id IS NOT NULL;

CREATE INDEX CONCURRENTLY IF NOT EXISTS message_from_address_in_c
    ON pipehandler.message (lower(from_address COLLATE "C"), received_at) WHERE from_address IS NOT NULL;

-- Rows that the constraints of 0016 would refuse today stay: their constraint is kept for new rows, not valid.
DO $$
DECLARE
    constraint_name text;
    table_name      text;
BEGIN
    FOR constraint_name, table_name IN
        SELECT k.conname, k.conrelid::regclass
          FROM pg_constraint k
         WHERE k.connamespace = 'pipehandler'::regnamespace AND k.contype = 'c' AND NOT k.convalidated
         ORDER BY k.conname
    LOOP
        BEGIN
            EXECUTE format('ALTER TABLE %s VALIDATE CONSTRAINT %I', table_name, constraint_name);
        EXCEPTION WHEN check_violation THEN
            RAISE WARNING 'rows of % are outside of constraint %', table_name, constraint_name;
        END;
    END LOOP;
END
$$;
