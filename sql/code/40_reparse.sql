-- What was read from the bytes, read again: by a newer parser, or after the reason of a failure is gone.
--
-- Columns and limits are those of pipehandler.ingest. It runs as its caller, so only a role that may change these
-- tables (pipehandler_maintenance) can use it. For enable_seqscan, see 10_addresses.sql.

CREATE OR REPLACE FUNCTION pipehandler.reparse_on(
    day       date,
    message   uuid,
    parsed    jsonb,
    text_body text,
    html_body text,
    contents  bytea[],
    dry_run   boolean DEFAULT false
) RETURNS TABLE (name text, before jsonb, after jsonb)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    stored   pipehandler.message;
    derived  pipehandler.message;
    replaced boolean;
    needed   boolean;
BEGIN
    -- One after the other, but without waiting for deliveries of the message that are under way.
    IF dry_run THEN
        SELECT m.* INTO stored FROM pipehandler.message m
         WHERE m.day = reparse_on.day AND m.id = reparse_on.message;
    ELSE
        SELECT m.* INTO stored FROM pipehandler.message m
         WHERE m.day = reparse_on.day AND m.id = reparse_on.message
           FOR NO KEY UPDATE;
    END IF;
    IF NOT FOUND THEN
        RETURN;
    END IF;

    -- What is not derived from the bytes keeps its value.
    derived := jsonb_populate_record(stored, parsed - ARRAY['day', 'id', 'received_at', 'size', 'sha256']);
    derived.text_body := reparse_on.text_body;
    derived.html_body := reparse_on.html_body;
    derived.state := CASE WHEN derived.error IS NULL THEN 'parsed' ELSE 'failed' END;
    derived.message_id := CASE WHEN octet_length(derived.message_id) <= 998 THEN derived.message_id END;
    derived.from_name := derived.from_list -> 0 ->> 'name';
    derived.from_address := CASE WHEN octet_length(derived.from_list -> 0 ->> 'address') <= 998
                                 THEN derived.from_list -> 0 ->> 'address' END;
    -- These are facts about the delivery, not about the bytes. Rows of earlier releases have the former code of one. A
    -- column that holds something else than defects has none that could stay.
    derived.defects := (SELECT coalesce(jsonb_agg(d.kept ORDER BY d.n), '[]')
                          FROM (SELECT CASE o.defect ->> 'code'
                                            WHEN 'shorter-than-told'
                                            THEN o.defect || '{"code": "smaller-than-declared"}'
                                            ELSE o.defect END AS kept, o.n
                                  FROM jsonb_path_query(stored.defects,
                                           '$[*] ? (@.code == "smaller-than-declared" || @.code == "shorter-than-told"
                                                    || @.code == "envelope-value")
                                                 ? (@.type() == "object" && @.code.type() == "string"
                                                    && @.where.type() == "string" && @.detail.type() == "string")')
                                       WITH ORDINALITY AS o (defect, n)) AS d
                         WHERE NOT derived.defects @> jsonb_build_array(d.kept))
                       || derived.defects;

    SELECT EXISTS (SELECT FROM pipehandler.delivery d
                    WHERE d.message = reparse_on.message AND d.day = reparse_on.day
                      AND (d.attachments_until IS NULL OR d.attachments_until > now()))
      INTO needed;
    SELECT EXISTS (
        SELECT FROM (SELECT a.* FROM pipehandler.attachment a
                      WHERE a.day = reparse_on.day AND a.message = reparse_on.message) AS o
          FULL JOIN jsonb_to_recordset(parsed -> 'attachments') AS n (
                   ordinal integer, part text, file_name text, content_type text, content_id text, disposition text,
                   size integer, sha256 text, parameters jsonb, content_location text, content_description text)
                   ON n.ordinal = o.ordinal
         WHERE (o.ordinal, o.part, o.file_name, o.content_type, o.content_id, o.disposition, o.size, o.sha256,
                o.parameters, o.content_location, o.content_description, o.content)
               IS DISTINCT FROM (n.ordinal, n.part, n.file_name, n.content_type, n.content_id, n.disposition, n.size,
                                 decode(n.sha256, 'hex'), coalesce(n.parameters, '{}'), n.content_location,
                                 n.content_description,
                                 CASE WHEN needed THEN reparse_on.contents[n.ordinal] ELSE o.content END))
      INTO replaced;
    IF replaced THEN
        RETURN QUERY
            SELECT 'attachments',
                   (SELECT coalesce(jsonb_agg(jsonb_build_object(
                               'ordinal', a.ordinal, 'part', a.part, 'file_name', a.file_name,
                               'content_type', a.content_type, 'content_id', a.content_id, 'disposition', a.disposition,
                               'size', a.size, 'sha256', encode(a.sha256, 'hex'), 'parameters', a.parameters,
                               'content_location', a.content_location, 'content_description', a.content_description,
                               'stored', a.content IS NOT NULL)
                               ORDER BY a.ordinal), '[]')
                      FROM pipehandler.attachment a
                     WHERE a.day = reparse_on.day AND a.message = reparse_on.message),
                   (SELECT coalesce(jsonb_agg(e || jsonb_build_object(
                               'stored', needed AND reparse_on.contents[(e ->> 'ordinal')::integer] IS NOT NULL)), '[]')
                      FROM jsonb_array_elements(parsed -> 'attachments') AS e);
    END IF;

    IF replaced AND NOT dry_run THEN
        -- A delivery under way may need, and write, contents that no other delivery needed until now.
        PERFORM FROM pipehandler.message m WHERE m.day = reparse_on.day AND m.id = reparse_on.message FOR UPDATE;
        SELECT EXISTS (SELECT FROM pipehandler.delivery d
                        WHERE d.message = reparse_on.message AND d.day = reparse_on.day
                          AND (d.attachments_until IS NULL OR d.attachments_until > now()))
          INTO needed;
        DELETE FROM pipehandler.attachment a WHERE a.day = reparse_on.day AND a.message = reparse_on.message;
        INSERT INTO pipehandler.attachment (
            day, message, ordinal, part, file_name, content_type, content_id, disposition, size, sha256, content,
            parameters, content_location, content_description)
        SELECT reparse_on.day, reparse_on.message, a.ordinal, a.part, a.file_name, a.content_type, a.content_id,
               a.disposition, a.size, decode(a.sha256, 'hex'), CASE WHEN needed THEN reparse_on.contents[a.ordinal] END,
               coalesce(a.parameters, '{}'), a.content_location, a.content_description
          FROM jsonb_to_recordset(parsed -> 'attachments') AS a (
                   ordinal integer, part text, file_name text, content_type text, content_id text, disposition text,
                   size integer, sha256 text, parameters jsonb, content_location text, content_description text);
    END IF;

    IF stored IS NOT DISTINCT FROM derived THEN
        RETURN;
    END IF;
    IF NOT dry_run THEN
        UPDATE pipehandler.message m
           SET (message_id, in_reply_to, reference_ids, date, date_offset, subject, from_name, from_address, from_list,
                sender_list, reply_to_list, to_list, cc_list, bcc_list, list_id, text_body, html_body, header,
                authentication, state, error, defects, parser, text_from_html, preview, auto_submitted, precedence,
                list_unsubscribe, list_unsubscribe_post, report)
             = (derived.message_id, derived.in_reply_to, derived.reference_ids, derived.date, derived.date_offset,
                derived.subject, derived.from_name, derived.from_address, derived.from_list, derived.sender_list,
                derived.reply_to_list, derived.to_list, derived.cc_list, derived.bcc_list, derived.list_id,
                derived.text_body, derived.html_body, derived.header, derived.authentication, derived.state,
                derived.error, derived.defects, derived.parser, derived.text_from_html, derived.preview,
                derived.auto_submitted, derived.precedence, derived.list_unsubscribe, derived.list_unsubscribe_post,
                derived.report)
         WHERE m.day = reparse_on.day AND m.id = reparse_on.message;
    END IF;

    -- The bodies separately: one jsonb holds less than a body may have, so they are shortened.
    RETURN QUERY
        SELECT b.name, to_jsonb(left(b.before, 1000000)), to_jsonb(left(b.after, 1000000))
          FROM (VALUES ('text_body', stored.text_body, derived.text_body),
                       ('html_body', stored.html_body, derived.html_body)) AS b (name, before, after)
         WHERE b.before IS DISTINCT FROM b.after;
    stored.text_body := NULL;
    stored.html_body := NULL;
    derived.text_body := NULL;
    derived.html_body := NULL;
    RETURN QUERY
        SELECT o.key, o.value, n.value
          FROM jsonb_each(to_jsonb(stored)) AS o
          JOIN jsonb_each(to_jsonb(derived)) AS n ON n.key = o.key
         WHERE n.value <> o.value
         ORDER BY o.key;
