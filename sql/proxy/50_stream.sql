-- The stream of all shards. A cursor has one position for each: 0:POSITION,1:POSITION. For PL/Proxy, see 10_leases.sql.

CREATE OR REPLACE FUNCTION pipehandler.shard_positions(cursor text) RETURNS text[]
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    shards    CONSTANT integer := (SELECT s.shards FROM pipehandler.sharding s);
    positions text[];
BEGIN
    IF coalesce(cursor, '') = '' THEN
        RETURN array_fill(''::text, ARRAY[shards]);
    END IF;
    SELECT array_agg(split_part(p.part, ':', 2) ORDER BY p.n) INTO positions
      FROM string_to_table(cursor, ',') WITH ORDINALITY AS p (part, n)
    HAVING count(*) = shards
       AND bool_and(p.part ~ '^[0-9]+:[0-9a-f-]*$' AND split_part(p.part, ':', 1) = (p.n - 1)::text);
    IF positions IS NULL THEN
        RAISE EXCEPTION 'invalid cursor %: pass one that was returned with a delivery of these % shards, '
                        'pipehandler.cursor_now(), or an empty one to begin with the first delivery',
            quote_literal(left(cursor, 60)), shards;
    END IF;
    RETURN positions;
END
$$;
COMMENT ON FUNCTION pipehandler.shard_positions(text) IS
'For the functions that take a cursor: the position in the stream of each shard, that of shard 0 first. Raises
raise_exception for an invalid cursor.';

CREATE OR REPLACE FUNCTION pipehandler.shard_cursor(positions text[]) RETURNS text
LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT string_agg((p.n - 1) || ':' || p.place, ',' ORDER BY p.n)
      FROM unnest(positions) WITH ORDINALITY AS p (place, n)
$$;
COMMENT ON FUNCTION pipehandler.shard_cursor(text[]) IS
'The reverse of pipehandler.shard_positions.';

CREATE OR REPLACE FUNCTION pipehandler.on_shard_deliveries_after(
    shard         integer,
    place         text,
    its_recipient text,
    its_lease     bigint,
    most          integer
) RETURNS SETOF pipehandler.streamed_delivery
LANGUAGE plproxy VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    CLUSTER 'pipehandler';
    RUN ON shard;
    SELECT d.* FROM pipehandler.deliveries_after($2, $3, $4, $5) AS d;
$$;

-- Formerly the one that deliveries_waiting called.
DROP FUNCTION IF EXISTS pipehandler.on_shard_deliveries_waiting(integer);

CREATE OR REPLACE FUNCTION pipehandler.on_all_shards_cursor_now() RETURNS TABLE (shard integer, place text)
LANGUAGE plproxy VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    CLUSTER 'pipehandler';
    RUN ON ALL;
    SELECT s.shard, pipehandler.cursor_now() AS place FROM pipehandler.sharding AS s;
$$;

CREATE OR REPLACE FUNCTION pipehandler.deliveries_after(
    cursor    text,
    recipient text    DEFAULT NULL,
    lease     bigint  DEFAULT NULL,
    max_rows  integer DEFAULT 100
) RETURNS SETOF pipehandler.streamed_delivery
LANGUAGE plpgsql STABLE SECURITY DEFINER ROWS 100
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    positions text[] := pipehandler.shard_positions(cursor);
    shards    CONSTANT integer := cardinality(positions);
    -- Another first one each time: a shard with much mail must not hold back the others.
    first     CONSTANT integer := floor(random() * shards);
    left_over integer := max_rows;
    shard     integer;
    delivery  pipehandler.streamed_delivery;
BEGIN
    FOR turn IN 0 .. shards - 1 LOOP
        EXIT WHEN left_over <= 0;
        shard := (first + turn) % shards;
        -- All mail of a recipient is on one shard. That of a lease is, too, but for a catch-all.
        CONTINUE WHEN recipient IS NOT NULL AND shard <> pipehandler.shard_of_address(recipient);
        BEGIN
            PERFORM pipehandler.expect_shard(shard);
            FOR delivery IN
                SELECT d.*
                  FROM pipehandler.on_shard_deliveries_after(shard, positions[shard + 1], recipient, lease, left_over)
                       AS d
            LOOP
                positions[shard + 1] := delivery.cursor;
                delivery.cursor := pipehandler.shard_cursor(positions);
                left_over := left_over - 1;
                RETURN NEXT delivery;
            END LOOP;
        EXCEPTION
            -- The others go on, and its mail comes when it is back.
            WHEN connection_exception THEN
                RAISE WARNING '%', sqlerrm;
            WHEN internal_error OR insufficient_resources OR admin_shutdown OR crash_shutdown OR cannot_connect_now THEN
                RAISE WARNING 'shard % is away: %', shard, sqlerrm;
        END;
    END LOOP;
END
$$;

CREATE OR REPLACE FUNCTION pipehandler.cursor_now() RETURNS text
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM pipehandler.expect_all_shards();
    RETURN (SELECT pipehandler.shard_cursor(array_agg(c.place ORDER BY c.shard))
              FROM pipehandler.on_all_shards_cursor_now() AS c);
END
$$;

CREATE OR REPLACE FUNCTION pipehandler.deliveries_waiting() RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    shards CONSTANT integer := (SELECT s.shards FROM pipehandler.sharding s);
    answer text[];
BEGIN
    FOR shard IN 0 .. shards - 1 LOOP
        BEGIN
            answer := pipehandler.ask_shard(shard, 'SELECT ARRAY[pipehandler.deliveries_waiting()::text]');
            IF answer[1]::boolean THEN
                RETURN true;
            END IF;
        EXCEPTION
            WHEN internal_error OR connection_exception OR insufficient_resources OR admin_shutdown OR crash_shutdown
                 OR cannot_connect_now THEN
                NULL; -- as in deliveries_after, which says so
        END;
    END LOOP;
    RETURN false;
END
$$;
