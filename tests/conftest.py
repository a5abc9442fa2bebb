"""What all tests share: real servers, fresh databases, and the handler started as pipe(8) starts it.

A service that is not there skips a test at a desk, and is an error in CI.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import account
from harness.console import Console
from harness.database import Database
from harness.handler import Handler
from harness.mailhost import MailHost
from harness.missing import missing
from harness.postgresql import FAST, KEPT, VERSION, VERSIONS, PostgreSQL, binaries
from harness.service import ResidentHandler

# Who starts tests in the background of a shell lets them ignore Ctrl-C, and with them every program that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

_MEMORY = Path("/dev/shm")


def _roomy(folder: Path) -> bool:
    """Whether there are 4 GiB of room in a folder, in which programs may be run."""
    found = os.statvfs(folder) if folder.is_dir() else None
    return bool(found and found.f_bavail * found.f_frsize > 4 << 30 and not found.f_flag & os.ST_NOEXEC)


if _roomy(_MEMORY):
    # Each database is hundreds of files, which cost a disk ten times as much. On a disk stay what bench/run measures, and the
    # campaign at full scale.
    os.environ.setdefault(account.FOLDERS, str(_MEMORY))


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[int], PostgreSQL]]:
    """A running server of the wanted major version; each is started when it is first asked for."""
    kept = os.environ.get(KEPT)
    running = {VERSION: PostgreSQL.kept(Path(kept))} if kept else {}
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


@pytest.fixture(scope="module")
def server() -> Iterator[PostgreSQL]:
    """A server as it should be: with fsync, unlike the other tests' servers."""
    with account.folder("pipehandler-pg-") as folder, PostgreSQL(folder / "server", VERSION) as server:
        yield server.start()


@pytest.fixture
def own_database() -> Iterator[Database]:
    """A migrated database on a server of its own, which the test may stop, kill or spoil."""
    with account.folder("pipehandler-pg-") as folder:
        server = PostgreSQL(folder / "server", VERSION, FAST).start()
        with Database.fresh(server) as fresh:
            yield fresh
        server.stop()


@pytest.fixture
def database(servers: Callable[[int], PostgreSQL]) -> Iterator[Database]:
    """A fresh, migrated database on one version of PostgreSQL."""
    with Database.fresh(servers(VERSION)) as fresh:
        yield fresh


@pytest.fixture(params=VERSIONS, ids=lambda version: f"pg{version}")
def every_database(request: pytest.FixtureRequest, servers: Callable[[int], PostgreSQL]) -> Iterator[Database]:
    """A fresh, migrated database, once for each version of PostgreSQL."""
    with Database.fresh(servers(request.param)) as fresh:
        yield fresh


@pytest.fixture(scope="module", params=VERSIONS, ids=lambda version: f"pg{version}")
def untouched(request: pytest.FixtureRequest, servers: Callable[[int], PostgreSQL]) -> Iterator[Database]:
    """A migrated database that no test changes, once for each version of PostgreSQL."""
    with Database.fresh(servers(request.param)) as fresh:
        yield fresh


@pytest.fixture
def handler(tmp_path_factory: pytest.TempPathFactory, database: Database) -> Iterator[Handler]:
    """The entrypoint, configured for `database` with the role of a handler."""
    with account.folder("pipehandler-") as folder:
        yield Handler(folder, database.conninfo)


@pytest.fixture(params=["cold", "resident"])
def either(request: pytest.FixtureRequest, database: Database) -> Iterator[Handler]:
    """The entrypoint without a service, and with one, which delivers all of its messages."""
    with account.folder("pipehandler-") as folder:
        if request.param == "cold":
            yield Handler(folder, database.conninfo)
            return
        resident = ResidentHandler(folder, database.conninfo)
        try:
            yield resident
            assert not [line for line in resident.log_lines() if " mode=cold " in line]
        finally:
            resident.stop()


@pytest.fixture(scope="session")
def _postfix() -> None:
    """Postfix, which only root can run."""
    if not account.IS_ROOT:
        missing("root, which Postfix needs,")
    if shutil.which("postfix") is None:
        missing("Postfix")


@pytest.fixture(scope="session")
def stored(servers: Callable[[int], PostgreSQL]) -> Iterator[Database]:
    """The database of the shared mail host."""
    with Database.fresh(servers(VERSION)) as database:
        yield database


@pytest.fixture(scope="session")
def mail(_postfix: None, stored: Database) -> Iterator[MailHost]:
    """One running mail host for all tests that leave it as it was."""
    with account.folder("pipehandler-mx-") as folder:
        host = MailHost(folder, stored.conninfo)
        host.start()
        yield host
        host.stop()


@pytest.fixture
def own(_postfix: None, database: Database) -> Iterator[MailHost]:
    """A mail host for one test, which may break it; not yet started."""
    with account.folder("pipehandler-mx-") as folder:
        host = MailHost(folder, database.conninfo)
        yield host
        host.abort()


@pytest.fixture
def load() -> Callable[[MailHost, bytes, int, str], None]:
    """Send `count` times the same message with smtp-source, each to a recipient of its own: 1load@..., 2load@..."""

    def send(host: MailHost, message: bytes, count: int, recipient: str) -> None:
        file = host.folder / "message"
        file.write_bytes(message)
        subprocess.run(
            [
                *("smtp-source", "-s", "8", "-m", str(count), "-N", "-F", str(file)),
                *("-f", "source@example.org", "-t", recipient, f"inet:127.0.0.1:{host.port}"),
            ],
            check=True,
            capture_output=True,
            timeout=600,
        )

    return send


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every account may enter; pytest's own is closed to the pipe user."""
    with account.folder("pipehandler-") as path:
        yield path


@pytest.fixture
def console(folder: Path, database: Database) -> Console:
    """The commands, as upkeep."""
    return Console(folder, database)


def pytest_addoption(parser: pytest.Parser) -> None:
    """How many messages the test of many at once sends."""
    parser.addoption("--messages", type=int, default=40, help="messages that smtp-source sends (default: 40)")
