-- A message goes to the shard of its recipients. For PL/Proxy, see 10_leases.sql.

CREATE OR REPLACE FUNCTION pipehandler.shard_of_envelope(envelope jsonb) RETURNS integer
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    recipients CONSTANT jsonb := envelope -> 'recipients';
    delimiter  CONSTANT text := coalesce(envelope ->> 'delimiter', '+');
    shards     integer[] := ARRAY[]::integer[];
    its        integer;
BEGIN
    -- For every message: expressions alone, no statement.
    FOR n IN 0 .. coalesce(jsonb_array_length(recipients), 0) - 1 LOOP
        its := pipehandler.shard_of_recipient(recipients -> n ->> 'recipient', delimiter);
        IF its <> ALL (shards) THEN
            shards := shards || its;
        END IF;
    END LOOP;
    IF cardinality(shards) <> 1 THEN
        RAISE EXCEPTION 'the recipients of one call are on % shards; ask pipehandler.route first', cardinality(shards)
            USING ERRCODE = 'PH101', HINT = 'In main.cf: pipehandler_destination_recipient_limit = 1.';
    END IF;
    RETURN shards[1];
END
$$;
COMMENT ON FUNCTION pipehandler.shard_of_envelope(jsonb) IS
'The shard of all recipients of a message. Raises PH101 where they are on several: each shard has a transaction of its
own, so one call cannot be all or nothing.';

CREATE OR REPLACE FUNCTION pipehandler.ingest(
    envelope  jsonb,
    parsed    jsonb,
    text_body text,
    html_body text,
    prepended bytea,
    raw       bytea,
    contents  bytea[]
) RETURNS TABLE (recipient text, delivery bigint, message uuid, duplicate boolean)
LANGUAGE plproxy VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET client_min_messages = warning -- a commit without its standby is reported as one
AS $$
    CLUSTER 'pipehandler';
    RUN ON pipehandler.shard_of_envelope(envelope);
    SELECT i.recipient, i.delivery, i.message, i.duplicate FROM pipehandler.ingest($1, $2, $3, $4, $5, $6, $7) AS i;
$$;

CREATE OR REPLACE FUNCTION pipehandler.on_shard_answers(shard integer) RETURNS SETOF boolean
LANGUAGE plproxy VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    CLUSTER 'pipehandler';
    RUN ON shard;
    SELECT pg_current_xact_id() IS NOT NULL AND 'pipehandler'::regnamespace IS NOT NULL AS answers;
$$;

CREATE OR REPLACE FUNCTION pipehandler.shard_answers(shard integer) RETURNS boolean
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT a.answers FROM pipehandler.on_shard_answers(shard) AS a (answers)
$$;
COMMENT ON FUNCTION pipehandler.shard_answers(integer) IS
'Whether a shard can store something: the handler asks after a failure. Raises an error where it cannot.';
