-- What applications need from the message without parsing it themselves, and what a later copy of a delivery has of its
-- own. All of it is added without rewriting a table: what is NOT NULL has a constant default.

LOCK TABLE pipehandler.delivery, pipehandler.message, pipehandler.attachment IN ACCESS EXCLUSIVE MODE;

ALTER TABLE pipehandler.delivery
    ADD COLUMN later_original_recipients text[] NOT NULL DEFAULT '{}',
    ADD COLUMN later_list_ids            text[] NOT NULL DEFAULT '{}';

ALTER TABLE pipehandler.message
    ADD COLUMN text_from_html        text,
    ADD COLUMN preview               text,
    ADD COLUMN auto_submitted        text,
    ADD COLUMN precedence            text,
    ADD COLUMN list_unsubscribe      text[]  NOT NULL DEFAULT '{}',
    ADD COLUMN list_unsubscribe_post boolean NOT NULL DEFAULT false,
    ADD COLUMN report                jsonb;

ALTER TABLE pipehandler.attachment
    ADD COLUMN parameters          jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN content_location    text,
    ADD COLUMN content_description text;

-- As for the bodies in 0001.
DO $$
BEGIN
    ALTER TABLE pipehandler.message ALTER COLUMN text_from_html SET COMPRESSION lz4;
EXCEPTION
    WHEN feature_not_supported OR invalid_parameter_value THEN
        NULL;
END
$$;
