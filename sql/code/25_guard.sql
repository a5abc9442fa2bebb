-- The guard against rules of retention that remove by mistake: keep = "1s" instead of "1w". It stops a change of the
-- rules, and nothing else: what the present rules or the end of a lease make due is removed meanwhile.

CREATE OR REPLACE FUNCTION pipehandler.change_retention(
    rules       jsonb,
    max_percent integer DEFAULT 100,
    OUT changed    boolean,
    OUT held       boolean,
    OUT deliveries bigint,
    OUT stored     bigint
)
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    hold    pipehandler.retention_hold;
    -- What a person has not seen for a day is as good as gone. So a rule of an hour counts, too.
    horizon CONSTANT timestamptz := now() + interval '24 hours';
    -- Of many deliveries a sample is enough, unless none may go. While this transaction counts, nothing that is stored
    -- meanwhile reaches the stream.
    sample  CONSTANT bigint := 5000;
    factor  float8 := 1;
BEGIN
    held := false;
    SELECT h.* INTO hold FROM pipehandler.retention_hold h;
    -- Counted before: it reads all deliveries, and expire runs every minute.
    IF hold.rules = change_retention.rules
       AND coalesce(hold.deliveries * 100 > max_percent * hold.stored, max_percent < 100) THEN
        changed := false;
        held := true;
        deliveries := hold.deliveries;
        stored := hold.stored;
        RETURN;
    END IF;

    BEGIN
        changed := pipehandler.set_retention(rules);
        IF changed AND max_percent < 100 THEN
            BEGIN
                IF max_percent > 0 THEN
                    factor := greatest(1, (SELECT count(*) FROM pipehandler.delivery) / sample::float8);
                END IF;
                -- In times before the horizon, because no row can make those leave the range of a timestamp.
                SELECT count(*) FILTER (
                           WHERE coalesce(a.expires_at > horizon, true)
                             AND (coalesce(d.expires_at > horizon, true) AND d.stored_at <= horizon - r.keep
                                  OR coalesce(d.raw_until > horizon, true) AND d.stored_at <= horizon - r.raw
                                  OR coalesce(d.attachments_until > horizon, true)
                                     AND d.stored_at <= horizon - r.attachments)),
                       count(*)
                  INTO change_retention.deliveries, change_retention.stored
                  FROM pipehandler.delivery d TABLESAMPLE BERNOULLI (100 / factor) REPEATABLE (1)
                  JOIN pipehandler.message m ON m.day = d.day AND m.id = d.message
                  LEFT JOIN pipehandler.address a ON a.lease = d.lease
                  LEFT JOIN LATERAL pipehandler.retention_of(
                           d.recipient, d.sender, m.from_list -> 0 ->> 'address', m.list_id) AS r ON true
                 WHERE coalesce(d.expires_at > now(), true) AND coalesce(a.expires_at > now(), true);
                deliveries := round(deliveries * factor);
                stored := round(stored * factor);
            EXCEPTION
                WHEN transaction_rollback OR lock_not_available THEN
                    RAISE;
                WHEN OTHERS THEN -- a row that the disk has damaged: a person decides
                    RAISE WARNING 'what the rules would remove cannot be counted: % (SQLSTATE %)', SQLERRM, SQLSTATE;
                    deliveries := NULL;
                    stored := NULL;
            END;
            IF coalesce(deliveries * 100 > max_percent * stored, true) THEN
                RAISE EXCEPTION USING ERRCODE = 'PH001', MESSAGE = 'held'; -- which takes the new rules back
            END IF;
        END IF;
    EXCEPTION WHEN SQLSTATE 'PH001' THEN
        held := true;
        changed := false;
        INSERT INTO pipehandler.retention_hold AS h (rules, deliveries, stored)
        VALUES (change_retention.rules, change_retention.deliveries, change_retention.stored)
            ON CONFLICT (single) DO UPDATE
           SET rules = excluded.rules, deliveries = excluded.deliveries, stored = excluded.stored,
               since = CASE WHEN h.rules = excluded.rules THEN h.since ELSE excluded.since END;
    END;
END
$$;
COMMENT ON FUNCTION pipehandler.change_retention(jsonb, integer) IS
'As pipehandler.set_retention, unless the new rules would remove too much: mail, exact bytes or contents of attachments
of more than max_percent of the stored deliveries, within a day, which the present rules would keep for longer. Then the
present rules stay, for new deliveries too, held is true, and pipehandler.retention_hold has the new ones. Call it
with max_percent = 100 to let them pass. deliveries: how many would lose something; stored: of how many; both from a
sample where there are more than 5,000, unless max_percent is 0; null where they were not counted, or a damaged row
prevented it. Mail whose lease ends within the day does not count.';

CREATE OR REPLACE FUNCTION pipehandler.retention_held(
    OUT since      timestamptz,
    OUT deliveries bigint,
    OUT stored     bigint
) RETURNS SETOF record
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT h.since, h.deliveries, h.stored FROM pipehandler.retention_hold h
$$;
COMMENT ON FUNCTION pipehandler.retention_held() IS
'For monitoring: one row while changed rules of retention wait for a person, since when, and how many of the stored
deliveries they would remove; otherwise none.';
