"""The domains whose addresses visitors of the inbox page get: `pipehandler expire` copies them from the configuration.

The page cannot change them, nor leave them out: the SQL function pipehandler.open_inbox reads them.
"""

import json
from typing import NamedTuple

from ..settings.config import Config
from .connection import Store

_DIFFERENCES = """
SELECT coalesce(d.domain, w.domain) AS domain,
       CASE WHEN d.domain IS NULL THEN 'missing' WHEN w.domain IS NULL THEN 'surplus' ELSE 'changed' END AS kind
  FROM (SELECT substring(pipehandler.canonical('@' || r.domain) FROM 2) AS domain,
               jsonb_build_object('max_ttl', r.max_ttl, 'max_life', r.max_life, 'grace', r.grace, 'held', r.held,
                                  'delimiter', r.delimiter, 'reserved_names', r.reserved_names,
                                  'max_messages', r.max_messages, 'max_octets', r.max_octets,
                                  'max_opened_per_hour', r.max_opened_per_hour, 'max_inboxes', r.max_inboxes) AS rules
          FROM jsonb_to_recordset(%s::jsonb) AS r (
                   domain text, max_ttl bigint, max_life bigint, grace bigint, held bigint, delimiter text,
                   reserved_names jsonb, max_messages bigint, max_octets bigint, max_opened_per_hour bigint,
                   max_inboxes bigint)) AS w
  FULL JOIN
       (SELECT r.domain,
               jsonb_build_object('max_ttl', extract(epoch FROM r.max_ttl)::bigint,
                                  'max_life', extract(epoch FROM r.max_life)::bigint,
                                  'grace', extract(epoch FROM r.grace)::bigint,
                                  'held', extract(epoch FROM r.held)::bigint,
                                  'delimiter', r.delimiter, 'reserved_names', to_jsonb(r.reserved_names),
                                  'max_messages', r.max_messages, 'max_octets', r.max_octets,
                                  'max_opened_per_hour', r.max_opened_per_hour, 'max_inboxes', r.max_inboxes) AS rules
          FROM pipehandler.web_domain r) AS d ON d.domain = w.domain
 WHERE d.rules IS DISTINCT FROM w.rules
 ORDER BY 1
"""
_USED = """
SELECT (SELECT count(*) FROM pipehandler.web_inbox w WHERE w.mail_until > now()) AS inboxes,
       coalesce((SELECT max(o.opened)
                   FROM (SELECT count(*) AS opened FROM pipehandler.web_inbox w
                          WHERE w.opened_at > now() - interval '1 hour' GROUP BY w.domain) AS o), 0) AS opened
"""
_SET = "SELECT changed, refused FROM pipehandler.set_web_domains(%s::jsonb)"


class WebDomain(NamedTuple):
    """A row of pipehandler.web_domain, whose columns have comments. max_ttl, max_life, grace, held: seconds."""

    domain: str
    max_ttl: int
    max_life: int
    grace: int
    held: int
    delimiter: str
    reserved_names: tuple[str, ...]
    max_messages: int
    max_octets: int
    max_opened_per_hour: int
    max_inboxes: int


class Domains(NamedTuple):
    """Whether the rules changed, and which domains have a catch-all lease, so that visitors get none of their addresses."""

    changed: bool
    refused: list[str]


class Difference(NamedTuple):
    """A domain whose rules in the database are not those of the configuration. kind: missing there, surplus there, or changed."""

    domain: str
    kind: str


class Used(NamedTuple):
    """How many inboxes there are, those included that can be brought back, and how many of one domain were opened within an hour."""

    inboxes: int
    opened: int


def configured(config: Config) -> list[WebDomain]:
    """The domains of the configuration; none unless the page is public."""
    web = config.web
    if not web.public:
        return []
    return [
        WebDomain(
            domain=domain,
            max_ttl=max(web.ttl, web.extension),
            max_life=web.max_life,
            grace=web.grace,
            held=web.held_days * 86_400,
            delimiter=config.recipients.delimiter,
            reserved_names=web.reserved_names,
            max_messages=web.max_messages,
            max_octets=web.max_octets,
            max_opened_per_hour=web.domain_opened_per_hour,
            max_inboxes=web.max_inboxes,
        )
        for domain in web.domains
    ]


def set_domains(store: Store, domains: list[WebDomain]) -> Domains:
    """Let visitors get addresses of these domains, and of no other. Raises StoreError."""
    rules = json.dumps([domain._asdict() for domain in domains], ensure_ascii=False)
    (changed,) = store.rows(_SET, [rules], row=Domains)
    return changed


def differences(store: Store, domains: list[WebDomain]) -> list[Difference]:
    """Compare these domains with those of which visitors get addresses. Raises StoreError."""
    rules = json.dumps([domain._asdict() for domain in domains], ensure_ascii=False)
    return store.rows(_DIFFERENCES, [rules], row=Difference)


def used(store: Store) -> Used:
    """Count what web.max_inboxes and web.domain_opened_per_hour limit. Raises StoreError."""
    (found,) = store.rows(_USED, row=Used)
    return found
