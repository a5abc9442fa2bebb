"""`pipehandler follow`, the stream on a terminal and for programs; and what wakes it."""

import subprocess
from contextlib import nullcontext
from pathlib import Path

import psycopg
import pytest
from harness.console import Console
from harness.database import Database
from harness.following import following, waiting
from harness.handler import Handler
from harness.proxy import BEFORE, FRONTEND, STALL, Fault, message, proxy
from harness.service import Service, wait_until
from harness.stream import Coming, announce, numbered, stored
from harness.submission import submission

import pipehandler
from pipehandler.store.message_store import MessageStore


@pytest.fixture
def console(tmp_path: Path, database: Database) -> Console:
    """The commands, for a role that may only read."""
    console = Console(tmp_path, database)
    console.configure(role="reader")
    return console


@pytest.mark.parametrize("way", ["cold", "resident"])
def test_woken_by_the_handler(console: Console, handler: Handler, database: Database, way: str) -> None:
    """What the handler stores, cold or by a worker, is seen though the next poll is far away."""
    reader = database.server.conninfo(database.name, user="reader")
    with Service(handler) if way == "resident" else nullcontext():
        coming = Coming(pipehandler.follow(reader, "now", poll=600), 5)
        for number in range(5):
            wait_until(lambda: waiting(database), "the stream")
            assert handler.deliver(numbered(number)).status == 0
            assert coming.next() == database.value("SELECT max(id) FROM pipehandler.delivery")


def test_woken_by_an_import(console: Console, database: Database) -> None:
    """An import sends NOTIFY at its end."""
    (console.folder / "upkeep").mkdir()
    upkeep = Console(console.folder / "upkeep", database)
    with psycopg.connect(database.admin, autocommit=True) as listener:
        listener.execute("LISTEN pipehandler")
        upkeep.run("import", "--recipient", "user@example.com", "-", stdin=numbered(1))
        assert [each.payload for each in listener.notifies(timeout=60, stop_after=1)] == [""]


def test_what_is_told(handler: Handler, database: Database) -> None:
    """Listeners are notified that there is something new, without its content; not for a duplicate, and never with
    store.notify = false."""
    with psycopg.connect(database.admin, autocommit=True) as listener:
        listener.execute("LISTEN pipehandler")
        assert handler.deliver(numbered(1)).status == 0
        assert [each.payload for each in listener.notifies(timeout=60, stop_after=1)] == [""]
        assert handler.deliver(numbered(1)).status == 0
        handler.configure(database.conninfo, store={"notify": False})
        assert handler.deliver(numbered(2)).status == 0
        assert list(listener.notifies(timeout=0.2)) == []


@pytest.mark.parametrize("way", ["cold", "resident"])
def test_the_answer_comes_first(handler: Handler, database: Database, way: str) -> None:
    """A server that stays silent when it should notify others blocks no process forever, and changes no status."""
    with proxy(database.server.port) as wire:
        handler.configure(wire.conninfo(database.conninfo), serve={"workers": 1})
        wire.fault = Fault(message(FRONTEND, "Q"), BEFORE, STALL)
        with Service(handler) if way == "resident" else nullcontext() as service:
            running = handler.start(handler.command())
            assert running.stdin
            assert running.stdout
            with running.stdin, running.stdout:
                running.stdin.write(numbered(1))
                running.stdin.close()
                assert running.stdout.readline().startswith(b"2.0.0 stored ")
            assert running.wait(60) == 0
            wait_until(lambda: wire.hits, "the notification, which follows the answer")
            if service:
                wait_until(service.ready)
            assert wire.hits == 1
            assert handler.deliver(numbered(2)).status == 0
    assert sum("outcome=delivered" in line for line in handler.log_lines()) == 2


def test_lines_for_people(console: Console, database: Database) -> None:
    """A line for each delivery: time, recipient, sender, subject; nothing in it that a terminal would interpret. Ctrl-C
    ends it."""
    store = MessageStore(database.conninfo)
    store.ingest(submission(numbered(1).replace(b"Subject: one", b"Subject: =?utf-8?q?one=1B[2J_two?=")))
    store.close()
    database.execute("UPDATE pipehandler.message SET subject = E'one\\x1b[2J\\ntwo'")  # the parser stores no such value
    with following(console, "--from-start") as follower:
        line = follower.line()
        assert follower.end() == (130, "")
    assert line.text.split("  ")[1:] == ["user@example.com", "A", "one\N{REPLACEMENT CHARACTER}[2J two\n"]


def test_where_it_begins(console: Console, database: Database) -> None:
    """It starts now; with --from-start at the first delivery, with --cursor after the delivery with that cursor."""
    first = stored(database, 1)
    second = stored(database, 2)
    with following(console, "--json") as now, following(console, "--json", "--from-start") as start:
        seen = start.line().json
        assert set(seen) == set(pipehandler.Delivery._fields)
        assert (seen["id"], start.line().json["id"]) == (first, second)
        more = ["--cursor", str(seen["cursor"]), "--recipient", "USER@example.com"]
        with following(console, "--json", *more) as later:
            assert later.line().json["id"] == second
        third = stored(database, 3)
        announce(database)
        assert now.line().json["id"] == third


def test_database_away_and_back(tmp_path: Path, own_database: Database) -> None:
    """An outage of the database is reported on stderr, and the stream continues."""
    console = Console(tmp_path, own_database)
    with following(console, "--json") as follower:
        own_database.server.stop()
        away = follower.error()  # a server that is back before may be found without a word
        own_database.server.start()
        wait_until(lambda: waiting(own_database))
        wanted = stored(own_database, 1)
        announce(own_database)
        assert follower.line().json["id"] == wanted
        _, errors = follower.end()
    assert away.startswith("the database is away: ")
    assert errors == "the database is back\n"


def test_a_closed_pipe(console: Console, database: Database) -> None:
    """A reader that closes the pipe after the first lines ends it, though nothing more arrives, and without a
    message."""
    for number in range(2):
        stored(database, number)
    command = " ".join(f"'{word}'" for word in console.command("follow", "--from-start"))
    done = subprocess.run(["bash", "-c", f"{command} | head -n 1"], capture_output=True, timeout=30)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == b""


@pytest.mark.parametrize(
    ("role", "arguments", "status", "reported"),
    [
        ("reader", ["--cursor", "1-1", "--from-start"], 2, "exclude each other"),
        ("reader", ["--lease", "0"], 2, "0 is not in the range"),
        ("reader", ["--cursor", "x"], 69, "invalid cursor 'x'"),
        ("pipehandler", [], 69, "pipehandler_reader"),
    ],
)
def test_what_is_wrong(console: Console, role: str, arguments: list[str], status: int, reported: str) -> None:
    """An error is reported in one line."""
    console.configure(role)
    done = console.run("follow", *arguments)
    assert done.status == status
    assert reported in done.errors
    assert "Traceback" not in done.errors
