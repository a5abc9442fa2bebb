-- A full queue of notifications (any role that can connect may fill it) makes a transaction fail that sends one. What
-- ends an inbox or revokes a key must not fail for that: it sends none while the queue is nearly full. The page looks at
-- the keys of its streams once a minute anyway.

CREATE OR REPLACE FUNCTION pipehandler.announce_change() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
BEGIN
    IF tg_table_name = 'capability' THEN
        IF EXISTS (SELECT FROM changed) AND pg_notification_queue_usage() < 0.9 THEN
            PERFORM pg_notify('pipehandler_inbox', '');
        END IF;
    ELSIF EXISTS (SELECT FROM changed c, pipehandler.capability k WHERE k.lease = c.lease)
          AND pg_notification_queue_usage() < 0.9 THEN
        PERFORM pg_notify('pipehandler_inbox', '');
    END IF;
    RETURN NULL;
END
$$;
COMMENT ON FUNCTION pipehandler.announce_change() IS
'Trigger of address and capability: notifies the channel pipehandler_inbox, without a payload, when a key, or a lease
that a key opens, is changed or removed; unless the queue of notifications is nearly full.';
