"""Check the inbox page: its configuration, its packages, whether it runs, whether the database and Postfix know its domains."""

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress

from pipehandler.monitor.web_status import WebStatusError, ask_page, is_expected
from pipehandler.postfix.postconf import Postfix, PostfixError, tables, words
from pipehandler.settings.config import Config
from pipehandler.settings.extras import EXTRAS, install_command, is_installed
from pipehandler.settings.page import problem
from pipehandler.store.connection import Store
from pipehandler.store.errors import StoreError
from pipehandler.store.shards import Shard, shards
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
        detail = "Visitors get 503, of several shards those whose inbox is on one that it does not reach; mail is stored all the same."
        yield Finding("web-database", "the inbox page does not reach the database, or a shard", detail, _LOG)
    elif not counts["listening"]:
        yield Finding(
            "web-polls",
            "the inbox page gets no notifications: its connection passes a pooler, or leads to a standby",
            "It asks every second, so mail appears up to a second later.",
            "# set web.conninfo to a primary server, without a pooler",
        )


def _database(config: Config) -> Iterator[Finding]:
    database = config.database
    conninfo = database.admin_conninfo or database.conninfo
    found: list[Shard] = []
    with _opened(config, conninfo) as store:
        found = shards(store)
        if not found:
            yield from _of_part(config, store, "the database", 1)
    for shard in found:
        with _opened(config, shard.own(conninfo)) as store:
            yield from _of_part(config, store, f"shard {shard.number}", len(found))


@contextmanager
def _opened(config: Config, conninfo: str) -> Iterator[Store]:
    """A database that is away has a finding of its own."""
    database = config.database
    with suppress(StoreError), closing(Store(conninfo, database.connect_timeout, database.statement_timeout)) as store:
        yield store


def _of_part(config: Config, store: Store, name: str, count: int) -> Iterator[Finding]:
    """Check the database, or one shard of `count`."""
    yield from _domains(config, store, name)
    if config.web.public:
        yield from _room(config, store, name, count)


def _domains(config: Config, store: Store, name: str) -> Iterator[Finding]:
    """Compare the domains of the configuration with those of the database, which `expire` copies there."""
    by_kind: dict[str, list[str]] = {}
    for domain, kind in differences(store, configured(config)):
        by_kind.setdefault(kind, []).append(domain)
    sentences = {
        "missing": (f"web.domains has {{}}, which {name} does not give out", "Visitors get no address of it."),
        "surplus": (
            f"{name} gives out {{}}, which web.domains does not have",
            "Visitors still get addresses of it.",
        ),
        "changed": (f"{name} has other rules for {{}} than [web]", "Visitors have the limits of before."),
    }
    for kind, (what, detail) in sentences.items():
        if kind in by_kind:
            yield Finding(
                "web-domains",
                what.format(", ".join(by_kind[kind])),
                detail,
                "pipehandler expire # which copies the domains; it says what is in the way, such as a catch-all lease",
            )


def _room(config: Config, store: Store, part: str, parts: int) -> Iterator[Finding]:
    """Find limits on the inboxes of all visitors that are reached, or soon will be. Each shard has its share of them."""
    web, found = config.web, used(store)
    for name, count, whole in (
        ("max_inboxes", found.inboxes, web.max_inboxes),
        ("domain_opened_per_hour", found.opened, web.domain_opened_per_hour),
    ):
        limit = -(-whole // parts)
        if count >= _NEARLY * limit:
            yield Finding(
                "web-full",
                f"{count} of the {limit} inboxes that web.{name} allows{f' on {part}' if parts > 1 else ''}",
                "When there are as many, visitors get 503 instead of an address; inboxes that exist work as usual.",
                f"# look for a network that opens too many (`pipehandler web close NETWORK`), or raise web.{name}",
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
