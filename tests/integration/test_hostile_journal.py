"""A journal and a status socket forged by an attacker who took over the handler's account: they cost their own figures
and nothing else."""

import json
import os
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from harness import account, preloaded
from harness.handler import ENVIRONMENT, Handler
from harness.preloaded import PROGRAM
from harness.service import ResidentHandler, wait_until

from pipehandler.delivery.guarded_parse import guarded_parse
from pipehandler.mail.outcome import DELIVERED, Result
from pipehandler.monitor.journal_totals import JournalError, records, totals
from pipehandler.monitor.service_status import COUNTS, ask
from pipehandler.record.journal import NAME, Journal
from pipehandler.runtime.deadline import Deadline, clear
from pipehandler.settings.config import Config, State
from pipehandler.workers.listener import ServeError

MESSAGE = b"From: a@example.org\nMessage-ID: <1@example.org>\n\nbody\n"
ENDLESS = "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT"
DAY = 86_400.0


def written(folder: Path) -> Path:
    """A journal with an attempt that ended and one that did not."""
    book = Journal(str(folder))
    for ended in (True, False):
        entry = book.begin("pipe", "cold", "1", time.monotonic())
        if ended:
            book.end(entry, "pipe", "cold", Result(DELIVERED), 10, {"start": 0.2, "store": 0.1})
    book.close()
    for path in folder.iterdir():
        account.give(path)
    return folder / NAME


VALUES = (
    "'x'",
    "x'ff'",
    "1e300",
    "9e999",
    "-9e999",
    "NULL",
    "-1",
    "9223372036854775807",
    "'1e5'",
    "''",
    "zeroblob(900000)",
)
COLUMNS = {
    "attempt": "began pid ingress way queue_id status action code sqlstate size message reason start read parse store",
    "total": "ingress way status action attempts octets last",
    "duration": "way phase bound attempts seconds",
}


def statements() -> Iterator[str]:
    """Updates that put a value of the wrong type, or out of range, into one column."""
    for table, columns in COLUMNS.items():
        for column in columns.split():
            yield from (f"UPDATE {table} SET {column} = {value}" for value in VALUES)


def test_any_value_in_any_column(folder: Path) -> None:
    """Whatever a column holds, reading returns or raises JournalError."""
    for statement in statements():
        path = written(folder)
        with closing(sqlite3.connect(path)) as database, database:
            database.executescript("PRAGMA ignore_check_constraints = ON")
            try:
                database.execute(statement)
            except sqlite3.IntegrityError:  # NOT NULL, which another schema lacks: see below
                continue
            finally:
                database.commit()
        for read in (lambda: totals(str(folder)), lambda: records(str(folder), DAY)):
            with suppress(JournalError):
                read()
        for path in folder.iterdir():
            path.unlink()


def schema(text: str) -> Callable[[Path], object]:
    """A journal with other tables; text: statements to run after the tables of that name are dropped."""

    def make(path: Path) -> None:
        written(path.parent)
        with closing(sqlite3.connect(path)) as database:
            database.executescript(text)
        for each in path.parent.iterdir():
            account.give(each)

    return make


def instead(make: Callable[[Path], object]) -> Callable[[Path], object]:
    """Something else under the journal's name."""

    def put(path: Path) -> None:
        for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
            path.with_name(name).unlink(missing_ok=True)
        make(path)
        if not path.is_symlink():
            account.give(path)

    return put


def beside(suffix: str) -> Callable[[Path], object]:
    """A FIFO next to an intact journal, under the name of one of SQLite's files."""

    def put(path: Path) -> None:
        written(path.parent)
        path.with_name(path.name + suffix).unlink(missing_ok=True)
        os.mkfifo(path.with_name(path.name + suffix))
        account.give(path.with_name(path.name + suffix))

    return put


def endless(path: Path) -> None:
    """A database file of four terabytes, nearly all of it sparse."""
    path.write_bytes(b"SQLite format 3\0")
    os.truncate(path, 1 << 42)


