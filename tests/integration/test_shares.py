"""The largest share of a resource that one message, client or recipient can take, for figures that no other test
covers."""

import re
import shutil
import signal
import subprocess
from pathlib import Path

import psycopg
import pytest
from harness.database import Database
from harness.handler import Handler
from harness.missing import missing
from harness.service import wait_until
from harness.submission import INGEST, MESSAGE, submission

from pipehandler.store.message_store import MessageStore
from pipehandler.store.session import SETTINGS

PAGE = Path(__file__).parents[2] / "docs" / "shares.md"
DESCRIPTORS = 16


def test_descriptors(handler: Handler, database: Database) -> None:
    """A delivery needs no more descriptors than documented."""
    ended = handler.run(["prlimit", f"--nofile={DESCRIPTORS}", *handler.command()], MESSAGE)
    assert ended.output.startswith("2.0.0 stored ")
    assert f"| {DESCRIPTORS} " in PAGE.read_text()


def test_values_of_the_envelope(handler: Handler) -> None:
    """The kernel bounds each argument that pipe(8) can pass, with its name and its end."""
    longest = 131_071 - len("--client-helo=")
    assert handler.deliver(MESSAGE, client_helo="x" * longest).status == 0
    with pytest.raises(OSError, match="Argument list too long"):
        handler.start(handler.command(client_helo="x" * (longest + 1)))


def buffers(database: Database, number: int) -> int:
    """The pages that the server touches to store one more message for one recipient."""
    with psycopg.connect(database.admin, autocommit=True) as connection:
        raw = b"Message-ID: <new%d@example.org>\n\nbody\n" % number
        arguments = submission(raw, "busy@example.com").arguments()
        connection.execute("SET search_path = pg_catalog, pg_temp")
        for _ in range(2):  # the second time all plans and caches exist
            (plan,) = (
                connection.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {INGEST}", arguments).fetchone() or ()
            )
            arguments = submission(raw + b"again\n", "busy@example.com").arguments()
    return int(plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"])


def test_recipient_with_many_deliveries(database: Database) -> None:
    """One more message for a recipient with twenty thousand costs the server no more than for one without any."""
    few = buffers(database, 1)
    database.execute(
        "INSERT INTO pipehandler.delivery (message, recipient, fingerprint, sender, mail_host, ingress, received_at)"
        " SELECT message, recipient, sha256(n::text::bytea), sender, mail_host, ingress, received_at"
        "   FROM pipehandler.delivery, generate_series(1, 20000) AS n WHERE id = 1"
    )
    database.execute("ANALYZE pipehandler.delivery")
    assert buffers(database, 2) < 1.5 * few


def test_a_stopped_delivery_holds_no_lock(handler: Handler, database: Database) -> None:
    """A process that hangs after it has sent its message does not block others: the server ends the transaction."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'pipehandler' AND wait_event_type = 'Lock'"
    with psycopg.connect(database.admin) as gate, handler.start(handler.command()) as stopped:
        gate.execute("LOCK TABLE pipehandler.delivery")
        assert stopped.stdin
        stopped.stdin.write(MESSAGE)
        stopped.stdin.close()
        wait_until(lambda: database.value(waiting))
        stopped.send_signal(signal.SIGSTOP)
        gate.commit()
        wait_until(lambda: database.value("SELECT count(*) FROM pipehandler.delivery"))
        assert handler.deliver(MESSAGE).output.startswith("2.0.0 stored before ")
        assert stopped.poll() is None
        stopped.send_signal(signal.SIGCONT)
        assert stopped.wait() == 0


def test_a_process_that_stands_still_in_a_transaction(database: Database) -> None:
    """The server ends a session of ours that hangs inside a transaction, such as that of a stopped `migrate`."""
    assert SETTINGS["idle_in_transaction_session_timeout"] == "1min"
    store = MessageStore(database.admin)
    store.script("SET idle_in_transaction_session_timeout = 100; BEGIN; LOCK TABLE pipehandler.delivery")
    with psycopg.connect(database.admin) as other:  # waits for the lock as long as the session hangs
        other.execute("SET lock_timeout = '30s'; LOCK TABLE pipehandler.delivery")
    store.close()


def test_limits_of_postfix() -> None:
    """The Postfix parameters in the documentation have the defaults that Postfix reports."""
    if shutil.which("postconf") is None:
        missing("Postfix")
    lines = re.findall(r"^\| `(\w+)` \| (\S+) \|", PAGE.read_text(), re.MULTILINE)
    assert len(lines) >= 5
    names = [name for name, _ in lines]
    found = subprocess.run(["postconf", "-d", "-x", *names], capture_output=True, text=True, check=True).stdout
    assert dict(line.split(" = ") for line in found.splitlines()) == dict(lines)


@pytest.mark.parametrize("recipients", [1, 50])
def test_one_transaction_at_a_time(database: Database, recipients: int) -> None:
    """However many recipients one call has, it is one statement: a client has as many sessions as processes."""
    store = MessageStore(database.conninfo)
    stored = store.ingest(submission(MESSAGE, *(f"r{n}@example.com" for n in range(recipients))))
    assert len(stored) == recipients
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'pipehandler' AND datname = current_database()"
    assert database.value(sessions) == 1
    store.close()
