"""Large messages take turns: they wait for each other, and no small message waits for them."""

import fcntl
import io
import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from harness import account
from harness.database import Database
from harness.handler import Ended, Handler
from harness.service import Service, wait_until
from harness.submission import MESSAGE

from pipehandler.delivery.turn import LARGE

BIG = MESSAGE + b"x\n" * (LARGE // 2)
AT_ONCE = 2  # on one processor
GATE = 4_711


@pytest.fixture
def senders() -> Iterator[ThreadPoolExecutor]:
    """Threads that send."""
    with ThreadPoolExecutor(8) as threads:
        yield threads


def send(senders: ThreadPoolExecutor, handler: Handler, number: int, known: bool = True) -> "Future[Ended]":
    """Deliver a distinct large message on one processor; `known`: Postfix passes the size."""
    raw = BIG + b"%d\n" % number
    command = handler.command(size=len(raw) + raw.count(b"\n") if known else "")
    return senders.submit(handler.run, ["taskset", "--cpu-list", "0", *command], raw)


@contextmanager
def gate(database: Database) -> Iterator[psycopg.Connection]:
    """Large messages wait inside the database until the connection releases them."""
    database.execute(
        "CREATE FUNCTION public.gate() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS"
        f" $$ BEGIN IF NEW.size >= {LARGE} THEN PERFORM pg_advisory_xact_lock_shared({GATE}); END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER gate BEFORE INSERT ON pipehandler.message FOR EACH ROW EXECUTE FUNCTION public.gate()"
    )
    with psycopg.connect(database.admin, autocommit=True) as keeper:
        keeper.execute(f"SELECT pg_advisory_lock({GATE})")
        yield keeper


def in_database(database: Database) -> int:
    """The number of large messages that wait there."""
    return int(database.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))


def configure(handler: Handler, database: Database) -> None:
    """Nothing gives up while the machine is busy."""
    handler.configure(
        database.conninfo,
        database={"statement_timeout": 60},
        limits={"deadline": 120},
        serve={"workers": 4, "queue_timeout": 60},
    )


@pytest.mark.parametrize("known", [True, False], ids=["size known", "size unknown"])
def test_cold(handler: Handler, database: Database, senders: ThreadPoolExecutor, known: bool) -> None:
    """Two large messages are delivered at a time; small ones pass, and in the end all are stored."""
    configure(handler, database)
    with gate(database) as keeper:
        sent = [send(senders, handler, number, known) for number in range(AT_ONCE + 2)]
        wait_until(lambda: in_database(database) == AT_ONCE)
        assert handler.deliver(MESSAGE).status == 0
        assert in_database(database) == AT_ONCE
        assert not any(each.done() for each in sent)
        keeper.execute(f"SELECT pg_advisory_unlock({GATE})")
        assert [each.result().status for each in sent] == [0] * len(sent)
    assert database.value("SELECT count(*) FROM pipehandler.delivery") == AT_ONCE + 3


def test_resident(handler: Handler, database: Database, senders: ThreadPoolExecutor) -> None:
    """Half of the workers deliver large messages; the others are reserved for small ones."""
    configure(handler, database)
    with Service(handler) as service, gate(database) as keeper:
        sent = [send(senders, handler, number) for number in range(4)]
        wait_until(lambda: service.status()["waiting"] == 2 and in_database(database) == 2)
        assert handler.deliver(MESSAGE).status == 0
        assert (service.status()["waiting"], in_database(database)) == (2, 2)
        keeper.execute(f"SELECT pg_advisory_unlock({GATE})")
        assert [each.result().status for each in sent] == [0] * 4
    assert not [line for line in handler.log_lines() if " mode=cold " in line]


