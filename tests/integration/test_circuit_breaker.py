"""The circuit breaker: an outage is detected once, not by every delivery; and its end at once."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from harness import account
from harness.database import Database
from harness.handler import Handler
from harness.service import wait_until

from pipehandler.delivery import circuit_breaker
from pipehandler.delivery.circuit_breaker import CircuitBreaker
from pipehandler.mail.outcome import STORE_UNAVAILABLE, Undelivered
from pipehandler.store.errors import StoreError

MESSAGE = b"Message-ID: <1@example.org>\n\nhello\n"
KNOWN = "known to be down"


@pytest.fixture
def down(handler: Handler) -> Handler:
    """A handler whose database is down, and which has detected that."""
    handler.configure(f"host=127.0.0.1 port={account.free_port()} dbname=mail user=pipehandler")
    assert handler.deliver(MESSAGE).status == 75
    assert KNOWN not in handler.log_lines()[-1]
    return handler


def test_refused_while_known_to_be_down(down: Handler) -> None:
    """Right after one delivery failed, the next is refused with the same status and line."""

    def refused() -> bool:
        ended = down.deliver(MESSAGE)
        assert (ended.status, ended.output) == (75, "4.3.0 message store unavailable\n")
        return KNOWN in down.log_lines()[-1]

    wait_until(refused)  # on a loaded host the breaker may have let a delivery probe before the next one started


def test_back_after_the_outage(down: Handler, database: Database) -> None:
    """After the pause the next delivery probes, and its success closes the breaker for all."""
    down.configure(database.conninfo)
    down.end_hold()
    assert down.deliver(MESSAGE).status == 0
    assert not (down.state / "outage").exists()
    assert down.deliver(MESSAGE, "other@example.com").status == 0


def test_one_at_a_time_tries(down: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many deliveries that start after the pause, one probes, and the others are refused."""
    down.end_hold()
    monkeypatch.setattr(circuit_breaker, "HOLD", 50)
    directory = str(down.state)
    probe = CircuitBreaker(directory)
    assert not probe.refuses()
    assert [CircuitBreaker(directory).refuses() for _ in range(2)] == [True] * 2
    probe.trip()
    assert CircuitBreaker(directory).refuses()


def test_the_others_wait_for_the_one_that_tries(down: Handler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deliveries that start during a probe all proceed when it succeeds, and are refused when it fails."""
    monkeypatch.setattr(circuit_breaker, "HOLD", 50)
    monkeypatch.setattr(circuit_breaker, "_PROBE_SECONDS", 600)
    for success in (True, False):
        CircuitBreaker(str(down.state)).trip()
        down.end_hold()
        with ThreadPoolExecutor(3) as pool:
            with suppress(StoreError), CircuitBreaker(str(down.state)):
                waiting = [pool.submit(refused, down) for _ in range(3)]
                wait_until(lambda: opened(down.state / "outage") == 4, "all of them at the file")
                assert not any(each.done() for each in waiting)
                if not success:
                    raise StoreError(STORE_UNAVAILABLE, "still down")
            assert [each.result(60) for each in waiting] == [not success] * 3


def refused(handler: Handler) -> bool:
    """Whether a delivery that starts now is refused."""
    try:
        with CircuitBreaker(str(handler.state)):
            return False
    except Undelivered:
        return True


def opened(path: Path) -> int:
    """The number of descriptors that this process has open on a file."""
    links = [link for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return sum(os.path.exists(link) and os.path.samefile(link, path) for link in links)


def test_a_killed_probe_blocks_nobody(down: Handler) -> None:
    """The probing delivery may die: the next one probes instead."""
    down.end_hold()
    if (child := os.fork()) == 0:
        os._exit(CircuitBreaker(str(down.state)).refuses())
    assert os.waitpid(child, 0)[1] == 0
    assert not CircuitBreaker(str(down.state)).refuses()


def test_a_stopped_probe_blocks_nobody(down: Handler, database: Database) -> None:
    """The probing delivery may hang with its lock: another one probes a few seconds later, and mail flows."""
    down.end_hold()
    if (child := os.fork()) == 0:
        CircuitBreaker(str(down.state)).refuses()
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    try:
        os.waitpid(child, os.WUNTRACED)
        down.configure(database.conninfo)
        statuses = [down.deliver(MESSAGE).status]
        while statuses[-1]:
            assert len(statuses) < 10
            statuses.append(down.deliver(MESSAGE).status)
        assert statuses[0] == 75  # it may have been about to succeed
        assert down.deliver(MESSAGE, "other@example.com").status == 0
        assert [each.name for each in down.state.iterdir() if each.name.startswith("outage")] == []
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_one_at_a_time_replaces_a_stopped_probe(down: Handler) -> None:
    """The delivery that replaces a hanging probe is the only one that probes; the others are refused again."""
    directory = str(down.state)
    down.end_hold()
    stopped, second = CircuitBreaker(directory), CircuitBreaker(directory)
    assert not stopped.refuses()
    os.utime(down.state / "outage", (time.time() - 60, time.time() - 60))
    assert not second.refuses()
    assert CircuitBreaker(directory).refuses()
    stopped.trip()
    assert second.is_open


@pytest.mark.parametrize("jump", [-1e9, -3600, 3600, 1e9])
def test_the_clock_jumps(down: Handler, database: Database, jump: float) -> None:
    """A clock that is set back or forward, during the pause or a probe, ends the pause and blocks no delivery."""
    down.configure(database.conninfo)
    then = time.time() - jump
    os.utime(down.state / "outage", (then, then))
    stopped = CircuitBreaker(str(down.state))
    assert not stopped.refuses()
    os.utime(down.state / "outage", (then, then))
    assert down.deliver(MESSAGE).status == 0
    assert not (down.state / "outage").exists()


def test_locks_are_no_outage(handler: Handler, database: Database) -> None:
    """A lock timeout is not evidence of an outage, and does not open the breaker."""
    import psycopg

    handler.configure(database.conninfo, database={"statement_timeout": 1})
    with psycopg.connect(database.admin) as other:
        other.execute("LOCK TABLE pipehandler.delivery")
        assert handler.deliver(MESSAGE).status == 75
        assert not (handler.state / "outage").exists()
    assert handler.deliver(MESSAGE).status == 0


@pytest.mark.parametrize("state", ["missing", "closed"])
def test_without_a_state_directory(handler: Handler, database: Database, state: str) -> None:
    """An unusable state directory disables the breaker, but defers no delivery."""
    directory = handler.folder / "nowhere" if state == "missing" else handler.state
    handler.configure(database.conninfo, state={"directory": str(directory)})
    handler.state.chmod(0o000)
    assert handler.deliver(MESSAGE).status == 0
    handler.configure(f"host=127.0.0.1 port={account.free_port()}", state={"directory": str(directory)})
    for _ in range(2):
        assert handler.deliver(MESSAGE).status == 75
        assert KNOWN not in handler.log_lines()[-1]


def test_what_postgresql_refuses_is_no_outage(handler: Handler, database: Database) -> None:
    """A recipient that PostgreSQL refuses defers its own message, and no other."""
    database.execute("ALTER TABLE pipehandler.delivery ADD CHECK (recipient NOT LIKE 'odd%%')")
    assert handler.deliver(MESSAGE, "odd@example.com").status == 75
    assert not (handler.state / "outage").exists()
    assert handler.deliver(MESSAGE, "even@example.com").status == 0
