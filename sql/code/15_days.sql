-- The days: message, raw_message and attachment are divided by the day (UTC, the clock of the database) on which they
-- were stored. The partition of a day has the day in its name; what has none is in the partition _undated, with the day
-- 1970-01-01: what was stored before the tables were divided, and what arrives while the partition of its day is
-- missing. docs/design/partitions.md has the reasons.
--
-- In all files of sql/code: a statement that reads one of these tables names the days, as values that are known when it
-- is planned (plan_cache_mode = force_custom_plan), or its plan would have all partitions. INSERT need not.

CREATE OR REPLACE FUNCTION pipehandler.create_days(ahead integer DEFAULT 7, since date DEFAULT NULL) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '5s'
AS $$
DECLARE
    today   CONSTANT date := (clock_timestamp() AT TIME ZONE 'UTC')::date;
    one     record;
    created integer := 0;
BEGIN
    FOR one IN
        SELECT t.name, t.key, (today + n) AS day, t.name || to_char(today + n, '_YYYYMMDD') AS leaf,
               pg_get_userbyid(c.relowner) AS owner
          FROM generate_series(CASE WHEN since < today THEN greatest(since, '1970-01-02') - today ELSE 0 END,
                               ahead) AS n,
               (VALUES ('message', 'id'), ('raw_message', 'message'), ('attachment', 'message, ordinal'))
               AS t (name, key)
          JOIN pg_class c ON c.oid = ('pipehandler.' || t.name)::regclass
         ORDER BY n
    LOOP
        CONTINUE WHEN to_regclass('pipehandler.' || one.leaf) IS NOT NULL;
        -- One after the other, by the lock that ATTACH PARTITION takes as well. to_regclass may not know yet what
        -- another session created while this one waited.
        LOCK TABLE ONLY pipehandler.message IN SHARE UPDATE EXCLUSIVE MODE;
        CONTINUE WHEN EXISTS (SELECT FROM pg_class c
                               WHERE c.relnamespace = 'pipehandler'::regnamespace AND c.relname = one.leaf);
        -- Neither statement takes a lock that a delivery waits for.
        EXECUTE format('CREATE TABLE pipehandler.%I (LIKE pipehandler.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS'
                       ' INCLUDING STORAGE INCLUDING COMPRESSION, PRIMARY KEY (%s))'
                       ' WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 500,'
                       ' toast.autovacuum_vacuum_scale_factor = 0.02, toast.autovacuum_vacuum_threshold = 500)',
                       one.leaf, one.name, one.key);
        EXECUTE format('GRANT SELECT ON pipehandler.%I TO pipehandler_reader, pipehandler_maintenance', one.leaf);
        IF one.owner <> CURRENT_USER THEN
            EXECUTE format('ALTER TABLE pipehandler.%I OWNER TO %I', one.leaf, one.owner);
        END IF;
        EXECUTE format('ALTER TABLE pipehandler.%I ATTACH PARTITION pipehandler.%I FOR VALUES FROM (%L) TO (%L)',
                       one.name, one.leaf, one.day, one.day + 1);
        created := created + 1;
    END LOOP;
    RETURN created / 3;
END
$$;
COMMENT ON FUNCTION pipehandler.create_days(integer, date) IS
'Creates the partitions of today and of so many days ahead, and of those since a day in the past (null: none), where
they are missing; returns of how many days. No delivery waits for it. Each partition takes locks until the end of the
transaction, so create a hundred days at a time.';

CREATE OR REPLACE FUNCTION pipehandler.has_day(day date) RETURNS boolean
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    suffix CONSTANT text := to_char(has_day.day, '_YYYYMMDD');
BEGIN
    -- A partition that an operator has detached keeps its name. One that is half detached, where CONCURRENTLY was
    -- interrupted, has itself as root.
    RETURN coalesce(pg_partition_root(to_regclass('pipehandler.message' || suffix)) = 'pipehandler.message'::regclass
                    AND pg_partition_root(to_regclass('pipehandler.raw_message' || suffix))
                        = 'pipehandler.raw_message'::regclass
                    AND pg_partition_root(to_regclass('pipehandler.attachment' || suffix))
                        = 'pipehandler.attachment'::regclass, false);
END
$$;
COMMENT ON FUNCTION pipehandler.has_day(date) IS
'Whether all three partitions of a day are there, and attached.';

CREATE OR REPLACE FUNCTION pipehandler.days_prepared() RETURNS integer
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
    SELECT coalesce(min(n), 8)
      FROM generate_series(0, 7) AS n
     WHERE NOT pipehandler.has_day(clock_timestamp()::date + n)
$$;
COMMENT ON FUNCTION pipehandler.days_prepared() IS
'For monitoring: of how many days, from today on, the partitions are there: 8 after pipehandler expire has run; with 0
the partition of today is missing.';