HOSTILE: dict[str, Callable[[Path], object]] = {
    "view without end": schema(f"DROP TABLE total; CREATE VIEW total AS {ENDLESS} x, x, x, x, x, x, x FROM r"),
    "attempts without end": schema(f"DROP TABLE attempt; CREATE VIEW attempt AS {ENDLESS} x AS id, x AS began FROM r"),
    "trigger without end": schema(
        f"CREATE TRIGGER t AFTER INSERT ON attempt BEGIN INSERT INTO duration {ENDLESS} x, x, x, x, x FROM r; END"
    ),
    "trigger on the end": schema(
        f"CREATE TRIGGER t AFTER UPDATE ON attempt BEGIN INSERT INTO duration {ENDLESS} x, x, x, x, x FROM r; END"
    ),
    "computed column": schema(
        "ALTER TABLE attempt ADD COLUMN y GENERATED ALWAYS AS (hex(zeroblob(400000000))) VIRTUAL; "
    ),
    "no constraints": schema("DROP TABLE total; CREATE TABLE total (a, b); INSERT INTO total VALUES (NULL, NULL)"),
    "nulls": schema(
        "DROP TABLE total; CREATE TABLE total (ingress, way, status, action, attempts, octets, last);"
        " INSERT INTO total VALUES (NULL, NULL, NULL, NULL, NULL, NULL, NULL)"
    ),
    "other case": schema("DROP TABLE total; CREATE TABLE TOTAL (x)"),
    "many rows": schema(
        "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r WHERE x < 1500000)"
        " INSERT INTO attempt (began, pid, ingress, way) SELECT x, x, 'pipe', 'cold' FROM r"
    ),
    "many totals": schema(
        "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r WHERE x < 100000)"
        " INSERT INTO total SELECT 'pipe', 'cold', 0, 'a' || x, 1, 1, 1 FROM r"
    ),
    "a directory": instead(lambda path: path.mkdir()),
    "a FIFO": instead(os.mkfifo),
    "a link to a device": instead(lambda path: path.symlink_to("/dev/zero")),
    "a link to a file of root's": instead(lambda path: path.symlink_to("/etc/shadow")),
    "a loop of links": instead(lambda path: path.symlink_to(path)),
    "a file without end": instead(endless),
    "a FIFO as log": beside("-wal"),
    "a FIFO as memory": beside("-shm"),
    "a FIFO as rollback journal": beside("-journal"),
}


def program(handler: Handler, *arguments: str) -> str:
    """The output of a command as root, which must succeed."""
    done = preloaded.run("--config", handler.config, *arguments, environment=ENVIRONMENT, timeout=50)
    not_flowing = "status" in arguments  # there is no Postfix
    assert (done.returncode, done.stderr) == (int(not_flowing), b"")
    return done.stdout.decode()


@pytest.mark.parametrize("how", HOSTILE)
def test_root_reads_it(handler: Handler, how: str) -> None:
    """`status` reports the problem in one line, and shows the rest; `metrics` has journal_up 0, and the rest."""
    handler.deliver(MESSAGE)
    HOSTILE[how](handler.state / NAME)
    text = program(handler, "status")
    assert "Database:   up" in text
    metrics = program(handler, "metrics")
    assert "pipehandler_database_up 1.0" in metrics
    unreadable = "pipehandler_journal_up 0.0" in metrics
    assert unreadable == ("Journal:    not readable" in text)
    harmless = how.startswith("trigger") or how in ("a FIFO as memory", "a FIFO as rollback journal")
    assert unreadable != harmless
    assert "root:" not in text


@pytest.mark.parametrize("either", ["cold", "resident"], indirect=True)
@pytest.mark.parametrize("how", HOSTILE)
def test_a_delivery_writes_it(either: Handler, how: str) -> None:
    """A hostile journal costs the record, and nothing else: the message is stored at once, status 0."""
    if not account.IS_ROOT:
        pytest.skip("only root can hand files to the handler's account")
    HOSTILE[how](either.state / NAME)
    for number in range(3):
        assert either.deliver(MESSAGE, f"a{number}@example.com").status == 0
    assert [line for line in either.log_lines() if "outcome=delivered" not in line] == []
    if how.startswith(("trigger", "view", "attempts")):  # set aside, and a new one started
        if isinstance(either, ResidentHandler):
            wait_until((either.state / f"{NAME}.broken").exists, "the journal is put aside")
        assert (either.state / f"{NAME}.broken").exists()


def test_changed_while_it_is_read(folder: Path) -> None:
    """Deliveries write, and checkpoint the log into the file, at every moment of a read: no reader sees a partial
    state."""
    stop = threading.Event()
    failures: list[Exception] = []

    def write() -> None:
        try:
            book = Journal(str(folder))
            while not stop.is_set():
                entry = book.begin("pipe", "cold", "1", time.monotonic())
                book.end(entry, "pipe", "cold", Result(DELIVERED), 10, {"start": 0.2, "store": 0.1})
            book.close()
        except Exception as error:  # noqa: BLE001 # whatever it is, the test fails
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        wait_until((folder / NAME).exists, "the journal")
        seen = 0
        for _ in range(20):
            found = totals(str(folder))
            attempts = sum(each.attempts for each in found.exits)
            assert attempts >= seen
            assert sum(each.octets for each in found.exits) == 10 * attempts
            seen = attempts
    finally:
        stop.set()
        writer.join()
    assert failures == []
    assert seen > 0


