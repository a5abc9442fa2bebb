"""`check` and `metrics` for the inbox page."""

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from harness.database import Database
from harness.inboxes import Page
from harness.service import wait_until
from harness.web import WebServer

from pipehandler.check.web import check_web
from pipehandler.monitor.web_status import COUNTS, WebStatusError, ask_page
from pipehandler.postfix.postconf import Postfix
from pipehandler.settings import config
from pipehandler.settings.config import Config, Recipients, Web
from pipehandler.store.connection import Store
from pipehandler.store.web_domains import configured, set_domains


def configuration(page: WebServer, database: Database, **changes: Any) -> Config:
    """The configuration of a page, as root's commands read it."""
    web = Web(
        public=True,
        hosts=("inbox.example",),
        domains=("tmp.example",),
        trusted_proxies=("127.0.0.1",),
        status_socket=str(page.status_socket),
    )
    return Config(
        database=config.Database(conninfo=database.conninfo, admin_conninfo=database.admin),
        recipients=Recipients(policy="known"),
        web=web._replace(**changes),
    )


def codes(found: Config) -> list[str]:
    """The codes of the findings."""
    return [finding.code for finding in check_web(found, "/etc/pipehandler/pipehandler.toml")]


def copied(found: Config, database: Database) -> Config:
    """The same configuration, after `pipehandler expire` has copied its domains."""
    with closing(Store(database.admin)) as store:
        set_domains(store, configured(found))
    return found


def test_nothing_to_find(page: WebServer, database: Database) -> None:
    """A page that runs is as it should be, however its domains are spelt; where there should be none, nothing is looked at."""
    wait_until(lambda: page.counts()["listening"])
    assert codes(copied(configuration(page, database, domains=("Tmp.Example", "bücher.example")), database)) == []
    assert codes(Config(web=Web(status_socket="/nonexistent/status"))) == []


def test_findings(page: WebServer, database: Database) -> None:
    """A page that is down, domains that the database has otherwise, a configuration that cannot be served."""
    copied(configuration(page, database), database)
    assert codes(configuration(page, database, status_socket="/nonexistent/status")) == ["web-down"]
    for changes in (
        {"domains": ("tmp.example", "new.example")},
        {"domains": ("tmp.example",), "max_inboxes": 7},
        {"public": False},
    ):
        assert codes(configuration(page, database, **changes)) == ["web-domains"]
    assert codes(configuration(page, database, domains=("other.example",))) == ["web-domains", "web-domains"]
    for wrong in ({"hosts": ()}, {"domains": ()}, {"trusted_proxies": ()}, {"max_life": 60}):
        assert "web-configuration" in codes(configuration(page, database, **wrong))


def test_limits_that_are_nearly_reached(page: WebServer, database: Database) -> None:
    """`check` says which limit on the inboxes of all visitors is the one."""
    found = copied(configuration(page, database, max_inboxes=10, domain_opened_per_hour=1000), database)
    visitors = Page(database)
    for _ in range(8):
        visitors.open(domain="tmp.example")
    assert codes(found) == []
    visitors.open(domain="tmp.example")
    (finding,) = check_web(found, "/etc/pipehandler/pipehandler.toml")
    assert (finding.code, finding.what) == ("web-full", "9 of the 10 inboxes that web.max_inboxes allows")


def test_domains_that_postfix_does_not_receive(page: WebServer, database: Database, folder: Path) -> None:
    """A domain has to be in one of Postfix's classes: in main.cf itself, or in a table that it names."""
    table = folder / "domains"
    table.write_text("tabled.example x\n")
    (folder / "main.cf").write_text(
        "compatibility_level = 3.6\nmydomain = mine.example\nmydestination = $mydomain\n"
        f"virtual_mailbox_domains = listed.example, texthash:{table}\n"
    )
    (folder / "master.cf").write_text("")
    postfix = Postfix(str(folder))
    domains = ("Listed.example", "tabled.example", "mine.example", "other.example")
    found = copied(configuration(page, database, domains=domains), database)
    (finding,) = check_web(found, "/etc/pipehandler/pipehandler.toml", postfix)
    assert finding.code == "web-not-received"
    assert "has other.example, for which" in finding.what
    assert f"texthash:{table}, other.example" in finding.fix


def test_counts(page: WebServer) -> None:
    """The page reports every count that is asked for, and what no page reports is refused."""
    before = ask_page(str(page.status_socket))
    assert set(before) == set(COUNTS)
    page.get("/en/", {"Host": "evil.example"})
    assert ask_page(str(page.status_socket))["refused_host"] == before["refused_host"] + 1
    with pytest.raises(WebStatusError, match=r"pipehandler-web.service"):
        ask_page("/nonexistent/status")