CREATE OR REPLACE FUNCTION pipehandler.days()
RETURNS TABLE (day date, is_divided boolean, first_due timestamptz, last_due timestamptz, waits boolean)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    today CONSTANT date := (now() AT TIME ZONE 'UTC')::date;
BEGIN
    RETURN QUERY
        WITH RECURSIVE used (day) AS (
            -- From one day to the next in the index, not over all deliveries.
            (SELECT d.day FROM pipehandler.delivery d ORDER BY d.day LIMIT 1)
            UNION ALL
            SELECT (SELECT d.day FROM pipehandler.delivery d WHERE d.day > u.day ORDER BY d.day LIMIT 1)
              FROM used u
             WHERE u.day IS NOT NULL
        ),
        divided (day) AS (
            SELECT to_date(right(c.relname, 8), 'YYYYMMDD')
              FROM pg_inherits i
              JOIN pg_class c ON c.oid = i.inhrelid
             WHERE i.inhparent = 'pipehandler.message'::regclass AND c.relname ~ '^message_[0-9]{8}$'
               AND NOT i.inhdetachpending
        ),
        known AS (
            SELECT coalesce(u.day, p.day) AS day, p.day IS NOT NULL AS is_divided
              FROM (SELECT o.day FROM used o WHERE o.day IS NOT NULL) AS u
              FULL JOIN divided p ON p.day = u.day
        )
        SELECT k.day, k.is_divided, f.due, l.due,
               coalesce(k.is_divided AND k.day < today - 1
                        AND l.due BETWEEN now() - interval '24 hours' AND now() + interval '24 hours', false)
          FROM known k
          LEFT JOIN LATERAL (SELECT d.expires_at AS due FROM pipehandler.delivery d
                              WHERE d.day = k.day ORDER BY d.expires_at LIMIT 1) AS f ON true
          LEFT JOIN LATERAL (SELECT coalesce(d.expires_at, 'infinity') AS due FROM pipehandler.delivery d
                              WHERE d.day = k.day ORDER BY d.expires_at DESC LIMIT 1) AS l ON true;
END
$$;
COMMENT ON FUNCTION pipehandler.days() IS
'The days on which mail was stored, or that have partitions (is_divided): when the first and the last of their
deliveries expire by themselves (first_due: null where none does; last_due: infinity where one does not, null where
there are none), and whether expire waits for the day to go as a whole: that is so where it ended a day ago and its
last delivery is due within a day, or has been for less than one. A day that could not be dropped for longer, because
its tables are always in use, is removed row by row.';

CREATE OR REPLACE FUNCTION pipehandler.partitions_of(day date) RETURNS SETOF regclass
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
    SELECT c.oid::regclass
      FROM (VALUES ('message'), ('raw_message'), ('attachment')) AS t (name)
      JOIN pg_inherits i ON i.inhparent = ('pipehandler.' || t.name)::regclass AND NOT i.inhdetachpending
      JOIN pg_class c ON c.oid = i.inhrelid AND c.relname = t.name || to_char(partitions_of.day, '_YYYYMMDD')
$$;
COMMENT ON FUNCTION pipehandler.partitions_of(date) IS
'The partitions of a day that are attached: what an operator has detached keeps its name, and is not ours any more,
half detached or not.';

CREATE OR REPLACE FUNCTION pipehandler.may_drop_day(day date) RETURNS boolean
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
DECLARE
    leaf regclass;
    used boolean;
BEGIN
    IF EXISTS (SELECT FROM pipehandler.delivery d WHERE d.day = may_drop_day.day AND d.expires_at > now())
       OR EXISTS (SELECT FROM pipehandler.delivery d WHERE d.day = may_drop_day.day AND d.expires_at IS NULL) THEN
        RETURN false;
    END IF;
    IF EXISTS (SELECT FROM pipehandler.delivery d WHERE d.day = may_drop_day.day) THEN
        RETURN true;
    END IF;
    -- Mail without any delivery is that of a restore, whose deliveries are still to come.
    FOR leaf IN SELECT p.oid FROM pipehandler.partitions_of(may_drop_day.day) AS p (oid) LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %s)', leaf) INTO used;
        IF used THEN
            RETURN false;
        END IF;
    END LOOP;
    RETURN true;
END
$$;
COMMENT ON FUNCTION pipehandler.may_drop_day(date) IS
'For pipehandler.drop_day: whether all deliveries of a day have expired by themselves, or it has neither deliveries nor
mail.';

