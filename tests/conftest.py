"""What all tests share: real servers, fresh databases, and the handler started as pipe(8) starts it.

A missing service skips a test on a developer's machine, and is an error in CI.
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
from harness.service import ResidentHandler, Service
from harness.shards import Shards, sharded
from hypothesis import HealthCheck, settings

# Tests started in the background of a shell ignore SIGINT, and so does every program that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No test asserts time, and a loaded machine is not an error.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

_MEMORY = Path("/dev/shm")


def _roomy(folder: Path) -> bool:
    """Whether a folder has 4 GiB free and allows programs to be executed."""
    found = os.statvfs(folder) if folder.is_dir() else None
    return bool(found and found.f_bavail * found.f_frsize > 4 << 30 and not found.f_flag & os.ST_NOEXEC)


if _roomy(_MEMORY):
    # Each database is hundreds of files, which are ten times slower on a disk. bench/run and the full campaign stay on
    # the disk.
    os.environ.setdefault(account.FOLDERS, str(_MEMORY))


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[int], PostgreSQL]]:
    """A running server of the requested major version; each is started at its first use."""
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
    """A server in its production setup: with fsync, unlike the other tests' servers."""
    with account.folder("pipehandler-pg-") as folder, PostgreSQL(folder / "server", VERSION) as server:
        yield server.start()


@pytest.fixture
def own_database() -> Iterator[Database]:
    """A migrated database on a separate server, which the test may stop, kill or damage."""
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
def handler(request: pytest.FixtureRequest, database: Database) -> Iterator[Handler]:
    """The entrypoint, configured for `database` with the role of a handler; with the parameter `client`, behind the client."""
    with account.folder("pipehandler-") as folder:
        handler = Handler(folder, database.conninfo)
        yield handler.with_client() if getattr(request, "param", "") == "client" else handler


@pytest.fixture(params=["cold", "resident", "client"])
def either(request: pytest.FixtureRequest, database: Database) -> Iterator[Handler]:
    """The entrypoint without a service, and with one, which delivers all of its messages: handed over in Python, and in C.

    With the parameter `client cold`, the client without a service.
    """
    with account.folder("pipehandler-") as folder:
        if request.param in ("cold", "client cold"):
            handler = Handler(folder, database.conninfo)
            yield handler.with_client() if request.param == "client cold" else handler
            return
        resident = ResidentHandler(folder, database.conninfo)
        if request.param == "client":
            resident.with_client()
        try:
            yield resident
            assert not [line for line in resident.log_lines() if " mode=cold " in line]
        finally:
            resident.stop()


@pytest.fixture(scope="session")
def made_shards() -> Iterator[Shards]:
    """Four shards and their proxy, for all tests."""
    with account.folder("pipehandler-shards-") as folder, sharded(folder) as made:
        yield made


@pytest.fixture
def shards(made_shards: Shards) -> Iterator[Shards]:
    """The same; what a test has stopped and not started again, because it failed, is started after it."""
    yield made_shards
    made_shards.revive()


@pytest.fixture(scope="session")
def _postfix() -> None:
    """Skip or fail where Postfix cannot run; only root can run it."""
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
def mail(pipe_mail: MailHost) -> MailHost:
    """The mail host of most tests; a module may choose another."""
    return pipe_mail


@pytest.fixture(scope="session")
def pipe_mail(_postfix: None, stored: Database) -> Iterator[MailHost]:
    """One running mail host for all tests that leave it unchanged."""
    with account.folder("pipehandler-mx-") as folder:
        host = MailHost(folder, stored.conninfo)
        host.start()
        yield host
        host.stop()


@pytest.fixture(scope="session")
def lmtp_mail(_postfix: None, stored: Database) -> Iterator[MailHost]:
    """A running mail host that delivers by LMTP, and by pipe to pipe.example.com, to the same database."""
    with account.folder("pipehandler-mx-") as folder:
        host = MailHost(folder, stored.conninfo, recipients={"expired": "reject"})
        host.use_lmtp()
        domains, routes = "example.com, pipe.example.com", "inline:{pipe.example.com=pipehandler:}"
        host.postconf("-e", f"virtual_mailbox_domains={domains}", f"transport_maps={routes}")
        with Service(host.handler):
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
    """Send the same message `count` times with smtp-source, each copy to another recipient: 1load@..., 2load@..."""

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
    """A folder that every account may enter; pytest's tmp_path is closed to the pipe user."""
    with account.folder("pipehandler-") as path:
        yield path


@pytest.fixture
def console(folder: Path, database: Database) -> Console:
    """The commands, under the maintenance role."""
    return Console(folder, database)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest test, so that it is not what the other processes wait for at the end."""
    items.sort(key=lambda item: item.nodeid != "tests/docs/test_commands.py::test_pages")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The number of messages that the load test sends."""
    parser.addoption("--messages", type=int, default=40, help="messages that smtp-source sends (default: 40)")
