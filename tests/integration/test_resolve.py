"""Names that do not resolve: detected within connect_timeout, reported as the reason, and nothing else waits for
them."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import account
from harness.console import Console
from harness.database import Database
from harness.handler import Handler
from harness.missing import missing
from harness.submission import MESSAGE

from pipehandler.mail.outcome import EXHAUSTED
from pipehandler.store.connection import Store
from pipehandler.store.errors import NotConnected
from pipehandler.store.resolve import resolved

NAME = "database.example.net"
RESOLVER_SECONDS = 60
"""What the resolver alone takes: twice 30 s for each query (resolv.conf(5))."""


@pytest.fixture
def silent(folder: Path) -> Iterator[list[str]]:
    """The start of a command line whose program has one name server, which accepts queries and never answers."""
    if not account.IS_ROOT:
        missing("root, which unshare(1) needs,")
    address = f"127.53.{os.getpid() // 250 % 250}.{1 + os.getpid() % 250}"  # tests run at the same time
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind((address, 53))
        file = folder / "resolv.conf"
        file.write_text(f"nameserver {address}\noptions timeout:30 attempts:2\n")
        (folder / "nsswitch.conf").write_text("hosts: files dns\n")
        mounts = f"mount --bind {file} /etc/resolv.conf && mount --bind {folder / 'nsswitch.conf'} /etc/nsswitch.conf"
        yield ["unshare", "--mount", "sh", "-ec", f'{mounts} && exec "$@"', "sh"]


def run_silently(silent: list[str], command: list[str], message: bytes = b"") -> tuple[int, str, float]:
    """Run a command there; returns its status, output and seconds."""
    as_account = ["setpriv", f"--reuid={account.NAME}", "--regid=nogroup", "--clear-groups"]
    before = time.monotonic()
    done = subprocess.run([*silent, *as_account, *command], input=message, capture_output=True, timeout=100, cwd="/")
    return done.returncode, done.stdout.decode(), time.monotonic() - before


def test_delivery(silent: list[str], handler: Handler) -> None:
    """A delivery ends with connect_timeout, not with the resolver's timeout; the log has the reason, and the breaker
    opens."""
    handler.configure(f"host={NAME} dbname=mail user=pipehandler", database={"connect_timeout": 2})
    status, output, seconds = run_silently(silent, handler.command(), MESSAGE)
    assert (status, output) == (75, "4.3.0 message store unavailable\n")
    assert f"name does not resolve: {NAME}" in handler.log_lines()[-1]
    assert (handler.state / "outage").exists()
    assert seconds < RESOLVER_SECONDS


def test_service(silent: list[str], handler: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name in pg_service.conf is resolved within the same time."""
    file = handler.folder / "pg_service.conf"
    file.write_text(f"[mail]\nhost={NAME}\ndbname=mail\n")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    handler.configure("service=mail user=pipehandler", database={"connect_timeout": 2})
    status, output, seconds = run_silently(silent, handler.command(), MESSAGE)
    assert (status, output) == (75, "4.3.0 message store unavailable\n")
    assert f"name does not resolve: {NAME}" in handler.log_lines()[-1]
    assert seconds < RESOLVER_SECONDS


