"""Check the inbox page: its configuration, its packages, whether it runs, whether the database and Postfix know its domains."""

from collections.abc import Iterator
from contextlib import suppress

from pipehandler.monitor.web_status import WebStatusError, ask_page, is_expected
from pipehandler.postfix.postconf import Postfix, PostfixError, tables, words
from pipehandler.settings.config import Config
from pipehandler.settings.extras import EXTRAS, install_command, is_installed
from pipehandler.settings.page import problem
from pipehandler.store.connection import Store
from pipehandler.store.errors import StoreError
from pipehandler.store.web_domains import configured, differences, used

from .finding import Finding

_LOG = "journalctl -u pipehandler-web.service -n 20"
_NEARLY = 0.9
"""Of a limit on inboxes: from there on it is reported."""
_CLASSES = ("virtual_mailbox_domains", "virtual_alias_domains", "relay_domains", "mydestination")
"""The parameters with the domains for which Postfix accepts mail (ADDRESS_CLASS_README)."""


def check_web(config: Config, path: str, postfix: Postfix | None = None) -> Iterator[Finding]:
    """Check the page of this host, if there should be one. path: the configuration's. postfix: of this host, if it stores mail."""
    if not is_expected(config.web):
        return
    if reason := problem(config):
        yield Finding("web-configuration", reason, "`pipehandler web` does not start.", f"# correct [web] in {path}")
    if not is_installed("web"):
        yield Finding(
            "web-packages",
            f"the inbox page needs {EXTRAS['web'].requirement}; the extra pipehandler[web] installs them",
            "`pipehandler web` does not start.",
            install_command("web"),
        )
        return
    yield from _running(config.web.status_socket)
    yield from _database(config)
    if postfix is not None and config.web.public:
        yield from _received(config, postfix)


def _running(status_socket: str) -> Iterator[Finding]:
    try:
        counts = ask_page(status_socket)
    except WebStatusError as error:
        detail = "No visitor sees mail; it is stored all the same."
        yield Finding("web-down", str(error), detail, "systemctl start pipehandler-web.service")
        return
    if not counts["database_up"]:
        detail = "Visitors get 503; mail is stored all the same."
        yield Finding("web-database", "the inbox page does not reach the database", detail, _LOG)
    elif not counts["listening"]:
        yield Finding(
            "web-polls",
            "the inbox page gets no notifications: its connection passes a pooler, or leads to a standby",
            "It asks every second, so mail appears up to a second later.",
            "# set web.conninfo to a primary server, without a pooler",
        )


def _database(config: Config) -> Iterator[Finding]:
    database = config.database
    store = Store(database.admin_conninfo or database.conninfo, database.connect_timeout, database.statement_timeout)
    try:
        with suppress(StoreError):  # a database that is away has a finding of its own
            yield from _domains(config, store)
            if config.web.public:
                yield from _room(config, store)
    finally:
        store.close()


def _domains(config: Config, store: Store) -> Iterator[Finding]:
    """Compare the domains of the configuration with those of the database, which `expire` copies there."""
    by_kind: dict[str, list[str]] = {}
    for domain, kind in differences(store, configured(config)):
        by_kind.setdefault(kind, []).append(domain)
    sentences = {
        "missing": ("web.domains has {}, which the database does not give out", "Visitors get no address of it."),
        "surplus": (
            "the database gives out {}, which web.domains does not have",
            "Visitors still get addresses of it.",
        ),
        "changed": ("the database has other rules for {} than [web]", "Visitors have the limits of before."),
    }
    for kind, (what, detail) in sentences.items():
        if kind in by_kind:
            yield Finding(
                "web-domains",
                what.format(", ".join(by_kind[kind])),
                detail,
                "pipehandler expire # which copies the domains; it says what is in the way, such as a catch-all lease",
            )


def _room(config: Config, store: Store) -> Iterator[Finding]:
    """Find limits on the inboxes of all visitors that are reached, or soon will be."""
    web, found = config.web, used(store)
    for name, count, limit in (
        ("max_inboxes", found.inboxes, web.max_inboxes),
        ("domain_opened_per_hour", found.opened, web.domain_opened_per_hour),
    ):
        if count >= _NEARLY * limit:
            yield Finding(
                "web-full",
                f"{count} of the {limit} inboxes that web.{name} allows",
                "When there are as many, visitors get 503 instead of an address; inboxes that exist work as usual.",
                f"# look for a network that opens too many (`pipehandler web close --network`), or raise web.{name}",
            )


def _forms(domain: str) -> Iterator[str]:
    """Return a domain as it may stand in main.cf: as it is, and in ASCII (RFC 5890)."""
    yield domain.lower()
    with suppress(UnicodeError):
        yield domain.encode("idna").decode("ascii").lower()


def _received(config: Config, postfix: Postfix) -> Iterator[Finding]:
    """Find domains of the page for which Postfix accepts no mail."""
    listed = {word.lower() for name in _CLASSES for word in words(postfix.parameters[name])}
    lookups = [table for name in _CLASSES for table in tables(postfix.parameters[name])]
    try:
        missing = [
            domain
            for domain in config.web.domains
            if not listed & {*_forms(domain)}
            and not any(postfix.lookup(" ".join(lookups), each) for each in _forms(domain))
        ]
    except PostfixError:
        return  # a table that cannot be used has a finding of its own
    if missing:
        domains = ", ".join([*words(postfix.explicit().get("virtual_mailbox_domains", "")), *missing])
        yield Finding(
            "web-not-received",
            f"web.domains has {', '.join(missing)}, for which Postfix accepts no mail",
            "Visitors get addresses of it that receive nothing.",
            postfix.command("-e", f"virtual_mailbox_domains={domains}"),
        )
