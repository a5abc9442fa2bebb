-- Outside of a transaction: each statement commits by itself, and all of them can run again.
-- Messages, their bytes and their attachments are divided by the day on which they were stored, so that retention drops
-- a day instead of deleting its rows (docs/design/partitions.md). What is stored already keeps the day 1970-01-01, and
-- its tables become the partitions of that day: nothing is copied. A constant default rewrites no row.

ALTER TABLE pipehandler.delivery ADD COLUMN IF NOT EXISTS day date NOT NULL DEFAULT '1970-01-01';

ALTER TABLE pipehandler.message ADD COLUMN IF NOT EXISTS day date NOT NULL DEFAULT '1970-01-01';

ALTER TABLE pipehandler.raw_message ADD COLUMN IF NOT EXISTS day date NOT NULL DEFAULT '1970-01-01';

ALTER TABLE pipehandler.attachment ADD COLUMN IF NOT EXISTS day date NOT NULL DEFAULT '1970-01-01';

-- The bounds of the partition, as constraints that are validated while mail arrives, or attaching it would read it.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['message', 'raw_message', 'attachment'] LOOP
        IF NOT EXISTS (SELECT FROM pg_constraint c
                        WHERE c.conrelid = ('pipehandler.' || name)::regclass AND c.conname = name || '_undated') THEN
            EXECUTE format('ALTER TABLE pipehandler.%I ADD CONSTRAINT %I CHECK (day < ''1970-01-02'') NOT VALID',
                           name, name || '_undated');
        END IF;
    END LOOP;
END
$$;

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['message', 'raw_message', 'attachment'] LOOP
        EXECUTE format('ALTER TABLE pipehandler.%I VALIDATE CONSTRAINT %I', name, name || '_undated');
    END LOOP;
END
$$;

-- An index that an interrupted run left behind is not valid.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_index i
                WHERE i.indexrelid = to_regclass('pipehandler.delivery_day') AND NOT i.indisvalid) THEN
        DROP INDEX pipehandler.delivery_day;
    END IF;
END
$$;

-- When each day may go, and what of it is due.
CREATE INDEX CONCURRENTLY IF NOT EXISTS delivery_day ON pipehandler.delivery (day, expires_at);

-- In the transaction that follows: functions and views change together with the tables.
LOCK TABLE pipehandler.delivery, pipehandler.message, pipehandler.raw_message, pipehandler.attachment
  IN ACCESS EXCLUSIVE MODE;

-- What hangs on the tables themselves and cannot follow to the new ones.
DO $$
DECLARE
    found text;
BEGIN
    SELECT string_agg(o.what, ', ' ORDER BY o.what) INTO found
      FROM (SELECT c.oid FROM pg_class c
             WHERE c.oid IN ('pipehandler.message'::regclass, 'pipehandler.raw_message'::regclass,
                             'pipehandler.attachment'::regclass)) AS t,
           LATERAL (
               SELECT format('foreign key %s of %s', k.conname, k.conrelid::regclass) AS what
                 FROM pg_constraint k
                WHERE k.contype = 'f' AND k.confrelid = t.oid
                  AND k.conname NOT IN ('delivery_message_fkey', 'raw_message_message_fkey', 'attachment_message_fkey')
               UNION ALL
               SELECT format('trigger %s on %s', g.tgname, t.oid::regclass)
                 FROM pg_trigger g
                WHERE g.tgrelid = t.oid AND NOT g.tgisinternal
               UNION ALL
               SELECT format('index %s', i.indexrelid::regclass)
                 FROM pg_index i
                WHERE i.indrelid = t.oid AND i.indisunique AND NOT i.indisprimary
               UNION ALL
               SELECT format('publication %s of %s', p.pubname, t.oid::regclass)
                 FROM pg_publication_rel r
                 JOIN pg_publication p ON p.oid = r.prpubid
                WHERE r.prrelid = t.oid
               UNION ALL
               SELECT DISTINCT format('materialized view %s', w.ev_class::regclass)
                 FROM pg_depend d
                 JOIN pg_rewrite w ON w.oid = d.objid
                 JOIN pg_class v ON v.oid = w.ev_class AND v.relkind = 'm'
                WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass
                  AND d.refobjid = t.oid
           ) AS o;
    IF found IS NOT NULL THEN
        RAISE EXCEPTION 'the tables message, raw_message and attachment are about to be partitioned, and this cannot '
                        'follow: %; drop it, migrate, and create it again on the new tables', found
            USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