def test_no_turn_in_time(handler: Handler, database: Database, senders: ThreadPoolExecutor) -> None:
    """A large message that gets no turn is deferred, and a small one is not; a turn that is free is taken."""
    handler.configure(database.conninfo, limits={"deadline": 5, "parse_timeout": 2})
    with (handler.state / "large").open("wb") as turns:
        (handler.state / "large").chmod(0o666)
        fcntl.lockf(turns, fcntl.LOCK_EX, AT_ONCE)
        refused = send(senders, handler, 1).result()
        assert (refused.status, refused.output) == (75, "4.4.5 mail system congested\n")
        assert handler.deliver(MESSAGE).status == 0
        assert not (handler.state / "outage").exists()
        handler.configure(database.conninfo)
        fcntl.lockf(turns, fcntl.LOCK_UN, 1)
        assert send(senders, handler, 2).result().status == 0


def test_a_killed_delivery_gives_its_turn_back(
    handler: Handler, database: Database, senders: ThreadPoolExecutor
) -> None:
    """The turn ends with the process, however the process ends."""
    configure(handler, database)
    with gate(database):
        killed = [
            handler.start(["taskset", "--cpu-list", "0", *handler.command(f"{n}@example.com")]) for n in range(AT_ONCE)
        ]
        for running in killed:
            assert running.stdin
            running.stdin.write(BIG)
            running.stdin.close()
        wait_until(lambda: in_database(database) == AT_ONCE)
        for running in killed:
            running.send_signal(signal.SIGKILL)
            running.wait()
            assert running.stdout
            running.stdout.close()
        sent = send(senders, handler, 3)
        wait_until(lambda: in_database(database) > AT_ONCE or sent.done())
        database.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objid = {GATE} AND granted"
        )
        assert sent.result().status == 0


@pytest.mark.parametrize("known", [True, False], ids=["size known", "size unknown"])
def test_the_probe_of_the_breaker_waits_for_no_turn(
    handler: Handler, database: Database, senders: ThreadPoolExecutor, known: bool
) -> None:
    """While a large message waits for its turn, another one may find out whether the database is back."""
    configure(handler, database)
    with gate(database) as keeper:
        sent = [send(senders, handler, number) for number in range(AT_ONCE)]
        wait_until(lambda: in_database(database) == AT_ONCE)
        breaker = handler.state / "outage"
        breaker.touch()
        shutil.chown(breaker, account.NAME)
        os.utime(breaker, (1, 1))
        sent.append(send(senders, handler, AT_ONCE, known))
        wait_until(lambda: _open_in(str(handler.state / "large")) == AT_ONCE + 1)
        assert handler.deliver(MESSAGE).status == 0
        assert not breaker.exists()
        keeper.execute(f"SELECT pg_advisory_unlock({GATE})")
        assert [each.result().status for each in sent] == [0] * len(sent)


def test_what_waits_is_not_read_whole(handler: Handler, database: Database) -> None:
    """A message of unknown size waits as soon as it is large: the rest of it stays in the pipe, not in memory."""
    configure(handler, database)
    with (handler.state / "large").open("wb") as turns:
        (handler.state / "large").chmod(0o666)
        fcntl.lockf(turns, fcntl.LOCK_EX, AT_ONCE)
        running = handler.start(["taskset", "--cpu-list", "0", *handler.command()])
        assert running.stdin
        pipe = running.stdin.fileno()
        os.set_blocking(pipe, False)
        written = 0

        def write() -> None:
            nonlocal written
            with suppress(BlockingIOError):
                while True:
                    written += os.write(pipe, BIG[:65_536])

        def waits() -> bool:
            write()
            return _open_in(turns.name) == 2

        wait_until(waits)
        write()
        assert written <= LARGE + fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) + 2 * io.DEFAULT_BUFFER_SIZE
        fcntl.lockf(turns, fcntl.LOCK_UN, AT_ONCE)
        output, _ = running.communicate(timeout=200)
        assert (running.returncode, output[:12]) == (0, b"2.0.0 stored")
    assert database.value("SELECT size FROM pipehandler.message") == written


def _open_in(path: str) -> int:
    """The number of processes that have opened a file."""
    found = set()
    for each in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if os.readlink(each) == path:
                found.add(each.parts[2])
    return len(found)
