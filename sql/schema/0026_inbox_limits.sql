-- How many inboxes visitors may open. The database keeps the limits, because a page that was taken over calls
-- open_inbox directly.

-- Both tables are small (a row for each domain and for each living inbox), so the locks are short:
-- squawk-ignore-file ban-drop-default, adding-not-nullable-field, require-concurrent-index-creation

ALTER TABLE pipehandler.web_domain
    ADD COLUMN max_opened_per_hour bigint NOT NULL DEFAULT 10000 CHECK (max_opened_per_hour > 0),
    ADD COLUMN max_inboxes         bigint NOT NULL DEFAULT 100000 CHECK (max_inboxes > 0);

-- From now on the configuration says it (set_web_domains).
ALTER TABLE pipehandler.web_domain
    ALTER COLUMN max_opened_per_hour DROP DEFAULT,
    ALTER COLUMN max_inboxes         DROP DEFAULT;

ALTER TABLE pipehandler.web_inbox
    ADD COLUMN domain    text COLLATE "C",
    ADD COLUMN opened_at timestamptz;

UPDATE pipehandler.web_inbox w
   SET domain = substring(a.address FROM '@([^@]*)$'), opened_at = a.created_at
  FROM pipehandler.address a
 WHERE a.lease = w.lease;

ALTER TABLE pipehandler.web_inbox
    ALTER COLUMN domain    SET NOT NULL,
    ALTER COLUMN opened_at SET NOT NULL;

CREATE INDEX web_inbox_opened_at ON pipehandler.web_inbox (domain, opened_at);