END
$$;

DO $$
DECLARE
    name       text;
    item       record;
    -- Definitions that name the tables, to be run again when other tables have these names: of views and of functions
    -- with parsed bodies, those of an operator included.
    dependents CONSTANT text[] := ARRAY(
        SELECT DISTINCT CASE d.classid WHEN 'pg_proc'::regclass THEN pg_get_functiondef(d.objid)
                                       ELSE format('CREATE OR REPLACE VIEW %s AS %s', w.ev_class::regclass,
                                                   pg_get_viewdef(w.ev_class)) END
          FROM pg_depend d
          LEFT JOIN pg_rewrite w
                 ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
                AND w.ev_class IN (SELECT c.oid FROM pg_class c WHERE c.relkind = 'v')
         WHERE d.refclassid = 'pg_class'::regclass
           AND d.refobjid IN ('pipehandler.message'::regclass, 'pipehandler.raw_message'::regclass,
                              'pipehandler.attachment'::regclass)
           AND (d.classid = 'pg_proc'::regclass OR w.oid IS NOT NULL));
    statements text[] := '{}';
    one        text;
BEGIN
    -- Partitions that are referred to cannot be dropped. A trigger on message takes the place of ON DELETE CASCADE; for
    -- deliveries, the order of the locks (sql/code/20_retention.sql).
    ALTER TABLE pipehandler.delivery DROP CONSTRAINT delivery_message_fkey;
    ALTER TABLE pipehandler.raw_message DROP CONSTRAINT raw_message_message_fkey;
    ALTER TABLE pipehandler.attachment DROP CONSTRAINT attachment_message_fkey;
    DROP INDEX pipehandler.delivery_expires_at; -- delivery_day takes its place

    FOREACH name IN ARRAY ARRAY['message', 'raw_message', 'attachment'] LOOP
        statements := ARRAY(
            SELECT pg_get_indexdef(i.indexrelid)
              FROM pg_index i
             WHERE i.indrelid = ('pipehandler.' || name)::regclass AND NOT i.indisprimary
            UNION ALL
            SELECT format('GRANT %s ON pipehandler.%I TO %s%s', a.privilege_type, name,
                          CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END,
                          CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
              FROM pg_class c, aclexplode(c.relacl) AS a
             WHERE c.oid = ('pipehandler.' || name)::regclass AND a.grantee <> c.relowner
            UNION ALL
            SELECT format('ALTER TABLE pipehandler.%I OWNER TO %s', name, c.relowner::regrole)
              FROM pg_class c
             WHERE c.oid = ('pipehandler.' || name)::regclass AND pg_get_userbyid(c.relowner) <> CURRENT_USER);
        FOR item IN
            SELECT c.relname
              FROM pg_index i
              JOIN pg_class c ON c.oid = i.indexrelid
             WHERE i.indrelid = ('pipehandler.' || name)::regclass
        LOOP
            EXECUTE format('ALTER INDEX pipehandler.%I RENAME TO %I', item.relname,
                           left(name || '_undated_' || regexp_replace(item.relname, '^' || name || '_', ''), 63));
        END LOOP;
        EXECUTE format('ALTER TABLE pipehandler.%I RENAME TO %I', name, name || '_undated');
        -- Those of the new table describe it.
        EXECUTE format('COMMENT ON TABLE pipehandler.%I IS NULL', name || '_undated');
        FOR item IN
            SELECT a.attname
              FROM pg_attribute a
             WHERE a.attrelid = format('pipehandler.%I', name || '_undated')::regclass AND a.attnum > 0
               AND NOT a.attisdropped
        LOOP
            EXECUTE format('COMMENT ON COLUMN pipehandler.%I.%I IS NULL', name || '_undated', item.attname);
        END LOOP;
        EXECUTE format('CREATE TABLE pipehandler.%I (LIKE pipehandler.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS'
                       ' INCLUDING STORAGE INCLUDING COMPRESSION) PARTITION BY RANGE (day)', name, name || '_undated');
        EXECUTE format('ALTER TABLE pipehandler.%I DROP CONSTRAINT %I', name, name || '_undated');
        -- One that 0017 could not validate.
        FOR item IN
            SELECT k.conname, pg_get_constraintdef(k.oid) AS definition
              FROM pg_constraint k
             WHERE k.conrelid = format('pipehandler.%I', name || '_undated')::regclass AND k.contype = 'c'
               AND NOT k.convalidated
        LOOP
            EXECUTE format('ALTER TABLE pipehandler.%I DROP CONSTRAINT %I', name, item.conname);
            EXECUTE format('ALTER TABLE pipehandler.%I ADD CONSTRAINT %I %s', name, item.conname, item.definition);
        END LOOP;
        FOREACH one IN ARRAY statements LOOP
            EXECUTE one;
        END LOOP;
        EXECUTE format('ALTER TABLE pipehandler.%I ATTACH PARTITION pipehandler.%I FOR VALUES FROM (MINVALUE) TO (%L)',
                       name, name || '_undated', date '1970-01-02');
        EXECUTE format('ALTER TABLE pipehandler.%I DROP CONSTRAINT %I', name || '_undated', name || '_undated');
    END LOOP;
    FOREACH one IN ARRAY dependents LOOP
        EXECUTE one;
    END LOOP;
END
$$;

CREATE FUNCTION pipehandler.remove_rest_of_message() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET enable_hashjoin = off
SET enable_mergejoin = off
SET plan_cache_mode = force_custom_plan
AS $$
DECLARE
    days CONSTANT date[] := ARRAY(SELECT DISTINCT g.day FROM gone g);
    kept uuid;
BEGIN
    -- With an older snapshot, a delivery that has just been stored would not be seen.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'messages are removed in transactions that are READ COMMITTED'
            USING ERRCODE = 'invalid_transaction_state';
    END IF;
    SELECT g.id INTO kept
      FROM gone g
     WHERE EXISTS (SELECT FROM pipehandler.delivery d WHERE d.message = g.id AND d.day = g.day)
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'message % still has deliveries', kept
            USING ERRCODE = 'foreign_key_violation', HINT = 'Remove these first; the function remove_deliveries does both.';
    END IF;
    DELETE FROM pipehandler.raw_message r
     USING gone g
     WHERE r.day = ANY (days) AND r.day = g.day AND r.message = g.id;
    DELETE FROM pipehandler.attachment a
     USING gone g
     WHERE a.day = ANY (days) AND a.day = g.day AND a.message = g.id;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pipehandler.remove_rest_of_message() IS
'Trigger of message: with a message go its bytes and its attachments. Raises foreign_key_violation where it still has
deliveries. It runs as the owner, as the foreign keys did whose place it takes.';
CREATE TRIGGER remove_rest_of_message AFTER DELETE ON pipehandler.message
   REFERENCING OLD TABLE AS gone
   FOR EACH STATEMENT
   EXECUTE FUNCTION pipehandler.remove_rest_of_message();

CREATE FUNCTION pipehandler.hold_messages() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    LOCK TABLE ONLY pipehandler.message IN ROW SHARE MODE;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pipehandler.hold_messages() IS
'Trigger of delivery: a day is not dropped while a transaction gives one of its deliveries another time, so that a
delivery that has not expired always has its message.';
CREATE TRIGGER hold_messages BEFORE UPDATE OF day, message, expires_at ON pipehandler.delivery
   FOR EACH STATEMENT
   EXECUTE FUNCTION pipehandler.hold_messages();

-- Functions whose arguments or columns are others in sql/code.
DROP FUNCTION IF EXISTS pipehandler.remove_unreferenced(uuid[]);
DROP FUNCTION IF EXISTS pipehandler.remove_due(bigint[], uuid[]);
DROP FUNCTION IF EXISTS pipehandler.delivery_of(bytea, bigint);
DROP FUNCTION IF EXISTS pipehandler.is_wanted(bigint, jsonb);
DROP FUNCTION IF EXISTS pipehandler.count_attachments(uuid);
