"""`check` and `metrics` for the inbox page."""

from typing import Any

import pytest
from harness.database import Database
from harness.service import wait_until
from harness.web import WebServer

from pipehandler.check.web import check_web
from pipehandler.monitor.web_status import COUNTS, WebStatusError, ask_page
from pipehandler.settings import config
from pipehandler.settings.config import Config, Recipients, Web


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


def test_nothing_to_find(page: WebServer, web_database: Database) -> None:
    """A page that runs is as it should be; where there should be none, nothing is looked at."""
    wait_until(lambda: page.counts()["listening"])
    assert codes(configuration(page, web_database)) == []
    assert codes(Config(web=Web(status_socket="/nonexistent/status"))) == []


def test_findings(page: WebServer, web_database: Database) -> None:
    """A page that is down, a domain that the database does not know, a configuration that cannot be served."""
    assert codes(configuration(page, web_database, status_socket="/nonexistent/status")) == ["web-down"]
    assert codes(configuration(page, web_database, domains=("tmp.example", "new.example"))) == ["web-domains"]
    for changes in ({"hosts": ()}, {"domains": ()}, {"trusted_proxies": ()}, {"max_life": 60}):
        assert codes(configuration(page, web_database, **changes)) == ["web-configuration"]


def test_counts(page: WebServer) -> None:
    """The page reports every count that is asked for, and what no page reports is refused."""
    before = ask_page(str(page.status_socket))
    assert set(before) == set(COUNTS)
    page.get("/en/", {"Host": "evil.example"})
    assert ask_page(str(page.status_socket))["refused_host"] == before["refused_host"] + 1
    with pytest.raises(WebStatusError, match=r"pipehandler-web.service"):
        ask_page("/nonexistent/status")
