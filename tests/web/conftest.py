"""A page with its database, shared by the tests of a module that leave it running."""

from collections.abc import Callable, Iterator

import pytest
from harness import account
from harness.database import Database
from harness.inboxes import issue
from harness.postgresql import VERSION, PostgreSQL
from harness.web import Visitor, WebServer, web_server


@pytest.fixture(scope="session")
def web_database(servers: Callable[[int], PostgreSQL]) -> Iterator[Database]:
    """The database of the shared page, which gives out addresses of tmp.example and other.example."""
    with Database.fresh(servers(VERSION)) as database:
        issue(database, "tmp.example", "other.example")
        yield database


@pytest.fixture(scope="session")
def page(web_database: Database) -> Iterator[WebServer]:
    """The shared page."""
    with (
        account.folder("pipehandler-web-") as folder,
        web_server(
            folder, web_database, domains=["tmp.example", "other.example"], contact="post@inbox.example"
        ) as server,
    ):
        yield server


@pytest.fixture
def visitor(page: WebServer) -> Visitor:
    """A new visitor."""
    return Visitor(page)
