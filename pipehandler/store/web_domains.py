"""The domains whose addresses visitors of the inbox page get: `pipehandler expire` copies them from the configuration.

The page cannot change them, nor leave them out: the SQL function pipehandler.open_inbox reads them.
"""

import json
from typing import NamedTuple

from ..settings.config import Config
from .connection import Store

_ISSUED = "SELECT r.domain FROM pipehandler.web_domain r"
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


class Domains(NamedTuple):
    """Whether the rules changed, and which domains have a catch-all lease, so that visitors get none of their addresses."""

    changed: bool
    refused: list[str]


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
        )
        for domain in web.domains
    ]


def set_domains(store: Store, domains: list[WebDomain]) -> Domains:
    """Let visitors get addresses of these domains, and of no other. Raises StoreError."""
    rules = json.dumps([domain._asdict() for domain in domains], ensure_ascii=False)
    (changed,) = store.rows(_SET, [rules], row=Domains)
    return changed


def issued(store: Store) -> list[str]:
    """The domains that the database gives out to visitors. Raises StoreError."""
    return store.values(_ISSUED, of=str)
