"""A synchronous standby that is down: mail that Postfix may delete is on both servers, whatever interrupts the wait."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ctypes.util import find_library

import pytest
from harness import account
from harness.database import Database
from harness.handler import Ended, Handler
from harness.missing import missing
from harness.postgresql import DEBIAN, FAST, VERSION, PostgreSQL
from harness.service import bounded, wait_until
from harness.submission import MESSAGE, submission

from pipehandler.store.errors import StoreError
from pipehandler.store.message_store import MessageStore

WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep' AND usename = 'pipehandler'"


class Pair:
    """A primary, its synchronous standby, and a handler that delivers to them."""

    def __init__(self, primary: PostgreSQL, standby: PostgreSQL, database: Database, handler: Handler) -> None:
        self.primary = primary
        self.standby = standby
        self.database = database
        self.handler = handler

    def waiting(self) -> list[int]:
        """The sessions that wait for the standby."""
        return [row.pid for row in self.database.rows(WAITING)]

    def interrupted(self, how: str, message: bytes = MESSAGE) -> Ended:
        """Deliver while the standby is stopped, and call the function `how` for the session that waits for it."""
        with self.handler.start(self.handler.command()) as running:
            assert running.stdin is not None
            assert running.stdout is not None
            running.stdin.write(message)
            running.stdin.close()
            seen = 0
            while running.poll() is None:
                for pid in self.waiting():
                    seen += self.database.value(f"SELECT {how}(%s)", pid)
            assert seen
            return Ended(running.returncode, running.stdout.read().decode())

    def fail_over(self) -> set[bytes]:
        """Destroy the primary, promote the standby; returns the messages on it."""
        self.primary.stop(signal.SIGKILL)
        self.standby.promote()
        self.database.move(self.standby)
        return {bytes(row.raw) for row in self.database.rows("SELECT raw FROM pipehandler.raw_message")}


@pytest.fixture(params=[pytest.param(DEBIAN, marks=pytest.mark.long), 18], ids=lambda version: f"pg{version}")
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Both servers, of the oldest and the newest version."""
    with account.folder("pipehandler-pg-") as folder, account.folder("pipehandler-") as home:
        primary = PostgreSQL(folder / "primary", request.param, FAST).start()
        with primary, primary.standby(folder / "standby") as standby, Database.fresh(primary) as database:
            handler = Handler(home, database.conninfo, limits={"deadline": 8, "parse_timeout": 2})
            primary.synchronous()
            assert handler.deliver(b"Message-ID: <first@example.org>\n\nboth have it\n").status == 0
            yield Pair(primary, standby, database, handler)
            # So that the database is dropped on the server that has it now.
            database.server.psql("postgres", "ALTER SYSTEM RESET synchronous_standby_names")
            database.server.reload()


@pytest.mark.parametrize("how", ["pg_cancel_backend", "pg_terminate_backend"])
def test_interrupted_wait(pair: Pair, how: str) -> None:
    """A wait that is cancelled or terminated is not a success; when the standby is back, the message is a duplicate."""
    pair.standby.freeze()
    ended = pair.interrupted(how)
    assert (ended.status, ended.output[:2]) == (75, "4."), ended
    assert not (pair.handler.state / "outage").exists()
    pair.standby.thaw()
    ended = pair.handler.deliver(MESSAGE)
    assert (ended.status, ended.output[:19]) == (0, "2.0.0 stored before")
    assert MESSAGE in pair.fail_over()


def test_deadline_leaves_no_session(pair: Pair) -> None:
    """A delivery whose deadline has passed ends its session, which would otherwise wait as long as the standby is
    down."""
    pair.standby.freeze()
    ended = pair.handler.deliver(MESSAGE)
    assert (ended.status, ended.output) == (75, "4.3.0 delivery took too long\n")
    while pair.waiting():  # it ends a moment later, or this test hangs
        pass
    pair.standby.thaw()
    assert pair.handler.deliver(MESSAGE).status == 0


def test_collation_warning_is_no_weak_commit(pair: Pair) -> None:
    """A warning at connection time does not refer to the commit."""
    pair.database.execute("UPDATE pg_database SET datcollversion = '0' WHERE datname = current_database()")
    assert pair.handler.deliver(MESSAGE).status == 0


