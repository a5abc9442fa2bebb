"""The inbox page beside the mail host that stores for it, as browsers and senders find them."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

from playwright.sync_api import Page

from pipehandler.mail.parsed import ParsedMessage
from pipehandler.parse.message import parse
from pipehandler.store.message_store import MessageStore

from .database import Database
from .inboxes import send
from .mailhost import DOMAIN, MailHost
from .submission import submission
from .web import WebServer

RULES = {
    "domain": DOMAIN,
    "max_ttl": 86_400,
    "max_life": 86_400,
    "grace": 86_400,
    "held": 30 * 86_400,
    "delimiter": "+",
    "reserved_names": [],
    "max_messages": 1000,
    "max_octets": 104_857_600,
    "max_opened_per_hour": 1_000_000,
    "max_inboxes": 1_000_000,
}
"""What visitors get, as upkeep writes it from the configuration."""

TRUSTED = "mx.example.net"
"""The host whose verdicts about a message count."""


class Site(NamedTuple):
    """The page, the mail host beside it, and their database."""

    web: WebServer
    host: MailHost
    database: Database

    @classmethod
    @contextmanager
    def running(cls, folder: Path, database: Database, **settings: object) -> Iterator["Site"]:
        """Both, running: a public page for the mail host's domain."""
        database.execute("SELECT pipehandler.set_web_domains(%s)", json.dumps([RULES]))
        host = MailHost(
            folder,
            database.conninfo,
            recipients={"policy": "known"},
            authentication={"trusted_authserv_ids": [TRUSTED]},
        )
        web_folder = folder / "web"
        web_folder.mkdir()
        conninfo = database.server.conninfo(database.name, user="page")
        own = {"domains": [DOMAIN], "operator": "Example & Sons", "contact": "hello@example.com"}
        host.start()
        try:
            with WebServer(web_folder, conninfo, **own | settings) as web:
                yield cls(web, host, database)
        finally:
            host.stop()

    @property
    def origin(self) -> str:
        """Scheme, host and port of the page."""
        return f"http://127.0.0.1:{self.web.port}"

    def send(self, message: bytes, recipient: str) -> None:
        """Send a message through Postfix."""
        self.host.send(message, "news@example.org", recipient)

    def open(self, page: Page, name: str = "", lang: str = "en") -> str:
        """Get an address as a visitor does; returns it. The tab shows the inbox."""
        page.goto(f"{self.origin}/{lang}/")
        page.fill("#name", name)
        page.locator(".take button").click()
        return page.locator("#address").inner_text()

    def store(self, recipient: str, *messages: bytes) -> None:
        """Store messages for an address, in this order, without Postfix."""
        for message in messages:
            send(self.database, recipient, raw=message, parsed=parse(message, trusted_authserv_ids=(TRUSTED,)))

    def store_unreadable(self, recipient: str) -> None:
        """Store a message whose parsing failed."""
        raw = b"Subject: broken\n\nnobody can read this\n"
        with closing(MessageStore(self.database.conninfo)) as store:
            store.ingest(submission(raw, recipient, parsed=ParsedMessage(error="not parsed within 10 s")))
