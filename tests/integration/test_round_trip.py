"""One message is one round trip and one transaction: counted on the wire, and by the server itself."""

import threading

import pytest
from harness.database import Database
from harness.handler import Handler
from harness.proxy import proxy
from harness.service import wait_until
from harness.submission import MESSAGE, submission

from pipehandler.store.message_store import MessageStore

LARGE = MESSAGE + b"x" * 3_000_000


@pytest.mark.parametrize("raw", [MESSAGE, LARGE], ids=["small", "large"])
@pytest.mark.parametrize(
    "recipients", [["a@example.com"], ["a@example.com", "b@example.com", "c@example.com"]], ids=len
)
def test_one_round_trip(handler: Handler, database: Database, raw: bytes, recipients: list[str]) -> None:
    """After the start-up the handler sends one flight of messages with one Sync, and only then the server answers.
    After that only the NOTIFY follows."""
    with proxy(database.server.port) as wire:
        handler.configure(wire.conninfo(database.conninfo))
        assert handler.deliver(raw, *recipients).status == 0
        wire.wait_for()
        kinds = wire.kinds()
    # Parse, Bind, Describe, Execute, Sync; ParseComplete, BindComplete, RowDescription, DataRow, CommandComplete,
    # ReadyForQuery; Query and its answer: the NOTIFY; Terminate.
    said = " ".join(kinds[kinds.index("BZ") + 1 :])
    assert said == f"FP FB FD FE FS B1 B2 BT {'BD ' * len(recipients)}BC BZ FQ BT BD BC BZ FX"


def commits(database: Database, count: int) -> int:
    """By how much pg_stat_database.xact_commit grew in a session that stored `count` messages."""

    def committed() -> int:
        # Queried in another database, so that the query does not count; a session reports its statistics when it ends.
        statement = "SELECT sum(numbackends), sum(xact_commit) FROM pg_stat_database WHERE datname = '{}'"
        seen = ["", ""]

        def alone() -> bool:
            seen[:] = database.server.psql("postgres", statement.format(database.name)).split("|")
            return seen[0] == "0"

        wait_until(alone, "the end of the sessions")
        if database.server.version >= 15:
            return int(seen[1])
        # PostgreSQL 14 has a process that collects what sessions report, and shows it twice a second.
        shown = ""
        for _ in range(20):
            threading.Event().wait(1.5)
            shown = seen[1]
            alone()
            if seen[1] == shown:
                break
        return int(shown)

    before = committed()
    store = MessageStore(database.conninfo)
    store.connect()
    for number in range(count):
        store.ingest(submission(MESSAGE + b"%d" % number, "a@example.com", "b@example.com"))
    store.close()
    return committed() - before


def test_one_transaction(every_database: Database) -> None:
    """Each message is one transaction, not counting what the server needs for the session itself."""
    session = commits(every_database, 0)
    assert commits(every_database, 5) - session == 5


def test_one_statement(handler: Handler, database: Database) -> None:
    """The server's log has one statement for a delivery, and one NOTIFY: no BEGIN, no SET, no second query."""
    database.execute(f"ALTER DATABASE {database.name} SET log_statement = 'all'")
    log = database.server.log
    before = log.stat().st_size
    assert handler.deliver(MESSAGE).status == 0
    lines = log.read_bytes()[before:].decode().splitlines()
    logged = [line for line in lines if "LOG:  execute" in line or "LOG:  statement" in line]
    assert len(logged) == 2
    assert "execute <unnamed>:" in logged[0]
    assert "pg_notify" in logged[1]