CREATE OR REPLACE FUNCTION pipehandler.drop_day(day date) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET lock_timeout = '500ms'
AS $$
DECLARE
    leaves text;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'days are removed in transactions that are READ COMMITTED, or one that has just been used '
                        'could be lost' USING ERRCODE = 'invalid_transaction_state';
    END IF;
    -- A transaction that stores something has begun on its day, and may end later.
    IF (drop_day.day > 'epoch' AND drop_day.day < (now() AT TIME ZONE 'UTC')::date - 1) IS NOT TRUE THEN
        RAISE EXCEPTION 'the day % has not been over for a day', drop_day.day
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT pipehandler.may_drop_day(drop_day.day) THEN
        RETURN false;
    END IF;
    -- A transaction that stores a delivery holds a lock on message from before the delivery can be seen until its end,
    -- and so does one that gives it another time (the trigger hold_messages). So the second check sees every delivery.
    -- The tables are locked in the order of ingest. Deliveries wait for this, so it may not wait for long.
    BEGIN
        LOCK TABLE ONLY pipehandler.message, ONLY pipehandler.raw_message, ONLY pipehandler.attachment
          IN ACCESS EXCLUSIVE MODE;
        IF NOT pipehandler.may_drop_day(drop_day.day) THEN
            RETURN false;
        END IF;
        SELECT string_agg(p.oid::text, ', ') INTO leaves FROM pipehandler.partitions_of(drop_day.day) AS p (oid);
        IF leaves IS NOT NULL THEN
            EXECUTE 'DROP TABLE ' || leaves;
        END IF;
    EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
        RETURN NULL; -- a backup, for example, reads them
    END;
    RETURN true;
END
$$;
COMMENT ON FUNCTION pipehandler.drop_day(date) IS
'Drops the partitions of a day all of whose deliveries have expired by themselves, or that has no mail. Returns whether
it did: false where a delivery has not expired, or where there is mail without any delivery, which is that of a restore
that goes on; null where another session uses the tables for longer than half a second. Raises invalid_parameter_value
for a day that has not been over for a day.';

CREATE OR REPLACE FUNCTION pipehandler.remove_days(
    batch integer DEFAULT 20000,
    OUT days       bigint,
    OUT deliveries bigint,
    OUT more       boolean
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET plan_cache_mode = force_custom_plan
SET lock_timeout = '500ms' -- below deadlock_timeout, so that a delivery that waits for this never fails
AS $$
DECLARE
    today CONSTANT date := (now() AT TIME ZONE 'UTC')::date;
    its    date;
    failed text;
    code   text;
BEGIN
    days := 0;
    deliveries := 0;
    -- The partitions go first and at once, then the deliveries, which nothing shows any more. A run that ends in
    -- between is continued by the next.
    SELECT o.day INTO its
      FROM pipehandler.days() AS o
     WHERE NOT o.is_divided AND o.day > 'epoch' AND o.first_due <= now()
     ORDER BY o.day
     LIMIT 1;
    IF FOUND THEN
        BEGIN
            DELETE FROM pipehandler.delivery d
             WHERE d.id = ANY (ARRAY(SELECT o.id FROM pipehandler.delivery o
                                      WHERE o.day = its AND o.expires_at <= now()
                                      ORDER BY o.expires_at
                                      LIMIT batch
                                        FOR UPDATE SKIP LOCKED)) -- the next run takes those
               AND d.day = its AND d.expires_at <= now();
            GET DIAGNOSTICS deliveries = ROW_COUNT;
        EXCEPTION
            WHEN transaction_rollback OR serialization_failure OR deadlock_detected THEN
                RAISE;
            WHEN OTHERS THEN
                NULL; -- pipehandler.expire removes them one by one
        END;
        more := deliveries > 0;
        IF more THEN
            RETURN;
        END IF;
    END IF;
    FOR its IN
        SELECT o.day
          FROM pipehandler.days() AS o
         WHERE o.is_divided AND o.day > 'epoch' AND o.day < today - 1 AND coalesce(o.last_due <= now(), true)
         ORDER BY o.day
    LOOP
        BEGIN
            days := pipehandler.drop_day(its)::integer; -- null: the tables are in use, and so are those of other days
        EXCEPTION
            WHEN transaction_rollback OR serialization_failure OR deadlock_detected THEN
                RAISE;
            WHEN OTHERS THEN -- an application has a view of the partition, for example: other days can go
                failed := coalesce(failed, format('the day %s cannot be removed: %s', its, SQLERRM));
                code := SQLSTATE;
                days := 0;
        END;
        EXIT WHEN coalesce(days, 1) = 1;
    END LOOP;
    days := coalesce(days, 0);
    more := days > 0;
    IF NOT more AND failed IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = code, MESSAGE = failed;
    END IF;
END
$$;
COMMENT ON FUNCTION pipehandler.remove_days(integer) IS
'Removes one day all of whose mail has expired by itself: first its partitions, then, in further calls, its deliveries,
up to batch of them at a time. Call it again, each call in its own transaction, while more is true. Days of which only
a part is due are a matter of pipehandler.expire. May fail with 40P01 or 55P03: call it again. Raises what keeps a day
from being dropped, once no other day is left: after a day pipehandler.expire removes its mail row by row.';