# The socket.


@contextmanager
def answering(path: Path, answer: bytes, kind: int = socket.SOCK_SEQPACKET) -> Iterator[None]:
    """A program that sends this answer to every request on the socket `path`."""
    with socket.socket(socket.AF_UNIX, kind) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        listener.bind(str(path))
        listener.listen(10)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                    try:
                        connection.recv(100)
                        connection.send(answer)
                    except OSError:
                        pass

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


GOOD = dict.fromkeys(COUNTS, 1)
ANSWERS = {
    "nested": b"[" * 100_000,
    "nested objects": b'{"a":' * 20_000,
    "a list": b"[]",
    "a number": b"1",
    "null": b"null",
    "empty": b"",
    "NaN": b"NaN",
    "without counts": b"{}",
    "text": json.dumps({**GOOD, "busy": "1"}).encode(),
    "an object": json.dumps({**GOOD, "busy": {}}).encode(),
    "negative": json.dumps({**GOOD, "busy": -1}).encode(),
    "huge": json.dumps({**GOOD, "busy": 10**30}).encode(),
    "of 10,000 digits": json.dumps(GOOD).encode()[:-1] + b', "x": ' + b"9" * 10_000 + b"}",
    "infinite": json.dumps({**GOOD, "busy": float("inf")}).encode(),
    "Boolean": json.dumps({**GOOD, "busy": True}).encode(),
    "a name with a line break": json.dumps({**GOOD, "x\nFORGED": 1}).encode(),
    "not UTF-8": b'{"\xff": 1}',
    "longer than a packet of ours": json.dumps({**GOOD, **{f"x{number}": 1 for number in range(20_000)}}).encode(),
}


@pytest.mark.parametrize("how", ANSWERS)
def test_answer_of_another_program(handler: Handler, how: str) -> None:
    """An answer that no service would send is reported in one line; `status` and `metrics` show the rest."""
    with answering(handler.socket, ANSWERS[how]):
        with pytest.raises(ServeError, match="socket: the reply"):
            ask(str(handler.socket))
        if how in ("nested", "an object", "without counts", "huge"):
            assert "Workers:    none" in program(handler, "status")
            assert "pipehandler_service_up 0.0" in program(handler, "metrics")
            done = subprocess.run(
                [PROGRAM, "--config", str(handler.config), "serve", "--status"], capture_output=True, text=True
            )
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (69, "", 1)


def test_good_answer(folder: Path) -> None:
    """The answer of a service is returned, including the keys that a newer one adds."""
    with answering(folder / "socket", json.dumps({**GOOD, "newer": 2}).encode()):
        assert ask(str(folder / "socket")) == {**GOOD, "newer": 2}


@pytest.mark.parametrize("kind", ["a FIFO", "a file", "a link", "a stream socket", "silence"])
def test_no_service_there(folder: Path, kind: str) -> None:
    """With something else under the socket's name, or a silent program, the query ends within the two seconds."""
    path = folder / "socket"
    with socket.socket(
        socket.AF_UNIX, socket.SOCK_STREAM if kind == "a stream socket" else socket.SOCK_SEQPACKET
    ) as other:
        if kind == "a FIFO":
            os.mkfifo(path)
        elif kind == "a file":
            path.touch()
        elif kind == "a link":
            path.symlink_to("/dev/log")
        else:
            other.bind(str(path))
            other.listen(1)
        with pytest.raises(ServeError, match="socket: "):
            ask(str(path))


# Marks of the parser, which `reparse` and `import`, run by root, also leave.


@pytest.mark.parametrize("how", ["a symbolic link", "a hard link", "a FIFO", "a directory"])
def test_a_mark_goes_into_no_other_file(folder: Path, how: str) -> None:
    """The owner of the state directory cannot choose a file of root's to be overwritten; the message is parsed all the
    same."""
    target = folder / "target"
    target.write_text("root's")
    state = folder / "state"
    state.mkdir()
    mark = state / "parsing-1"
    plant: dict[str, Callable[[], None]] = {
        "a symbolic link": lambda: mark.symlink_to(target),
        "a hard link": lambda: mark.hardlink_to(target),
        "a FIFO": lambda: os.mkfifo(mark),
        "a directory": mark.mkdir,
    }
    plant[how]()
    config = Config(state=State(directory=str(state)))
    try:
        parsed = guarded_parse(MESSAGE, "1", config, Deadline(10, time.monotonic()))
    finally:
        clear()  # disarm() would leave the last alarm, which ends this process
    assert parsed.message.error is None
    assert target.read_text() == "root's"