def test_cancelled_at_any_moment(pair: Pair) -> None:
    """While waiting sessions are cancelled and the standby stops and continues, no acknowledged message is lost."""
    acknowledged: list[bytes] = []
    done = threading.Event()

    def disturb() -> None:
        while not done.is_set():
            pair.standby.freeze()
            for _ in range(5):
                for pid in pair.waiting():
                    pair.database.execute("SELECT pg_cancel_backend(%s)", pid)
            pair.standby.thaw()

    def deliver(number: int) -> None:
        message = b"Message-ID: <%d@example.org>\n\n%s\n" % (number, os.urandom(2000).hex().encode())
        if pair.handler.deliver(message).status == 0:
            acknowledged.append(message)

    with ThreadPoolExecutor(4) as pool:
        disturbance = pool.submit(disturb)
        list(pool.map(deliver, range(40)))
        done.set()
        disturbance.result()
    assert acknowledged
    pair.standby.freeze()  # from here on it receives nothing more
    pair.primary.stop(signal.SIGKILL)
    pair.standby.thaw()
    assert set(acknowledged) <= pair.fail_over()


CANCEL = """
import sys, psycopg
from pipehandler.store.standby import cancel
connection = psycopg.connect(sys.argv[1])
connection.pgconn.send_query(b"SELECT pg_sleep(1000)")
connection.pgconn.flush()
print(psycopg.capabilities.has_cancel_safe(), flush=True)
sys.stdin.readline()
cancel(connection)
"""


@pytest.mark.parametrize("implementation", ["binary", "python"])
def test_cancel_of_a_frozen_server(servers: Callable[[int], PostgreSQL], implementation: str) -> None:
    """A server that does not answer a request to cancel holds nothing up, neither with libpq 17 nor with an older one,
    which knows no time limit."""
    if implementation == "python" and find_library("pq") is None:
        missing("the system's libpq")
    server = servers(VERSION)
    running = subprocess.Popen(
        [sys.executable, "-c", CANCEL, server.conninfo()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PSYCOPG_IMPL": implementation},
    )
    with bounded(running):
        assert running.stdout
        assert running.stdout.readline() in (b"True\n", b"False\n")
        server.freeze()
        try:
            running.communicate(b"\n")
        finally:
            server.thaw()
    assert running.returncode == 0  # it was not killed for taking too long


CANCEL_IN_A_DELIVERY = """
import resource, sys, psycopg
from pipehandler.store.standby import cancel
resource.setrlimit(resource.RLIMIT_NPROC, (0, {hard}))
connection = psycopg.connect(sys.argv[1], application_name="delivery")
connection.pgconn.send_query(b"SELECT pg_sleep(1000)")
connection.pgconn.flush()
with psycopg.connect(sys.argv[1], autocommit=True) as other:
    running = "SELECT FROM pg_stat_activity WHERE pid = %s AND state = 'active'"
    while other.execute(running, [connection.info.backend_pid]).fetchone() is None:
        pass
cancel(connection)
"""


@pytest.mark.parametrize("hard", ["resource.getrlimit(resource.RLIMIT_NPROC)[1]", "0"], ids=["ours", "the parent's"])
@pytest.mark.parametrize("implementation", ["binary", "python"])
def test_cancel_within_the_limits_of_a_delivery(database: Database, implementation: str, hard: str) -> None:
    """A delivery may start no process and no thread (runtime/limits.py): the older libpq, which needs one, cancels all the
    same, and where the parent allows none, nothing is raised."""
    if implementation == "python" and find_library("pq") is None:
        missing("the system's libpq")
    able = implementation == "binary" or hard != "0"
    done = subprocess.run(
        account.command([sys.executable, "-c", CANCEL_IN_A_DELIVERY.format(hard=hard), database.conninfo]),
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PSYCOPG_IMPL": implementation},
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    if able:
        running = (
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'delivery' AND datname = current_database()"
        )
        wait_until(lambda: not database.value(running), "the end of the statement")


def test_error_is_named(pair: Pair) -> None:
    """The store reports what is missing, with the SQLSTATE of a warning, and keeps its connection."""
    pair.standby.freeze()
    store = MessageStore(pair.database.conninfo)
    with ThreadPoolExecutor(1) as pool:
        stored = pool.submit(store.ingest, submission())
        while not stored.done():
            for pid in pair.waiting():
                pair.database.execute("SELECT pg_cancel_backend(%s)", pid)
        with pytest.raises(StoreError, match="standby") as raised:
            stored.result()
    pair.standby.thaw()
    store.close()
    assert raised.value.sqlstate == "01000"