def test_connects_by_service(database: Database, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service whose host is a name can be connected to, with its other parameters."""
    file = folder / "pg_service.conf"
    file.write_text(f"[mail]\nhost=localhost\nport={database.server.port}\ndbname={database.name}\nuser=postgres\n")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    store = Store("service=mail application_name=x")
    assert store.values("SELECT current_user::text", of=str) == ["postgres"]
    assert store.connect().info.hostaddr in ("127.0.0.1", "::1")
    store.close()


def test_metrics(silent: list[str], console: Console) -> None:
    """The metrics of a host are returned within the time that Prometheus waits, including the reason for the
    database."""
    console.config.write_text(f"database.conninfo = 'host={NAME}'\nstate.directory = '{console.folder}'\n")
    status, output, seconds = run_silently(silent, console.command("metrics"))
    assert status == 0
    assert "pipehandler_database_up 0" in output
    assert seconds < RESOLVER_SECONDS
    status, output, _ = run_silently(silent, console.command("status", "--json"))
    assert f"name does not resolve: {NAME}" in output


def test_a_name_beside_one_that_does_not_resolve(silent: list[str], handler: Handler, database: Database) -> None:
    """The name that resolves is used, in its place."""
    port = database.server.port
    handler.configure(
        f"host={NAME},localhost port={port} dbname={database.name} user=pipehandler", database={"connect_timeout": 4}
    )
    status, output, _ = run_silently(silent, handler.command(), MESSAGE)
    assert (status, output[:13]) == (0, "2.0.0 stored "), output


def test_order_and_names_are_kept() -> None:
    """Several hosts stay in their order, each with its port and, for TLS, its name; sockets and addresses as they are."""
    given = {"host": "localhost,/run/postgresql,192.0.2.1,localhost", "port": "1,2,3,4", "sslmode": "verify-full"}
    made = resolved(given, 5)
    targets = list(zip(*(made[name].split(",") for name in ("host", "hostaddr", "port")), strict=True))
    assert made["sslmode"] == "verify-full"
    assert [target for target in targets if target[0] != "localhost"] == [
        ("/run/postgresql", "", "2"),
        ("192.0.2.1", "192.0.2.1", "3"),
    ]
    assert ("localhost", "127.0.0.1", "1") in targets
    assert targets[0][::2] == ("localhost", "1")
    assert targets[-1][::2] == ("localhost", "4")


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"host": "/run/postgresql"},
        {"host": "@abstract,/run"},
        {"host": "192.0.2.1,2001:db8::1"},
        {"host": "localhost", "hostaddr": "192.0.2.1"},
        {"host": "localhost,localhost", "port": "1,2,3"},
    ],
)
def test_nothing_to_resolve(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a name, with an address, or if libpq will refuse them, the parameters are unchanged."""
    monkeypatch.delenv("PGHOST", raising=False)
    assert resolved(given, 5) == given


def test_name_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """PGHOST and PGPORT are used where the connection string has neither, as libpq does."""
    monkeypatch.setenv("PGHOST", "localhost,192.0.2.1")
    monkeypatch.setenv("PGPORT", "7,8")
    made = resolved({}, 5)
    assert ("localhost", "7") in zip(made["host"].split(","), made["port"].split(","), strict=True)
    assert (made["hostaddr"].split(",")[-1], made["port"].split(",")[-1]) == ("192.0.2.1", "8")
    given = resolved({"host": "localhost", "port": "9"}, 5)
    assert (set(given["host"].split(",")), set(given["port"].split(","))) == ({"localhost"}, {"9"})
    assert "127.0.0.1" in given["hostaddr"].split(",")
    assert resolved({"host": "/run/postgresql"}, 5) == {"host": "/run/postgresql"}
    monkeypatch.delenv("PGPORT")
    assert set(resolved({}, 5)["port"].split(",")) == {"5432"}


def test_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the host allows no thread, the delivery is short of a resource, which says nothing about the database."""

    def fail(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)
    with pytest.raises(NotConnected) as raised:
        resolved({"host": "localhost"}, 1)
    assert (raised.value.outcome, raised.value.outage) == (EXHAUSTED, False)


def test_no_such_name() -> None:
    """A name that does not exist is the reason."""
    with pytest.raises(NotConnected, match=r"name does not resolve: nowhere\.invalid") as raised:
        Store("host=nowhere.invalid dbname=mail").connect()
    assert raised.value.outage
    assert os.environ.get("PGHOST") is None


def test_connects_by_name(database: Database) -> None:
    """A host that is a name is connected to as before."""
    store = Store(f"host=localhost port={database.server.port} dbname={database.name} user=postgres")
    assert store.values("SELECT 1", of=int) == [1]
    store.close()