END
$$;
COMMENT ON FUNCTION pipehandler.reparse_on(date, uuid, jsonb, text, text, bytea[], boolean) IS
'For pipehandler.reparse and pipehandler.ingest: the same for the message of one day.';

CREATE OR REPLACE FUNCTION pipehandler.reparse(
    message   uuid,
    parsed    jsonb,
    text_body text,
    html_body text,
    contents  bytea[],
    dry_run   boolean DEFAULT false
) RETURNS TABLE (name text, before jsonb, after jsonb)
LANGUAGE plpgsql VOLATILE SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    seen text[] := ARRAY[]::text[];
    its  date;
BEGIN
    FOR its IN SELECT DISTINCT d.day FROM pipehandler.delivery d WHERE d.message = reparse.message ORDER BY d.day LOOP
        FOR name, before, after IN
            SELECT r.name, r.before, r.after
              FROM pipehandler.reparse_on(its, reparse.message, parsed, reparse.text_body, reparse.html_body,
                                          reparse.contents, dry_run) AS r
        LOOP
            CONTINUE WHEN name = ANY (seen);
            seen := seen || name;
            RETURN NEXT;
        END LOOP;
    END LOOP;
END
$$;
COMMENT ON FUNCTION pipehandler.reparse(uuid, jsonb, text, text, bytea[], boolean) IS
'Replaces what was read from the bytes of a message: the derived columns of message, and its attachments where they
differ. The arguments are those of pipehandler.ingest. Never touches raw_message, size, sha256 and received_at. The
defect smaller-than-declared stays, and contents of attachments that retention removed do not come back. Returns a row
for each column that changes (attachments count as one; of a body the first million characters), and no row where
nothing changes or the message is gone. Of a message that was stored on several days, each copy is changed. With dry_run
it changes nothing.';
