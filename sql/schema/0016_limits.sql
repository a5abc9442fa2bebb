-- The schema refuses what readers cannot read: times outside of the years 1 to 9999 (UTC), and offsets that RFC 5322 3.3
-- does not allow (-9959 to +9959). 0017 validates what is there already, while deliveries go on.

LOCK TABLE pipehandler.message, pipehandler.delivery IN ACCESS EXCLUSIVE MODE;

ALTER TABLE pipehandler.message
    ADD CONSTRAINT message_received_at CHECK (received_at >= '0001-01-01 00:00:00+00' AND received_at < '10000-01-01 00:00:00+00') NOT VALID,
    ADD CONSTRAINT message_date CHECK (date >= '0001-01-01 00:00:00+00' AND date < '10000-01-01 00:00:00+00') NOT VALID,
    ADD CONSTRAINT message_date_offset CHECK (date_offset BETWEEN -5999 AND 5999) NOT VALID;
ALTER TABLE pipehandler.delivery
    ADD CONSTRAINT delivery_times CHECK (
        received_at >= '0001-01-01 00:00:00+00' AND received_at < '10000-01-01 00:00:00+00'
        AND stored_at >= '0001-01-01 00:00:00+00' AND stored_at < '10000-01-01 00:00:00+00') NOT VALID,
    ADD CONSTRAINT delivery_ends CHECK (
        coalesce(expires_at, 'epoch') >= '0001-01-01 00:00:00+00' AND coalesce(expires_at, 'epoch') < '10000-01-01 00:00:00+00'
        AND coalesce(raw_until, 'epoch') >= '0001-01-01 00:00:00+00' AND coalesce(raw_until, 'epoch') < '10000-01-01 00:00:00+00'
        AND coalesce(attachments_until, 'epoch') >= '0001-01-01 00:00:00+00'
        AND coalesce(attachments_until, 'epoch') < '10000-01-01 00:00:00+00') NOT VALID;

CREATE TABLE pipehandler.doubled (
    kind     text        NOT NULL CHECK (kind IN ('delivery', 'lease')),
    id       bigint      NOT NULL,
    found_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
