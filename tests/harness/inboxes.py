"""Inboxes of the inbox page, for tests: their rules, a client, and mail for them."""

import json
import secrets
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import timedelta
from typing import Any, TypeVar

from pipehandler.store.inboxes import Inbox, Inboxes
from pipehandler.store.message_store import MessageStore

from .database import Database
from .loop import run_in_loop
from .submission import submission

_T = TypeVar("_T")

DOMAIN = "tmp.example"
RULES = {
    "domain": DOMAIN,
    "max_ttl": 3600,
    "max_life": 7200,
    "grace": 86400,
    "held": 30 * 86400,
    "delimiter": "+",
    "reserved_names": ["Brand-Name"],
    "max_messages": 1000,
    "max_octets": 100_000_000,
    "max_opened_per_hour": 1_000_000,
    "max_inboxes": 1_000_000,
}
"""The rules of the domain in these tests: ten minutes and one hour are allowed, two hours in all, a day of grace."""

TTL = timedelta(minutes=10)


def issue(database: Database, *domains: str, **changes: Any) -> None:
    """Give out addresses of these domains (default: DOMAIN), with RULES and `changes`."""
    rules = [RULES | changes | {"domain": domain} for domain in domains or (DOMAIN,)]
    database.execute("SELECT pipehandler.set_web_domains(%s)", json.dumps(rules))


def new_key() -> bytes:
    """A visitor's new key."""
    return secrets.token_bytes(32)


class Page:
    """The inbox page's client, called without asyncio: each call runs to its end."""

    def __init__(self, database: Database, role: str = "page", search_timeout: float = 60) -> None:
        self.conninfo = database.server.conninfo(database.name, user=role)
        self._search_timeout = search_timeout

    def run(self, call: Callable[[Inboxes], Awaitable[_T]]) -> _T:
        """Run one call with a client of its own."""

        async def whole() -> _T:
            inboxes = Inboxes(self.conninfo, 2, self._search_timeout)
            await inboxes.open_pool()
            try:
                return await call(inboxes)
            finally:
                await inboxes.close()

        return run_in_loop(whole())

    def open(self, name: str | None = None, key: bytes | None = None, **more: Any) -> tuple[bytes, Inbox]:
        """Open an inbox for ten minutes: its key, and what it is."""
        used = key or new_key()
        arguments = {"domain": DOMAIN, "name": name, "ttl": TTL} | more
        return used, self.run(lambda inboxes: inboxes.open(used, **arguments))


def send(database: Database, *recipients: str | None, raw: bytes = b"", **changes: Any) -> list[int]:
    """Store a message for these recipients; the numbers of its deliveries, none where it was rejected."""
    octets = (
        raw
        or b"From: Ann <ann@example.org>\nMessage-ID: <%s@x>\nSubject: hello\n\nbody\n" % secrets.token_hex(8).encode()
    )
    with closing(MessageStore(database.conninfo)) as store:
        stored = store.ingest(submission(octets, *filter(None, recipients), **changes))
    return [each.delivery for each in stored if each.delivery is not None]
