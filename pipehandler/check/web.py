"""Check the inbox page: its configuration, its packages, whether it runs, and whether the database knows its domains."""

from collections.abc import Iterator
from contextlib import suppress

from pipehandler.monitor.web_status import WebStatusError, ask_page, is_expected
from pipehandler.settings.config import Config
from pipehandler.settings.extras import EXTRAS, install_command, is_installed
from pipehandler.settings.page import problem
from pipehandler.store.connection import Store
from pipehandler.store.errors import StoreError
from pipehandler.store.web_domains import issued

from .finding import Finding

_LOG = "journalctl -u pipehandler-web.service -n 20"


def check_web(config: Config, path: str) -> Iterator[Finding]:
    """Check the page of this host, if there should be one. path: the configuration's."""
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
    yield from _domains(config)


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


def _domains(config: Config) -> Iterator[Finding]:
    """Compare the domains of the configuration with those of the database, which `expire` copies there."""
    database = config.database
    store = Store(database.admin_conninfo or database.conninfo, database.connect_timeout, database.statement_timeout)
    try:
        with suppress(StoreError):  # a database that is away has a finding of its own
            known = set(issued(store))
            if missing := [domain for domain in config.web.domains if domain not in known and config.web.public]:
                yield Finding(
                    "web-domains",
                    f"web.domains has {', '.join(missing)}, which the database does not give out",
                    "Visitors get no address of it.",
                    "pipehandler expire # which copies the domains; it says what is in the way, such as a catch-all lease",
                )
    finally:
        store.close()
