"""The outage breaker: a database that is down is found out once, not by every delivery; and its return at once."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from harness import account
from harness.database import Database
from harness.handler import Handler

from pipehandler.delivery.circuit_breaker import HOLD, CircuitBreaker
from pipehandler.mail.outcome import STORE_UNAVAILABLE
from pipehandler.store.errors import StoreError

MESSAGE = b"Message-ID: <1@example.org>\n\nhello\n"
KNOWN = "known to be down"


def wait_out(handler: Handler) -> None:
    """Let the time pass in which nobody tries."""
    past = time.time() - HOLD - 1
    os.utime(handler.state / "outage", (past, past))


@pytest.fixture
def down(handler: Handler) -> Handler:
    """A handler whose database is down, and which has found it out."""
    handler.configure(f"host=127.0.0.1 port={account.free_port()} dbname=mail user=pipehandler")
    assert handler.deliver(MESSAGE).status == 75
    assert KNOWN not in handler.log_lines()[-1]
    return handler


def test_refused_while_known_to_be_down(down: Handler) -> None:
    """After one delivery failed, the next leaves at once with the same status and line."""
    ended = down.deliver(MESSAGE)
    assert (ended.status, ended.output) == (75, "4.3.0 message store unavailable\n")
    assert KNOWN in down.log_lines()[-1]


def test_back_after_the_outage(down: Handler, database: Database) -> None:
    """When the time is over the next delivery tries, and its success lets everybody in."""
    down.configure(database.conninfo)
    wait_out(down)
    assert down.deliver(MESSAGE).status == 0
    assert not (down.state / "outage").exists()
    assert down.deliver(MESSAGE, "other@example.com").status == 0


def test_one_at_a_time_tries(down: Handler) -> None:
    """Of many deliveries that come when the time is over, one tries, and the others are refused."""
    wait_out(down)
    directory = str(down.state)
    probe = CircuitBreaker(directory)
    assert not probe.refuses()
    assert [CircuitBreaker(directory).refuses() for _ in range(2)] == [True] * 2
    probe.trip()
    assert CircuitBreaker(directory).refuses()


def test_the_others_wait_for_the_one_that_tries(down: Handler) -> None:
    """Whoever comes while one tries goes in with it when it succeeds, all at once, and is refused when it fails."""
    for success in (True, False):
        CircuitBreaker(str(down.state)).trip()
        wait_out(down)
        with ThreadPoolExecutor(3) as pool:
            with suppress(StoreError), CircuitBreaker(str(down.state)):
                others = [CircuitBreaker(str(down.state)) for _ in range(3)]
                waiting = [pool.submit(each.refuses) for each in others]
                time.sleep(0.2)
                assert not any(each.done() for each in waiting)
                if not success:
                    raise StoreError(STORE_UNAVAILABLE, "still down")
            assert [each.result() for each in waiting] == [not success] * 3


def test_a_killed_probe_blocks_nobody(down: Handler) -> None:
    """The one that tries may die: the next one tries instead."""
    wait_out(down)
    if (child := os.fork()) == 0:
        os._exit(CircuitBreaker(str(down.state)).refuses())
    assert os.waitpid(child, 0)[1] == 0
    assert not CircuitBreaker(str(down.state)).refuses()


def test_locks_are_no_outage(handler: Handler, database: Database) -> None:
    """A delivery that waited in vain for a lock says nothing about the database, and shuts out nobody."""
    import psycopg

    handler.configure(database.conninfo, database={"statement_timeout": 1})
    with psycopg.connect(database.admin) as other:
        other.execute("LOCK TABLE pipehandler.delivery")
        assert handler.deliver(MESSAGE).status == 75
        assert not (handler.state / "outage").exists()
    assert handler.deliver(MESSAGE).status == 0


@pytest.mark.parametrize("state", ["missing", "closed"])
def test_without_a_state_directory(handler: Handler, database: Database, state: str) -> None:
    """A state directory that cannot be used costs the breaker, and no delivery."""
    directory = handler.folder / "nowhere" if state == "missing" else handler.state
    handler.configure(database.conninfo, state={"directory": str(directory)})
    handler.state.chmod(0o000)
    assert handler.deliver(MESSAGE).status == 0
    handler.configure(f"host=127.0.0.1 port={account.free_port()}", state={"directory": str(directory)})
    for _ in range(2):
        assert handler.deliver(MESSAGE).status == 75
        assert KNOWN not in handler.log_lines()[-1]


def test_what_postgresql_refuses_is_no_outage(handler: Handler, database: Database) -> None:
    """A recipient that PostgreSQL refuses defers its own message, and keeps nobody else's out."""
    database.execute("ALTER TABLE pipehandler.delivery ADD CHECK (recipient NOT LIKE 'odd%%')")
    assert handler.deliver(MESSAGE, "odd@example.com").status == 75
    assert not (handler.state / "outage").exists()
    assert handler.deliver(MESSAGE, "even@example.com").status == 0
