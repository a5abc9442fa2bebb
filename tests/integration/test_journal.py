"""The journal: every attempt, however it ends, leaves one record on the mail host, and none depends on it."""

import os
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import groupby
from pathlib import Path

import pytest
from harness import account, journal_0_1_0
from harness.database import Database
from harness.handler import Handler
from harness.service import ResidentHandler, Service, begin, configure, ended, held, stuck, wait_until

from pipehandler.mail.outcome import DELIVERED, FAULT, TRUNCATED, Result
from pipehandler.monitor.journal_totals import Exits, JournalError, Record, records, totals
from pipehandler.record import journal
from pipehandler.record.journal import BOUNDS, KILLED, NAME, Journal
from pipehandler.runtime.stopwatch import PHASES

MESSAGE = b"From: secret@example.org\nMessage-ID: <secret-id@example.org>\nSubject: secret subject\n\nsecret body\n"
DAY = 86_400.0


def mode(handler: Handler) -> str:
    """The mode of its deliveries."""
    return "resident" if isinstance(handler, ResidentHandler) else "cold"


def written(handler: Handler, count: int = 1) -> list[Record]:
    """The records, once there are `count` of them; a worker writes after it has answered the entrypoint."""
    found: list[Record] = []

    def there() -> bool:
        with suppress(JournalError):
            found[:] = records(str(handler.state), 1_000)
        return len(found) >= count

    wait_until(there, f"the record number {count}")
    assert len(found) == count
    return found


def query(handler: Handler, statement: str) -> list[tuple[object, ...]]:
    """Rows read directly from the file."""
    with closing(sqlite3.connect(handler.state / NAME)) as database:
        return database.execute(statement).fetchall()


def test_delivered(either: Handler) -> None:
    """A delivery records its time, outcome, duration and ids, and the log line has the same."""
    before = time.time()
    done = either.deliver(MESSAGE, queue_id="4jX0XQ66FjzJ9Ll")
    (record,) = written(either)
    assert before - 1 < record.began < time.time()
    assert record[1:8] == ("pipe", mode(either), "4jX0XQ66FjzJ9Ll", 0, "delivered", "2.0.0", None)
    assert (record.size, record.reason) == (len(MESSAGE), None)
    assert done.output == f"2.0.0 stored {record.message}\n"
    assert list(record.seconds) == list(PHASES)
    assert all(seconds > 0 for seconds in record.seconds.values())
    assert f"message={record.message}" in either.log_lines()[-1]


def test_every_end(either: Handler, database: Database) -> None:
    """Each kind of outcome is distinguished, with its SQLSTATE, its reason and the phase that it reached."""
    either.deliver(MESSAGE)
    either.deliver(MESSAGE)
    either.run(either.command(size="many"), MESSAGE)
    either.configure(database.conninfo, limits={"message_size": 1024})
    either.deliver(b"x" * 1025)
    either.deliver(b"")
    database.execute("ALTER SCHEMA pipehandler RENAME TO gone")
    count = 6

    def refused() -> bool:
        nonlocal count
        either.deliver(MESSAGE)
        count += 1
        return written(either, count)[-1].outcome == "outage"

    either.deliver(MESSAGE)
    wait_until(refused)  # on a loaded host the breaker may have let a delivery probe before the next one started
    found = [(record.outcome, record.status, record.sqlstate, len(record.seconds)) for record in written(either, count)]
    assert [row for row, _ in groupby(found)] == [
        ("delivered", 0, None, 4),
        ("duplicate", 0, None, 4),
        ("misconfigured", 75, None, 1),
        ("too_large", 65, None, 2),
        ("truncated", 75, None, 2),
        ("store_unavailable", 75, "3F000", 4),
        ("outage", 75, None, 1),
    ]
    exits = {each.outcome: each.attempts for each in totals(str(either.state)).exits}
    assert exits == Counter(outcome for outcome, *_ in found)


def test_wrong_configuration_is_written_down_where_the_default_is(folder: Path) -> None:
    """While the configuration cannot be read, its state directory is unknown: the journal in the default one is
    used."""
    script = """
mkdir -p "$1/upper" "$1/work"
mount -t overlay overlay -o "lowerdir=/var/lib,upperdir=$1/upper,workdir=$1/work" /var/lib
install -d -o nobody /var/lib/pipehandler
shift
exec "$@"
"""
    if not account.IS_ROOT:
        pytest.skip("only root can have a /var/lib of its own")
    handler = Handler(folder / "handler", "host=/nonexistent")
    handler.config.write_text("no TOML\n")
    run_as = ["setpriv", "--reuid", account.NAME, "--clear-groups"]
    command = ["unshare", "-m", "bash", "-euc", script, "bash", str(folder), *run_as, *handler.command()]
    done = subprocess.run(command, input=MESSAGE, capture_output=True)
    assert (done.returncode, done.stdout) == (75, b"4.3.5 mail system incorrectly configured\n"), done.stderr
    (record,) = records(str(folder / "upper" / "pipehandler"), 100)
    assert (record.outcome, record.status) == ("misconfigured", 75)
    assert record.reason
    assert "not a TOML file" in record.reason


def test_wrong_configuration(handler: Handler) -> None:
    """A configuration with an error elsewhere still determines where its journal and its log are."""
    with handler.config.open("a") as file:
        file.write("[limits]\ndeadline = 1\n")
    assert handler.deliver(MESSAGE, queue_id="1").status == 75
    (record,) = written(handler)
    assert (record.outcome, record.queue_id) == ("misconfigured", "1")
    assert "limits.deadline = 1; allowed: " in handler.log_lines()[-1]


def test_nothing_of_the_message(either: Handler, database: Database) -> None:
    """No address and no content is written to the file, even where an error would quote them."""
    either.deliver(
        MESSAGE, "secret-recipient@example.com", sender="secret-sender@example.org", client_helo="secret-helo"
    )
    either.run([*either.command()[:-2], "secret-recipient@example.com"], MESSAGE)
    either.run([*either.command(), ""], MESSAGE)
    either.run(either.command(original_recipient="", size="secret@size"), MESSAGE)
    either.run(["secret@example.org" if word == "--" else word for word in either.command()], MESSAGE)
    database.execute("ALTER TABLE pipehandler.message ADD CHECK (subject IS NULL) NOT VALID")
    either.deliver(MESSAGE + b"more")
    written(either, 6)
    text = b"".join(path.read_bytes() for path in either.state.glob(f"{NAME}*"))
    assert b"quarantined" in text
    assert b"secret" not in text
    assert not any("secret" in line.replace("message_id=secret-id@example.org", "") for line in either.log_lines())


@pytest.mark.parametrize("moment", ["read", "store"])
def test_killed(handler: Handler, database: Database, moment: str) -> None:
    """A killed delivery leaves a record that it began; while it is alive it is shown as running."""
    with held(database):
        running = handler.start(handler.command(queue_id="1"))
        assert running.stdin
        wait_until((handler.state / NAME).exists, "the journal")
        if moment == "store":
            running.stdin.write(MESSAGE)
            running.stdin.close()
            stuck(database)
        wait_until(lambda: totals(str(handler.state)).under_way, "the record")
        assert records(str(handler.state), 1_000) == []
        running.kill()
        if moment == "store":
            running.stdin = None
        running.communicate()
    (record,) = written(handler)
    assert (record.outcome, record.status, record.queue_id, record.seconds) == (KILLED, None, "1", {})
    (exits,) = totals(str(handler.state)).exits
    assert exits == Exits("pipe", "cold", None, KILLED, 1, 0, record.began)


def test_worker_killed(handler: Handler, database: Database) -> None:
    """A message whose worker died is one attempt, with the outcome that Postfix received: a fault, with the signal."""
    configure(handler)
    with Service(handler) as service, held(database):
        running = begin(handler, service, MESSAGE)
        stuck(database)
        os.kill(service.workers()[0], signal.SIGKILL)
        assert ended(running).status == 75
        (record,) = written(handler)
    assert (record.outcome, record.status, record.mode) == ("fault", 75, "resident")
    assert record.reason == "the worker killed by signal 9"


def test_congested(handler: Handler, database: Database) -> None:
    """A message for which no worker was free is an attempt as well, though no worker saw it."""
    configure(handler, queue_timeout=1)
    with Service(handler) as service:
        with held(database):
            first = begin(handler, service, MESSAGE)
            assert handler.deliver(MESSAGE, queue_id="2").status == 75
        assert ended(first).status == 0
        found = written(handler, 2)
    assert [(record.outcome, record.queue_id) for record in found] == [("delivered", None), ("congested", "2")]
    assert found[1].reason == "no worker was free within 1 s"


def test_a_number_that_was_given_out_again(folder: Path) -> None:
    """An attempt is running only if its process is the one that began it, and has not begun another since."""
    journal = Journal(str(folder))
    journal.begin("pipe", "cold", "1", time.monotonic())
    journal.begin("pipe", "cold", "2", time.monotonic())
    journal.close()
    with closing(sqlite3.connect(folder / NAME)) as database, database:
        database.execute(
            "INSERT INTO attempt (began, pid, ingress, way) VALUES (?, 1, 'pipe', 'cold')", (time.time() - 9e5,)
        )
    assert totals(str(folder)).under_way == 1
    assert [(record.queue_id, record.outcome) for record in records(str(folder), 1e6)] == [
        (None, KILLED),
        ("1", KILLED),
    ]


def test_an_end_while_it_is_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attempt that ends between the read of the journal and the check of its process is not counted as killed."""
    journal = Journal(str(folder))
    entry = journal.begin("pipe", "cold", "1", time.monotonic())

    def gone(*_: object) -> bool:
        journal.end(entry, "pipe", "cold", Result(DELIVERED), 1, {})
        return False

    monkeypatch.setattr("pipehandler.monitor.journal_totals._alive", gone)
    assert totals(str(folder)).exits == []
    assert [each.outcome for each in totals(str(folder)).exits] == ["delivered"]
    journal.close()


def test_values_that_no_journal_holds(folder: Path) -> None:
    """Text that is not Unicode or a number that is too large costs only that record: the next attempt is recorded."""
    journal = Journal(str(folder))
    for queue_id in ("\udcff", "\ud800"):
        assert journal.begin("pipe", "cold", queue_id, time.monotonic()) is None
        assert journal.find_unfinished(1, queue_id) is None
    entry = journal.begin("pipe", "cold", "1", time.monotonic())
    assert entry is not None
    for result, size in (
        (Result(FAULT, reason="\udcff"), 1),
        (Result(FAULT, message="\ud800"), 1),
        (Result(FAULT), 2**64),
    ):
        journal.end(entry, "pipe", "cold", result, size, {"parse": 0.1})
    assert not journal.should_report("\udcff", 1)
    journal.count_dropped(["\udcff"])
    journal.end(entry, "pipe", "cold", Result(FAULT), 1, {"parse": 0.1})
    journal.close()
    (record,) = records(str(folder), 60)
    assert (record.queue_id, record.status) == ("1", 75)


def test_many_at_once(handler: Handler) -> None:
    """Concurrent attempts are all recorded in a journal that does not exist yet."""
    with ThreadPoolExecutor(16) as pool:
        done = list(pool.map(lambda number: handler.deliver(MESSAGE, f"a{number}@example.com"), range(20)))
    assert {each.status for each in done} == {0}
    assert [record.outcome for record in written(handler, 20)] == ["delivered"] * 20
    assert [path.name for path in handler.state.iterdir() if path.name.startswith(f"{NAME}.")] == []


def whole(path: Path) -> None:
    """A journal with a record, closed."""
    before = Journal(str(path.parent))
    before.begin("pipe", "cold", "1", time.monotonic())
    before.close()


def cut(path: Path) -> None:
    """A truncated journal."""
    whole(path)
    os.truncate(path, 5_000)


def other_tables(path: Path) -> None:
    """A database of another program."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE attempt (id)")


SPOILED: dict[str, Callable[[Path], object]] = {
    "no database": lambda path: path.write_bytes(b"no database " * 500),
    "truncated": cut,
    "other tables": other_tables,
    "empty": lambda path: path.touch(),
}


@pytest.mark.parametrize("how", SPOILED)
def test_spoiled(either: Handler, how: str) -> None:
    """A file that is not a journal is set aside by the first attempt that meets it, and the next one starts a new
    one."""
    SPOILED[how](either.state / NAME)
    for path in either.state.iterdir():
        account.give(path)
    for number in range(4):
        assert either.deliver(MESSAGE, f"a{number}@example.com").status == 0
    wait_until(lambda: len(records(str(either.state), 1_000)) >= 2, "the new records")
    assert (either.state / f"{NAME}.broken").exists()


def read_only(path: Path) -> None:
    """A journal that only root may write."""
    whole(path)
    path.chmod(0o444)


UNUSABLE: dict[str, Callable[[Path], object]] = {
    "no directory": lambda path: path.parent.rmdir(),
    "not ours": lambda path: os.chown(path.parent, 0, 0),
    "something else there": lambda path: path.mkdir(),
    "read-only": read_only,
}


@pytest.mark.parametrize("how", UNUSABLE)
def test_unusable(either: Handler, how: str) -> None:
    """A journal that cannot be written changes no delivery, and readers get the reason why it is empty."""
    if not account.IS_ROOT:
        pytest.skip("only root can close its files to the handler's account")
    UNUSABLE[how](either.state / NAME)
    assert either.deliver(MESSAGE).status == 0
    assert "outcome=delivered" in either.log_lines()[-1]
    if how != "read-only":
        with pytest.raises(JournalError, match=f"{NAME}: "):
            totals(str(either.state))


def test_full_disk(either: Handler) -> None:
    """A full disk under the state directory changes no delivery; once there is room again, attempts are recorded
    again."""
    if not account.IS_ROOT:
        pytest.skip("only root can mount")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k,mode=777", "tmpfs", either.state], check=True)
    try:
        assert either.deliver(MESSAGE, "1@example.com").status == 0
        written(either)
        filler = either.state / "filler"
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 100)
        for number in range(60):  # the room left in its own files is used up
            assert either.deliver(MESSAGE, f"{number}@example.com", queue_id="4" * 2_000).status == 0
            if len(records(str(either.state), 1_000)) < number:
                break
        else:
            pytest.fail("the disk did not become full")
        filler.unlink()
        before = len(records(str(either.state), 1_000))
        assert either.deliver(MESSAGE, "last@example.com").status == 0
        assert either.deliver(MESSAGE, "last@example.com").status == 0
        wait_until(lambda: len(records(str(either.state), 1_000)) > before, "a new record")
    finally:
        if isinstance(either, ResidentHandler):
            either.stop()
        subprocess.run(["umount", either.state], check=True)


def test_somebody_else_writes_for_long(either: Handler) -> None:
    """A delivery ends while another process locks the file, and does not fail."""
    either.deliver(MESSAGE)
    written(either)
    with closing(sqlite3.connect(either.state / NAME, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert either.deliver(MESSAGE, "other@example.com").status == 0
        other.execute("ROLLBACK")


def test_closed(folder: Path) -> None:
    """A closed journal keeps no file open, and opens it again for the next write."""

    def descriptors() -> int:
        opened = (os.path.realpath(each) for each in Path("/proc/self/fd").iterdir())
        return sum(each.startswith(str(folder / NAME)) for each in opened)

    book = Journal(str(folder))
    for number in (1, 2):
        assert book.begin("pipe", "cold", str(number), time.monotonic()) == number
        assert descriptors() > 0
        book.close()
        assert descriptors() == 0
    book.close()


def test_end_without_a_beginning(folder: Path) -> None:
    """An attempt whose beginning could not be recorded because another process was writing is counted all the same."""
    book = Journal(str(folder))
    book.end(None, "pipe", "cold", Result(DELIVERED), 10, {"start": 0.2})
    book.close()
    assert [(each.outcome, each.attempts, each.octets) for each in totals(str(folder)).exits] == [("delivered", 1, 10)]
    assert records(str(folder), 100 * DAY) == []


def test_recent_records_stay(folder: Path) -> None:
    """Trimming always keeps the attempts of the last days."""
    book = Journal(str(folder))
    for queue_id in ("old", "new", "last"):
        entry = book.begin("pipe", "cold", queue_id, time.monotonic())
        with closing(sqlite3.connect(folder / NAME)) as database, database:
            if queue_id == "old":
                database.execute("UPDATE attempt SET began = began - ?", (7 * DAY,))
            if queue_id == "new":
                database.execute("UPDATE sqlite_sequence SET seq = 999")
        if queue_id == "last":
            assert entry == 1000  # when it ends, the journal is trimmed
        book.end(entry, "pipe", "cold", Result(DELIVERED), 10, {"start": 0.2})
    book.close()
    assert {each.queue_id for each in records(str(folder), 100 * DAY)} == {"old", "new", "last"}


def test_old_records_go_and_totals_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are kept for some days and up to a limit; the totals remain, including killed attempts."""
    monkeypatch.setattr(journal, "_RECORDS", 500)
    book = Journal(str(folder))
    for number in range(1, 1_001):
        entry = book.begin("pipe", "cold", str(number), time.monotonic())
        if number % 100:
            seconds = {"start": 0.2, "read": 0.001}
            how = FAULT if number % 10 == 0 else DELIVERED
            book.end(entry, "pipe", "cold", Result(how), 10, seconds)
    before = totals(str(folder))
    assert sum(each.attempts for each in before.exits) == 1_000 - before.under_way
    with closing(sqlite3.connect(folder / NAME)) as database, database:
        database.execute("UPDATE attempt SET began = began - ? WHERE id <= 700", (9 * DAY,))
        database.execute("UPDATE sqlite_sequence SET seq = 1999")
    entry = book.begin("pipe", "cold", "last", time.monotonic())
    assert entry == 2000
    book.end(entry, "pipe", "cold", Result(DELIVERED), 10, {"start": 0.2})
    book.close()
    after = totals(str(folder))
    kept = records(str(folder), 100 * DAY)
    assert len(kept) == 1
    assert {each.outcome: each.attempts for each in after.exits} == {"delivered": 901, "fault": 90, KILLED: 10}
    assert {each.outcome: each.octets for each in after.exits} == {"delivered": 9_010, "fault": 900, KILLED: 0}
    start, read = after.durations
    assert (start.phase, start.counts[-1], read.phase, read.counts[-1]) == ("start", 991, "read", 990)
    assert start.counts[BOUNDS.index(0.1)] == 0
    assert start.counts[BOUNDS.index(0.25)] == 991
    assert start.seconds == pytest.approx(991 * 0.2)


def test_journal_of_the_previous_release(folder: Path) -> None:
    """A journal that 0.1.0 wrote stays in use: counters continue, `cut` is counted as `truncated`, reports stay within
    their interval."""
    now = time.time()
    with closing(sqlite3.connect(folder / NAME)) as database, database:
        database.executescript(journal_0_1_0.SCHEMA)
        for status, action, attempts in ((75, "cut", 3), (0, "delivered", 5)):
            values = ("pipe", "cold", status, action, attempts, attempts * 100, now - 50)
            database.execute(journal_0_1_0.ADD_TOTAL, values)
        for seconds in (0.2, 0.002):
            database.execute(journal_0_1_0.ADD_DURATION, ("cold", "store", 0.25 if seconds > 0.1 else 0.0025, seconds))
        for queue_id in ("1", "2"):
            database.execute(journal_0_1_0.BEGIN, (now - 60, 1 << 22, "pipe", "cold", queue_id))
        columns = (75, "cut", "4.3.0", None, 7, None, "short", 0.1, 0.1, None, None, 1)
        database.execute(journal_0_1_0.END, columns)
        database.execute(journal_0_1_0.TOLD, ("fault: x", now - 60, 0, 0))

    assert {each.outcome: each.attempts for each in totals(str(folder)).exits} == {
        "delivered": 5,
        "truncated": 3,
        KILLED: 1,
    }
    assert [(record.outcome, record.reason) for record in records(str(folder), 1_000)] == [
        ("truncated", "short"),
        (KILLED, None),
    ]

    book = Journal(str(folder))
    assert not book.should_report("fault: x", 3_600)
    assert book.should_report("fault: x", 30)
    for outcome in (TRUNCATED, DELIVERED):
        entry = book.begin("pipe", "cold", "new", time.monotonic())
        assert entry is not None
        assert entry > 2
        book.end(entry, "pipe", "cold", Result(outcome), 10, {"store": 0.2})
    book.close()

    after = totals(str(folder))
    assert {each.outcome: (each.attempts, each.octets) for each in after.exits} == {
        "delivered": (6, 510),
        "truncated": (4, 310),
        KILLED: (1, 0),
    }
    (duration,) = after.durations
    assert (duration.counts[-1], duration.counts[BOUNDS.index(0.0025)]) == (4, 1)
    assert duration.seconds == pytest.approx(0.602)
    assert not (folder / f"{NAME}.broken").exists()


def test_previous_release_writes_to_our_journal(folder: Path) -> None:
    """After a rollback, 0.1.0 continues a journal of this release: each of its statements works, and its counts add up
    with ours."""
    book = Journal(str(folder))
    for outcome in (TRUNCATED, DELIVERED):
        entry = book.begin("pipe", "cold", "ours", time.monotonic())
        book.end(entry, "pipe", "cold", Result(outcome), 10, {"store": 0.2})
    assert book.should_report("fault: x", 3_600)
    book.close()

    now = time.time()
    with closing(sqlite3.connect(folder / NAME)) as database, database:
        assert database.execute(journal_0_1_0.TOLD, ("fault: x", now, now - 3_600, now)).rowcount == 0
        entry = database.execute(journal_0_1_0.BEGIN, (now, 1 << 22, "pipe", "cold", "old")).lastrowid
        assert database.execute(journal_0_1_0.LOST, (1 << 22, "old")).fetchone() == (entry,)
        columns = (75, "cut", "4.3.0", None, 7, None, "short", 0.1, 0.1, None, None, entry)
        assert database.execute(journal_0_1_0.END, columns).rowcount == 1
        database.execute(journal_0_1_0.ADD_TOTAL, ("pipe", "cold", 75, "cut", 1, 7, now))
        database.execute(journal_0_1_0.ADD_DURATION, ("cold", "store", 0.25, 0.2))
        killed = database.execute(journal_0_1_0.BEGIN, (now, 1 << 22, "pipe", "cold", "dead")).lastrowid
        assert len(database.execute(journal_0_1_0.READ_TOTALS).fetchall()) == 3
        assert len(database.execute(journal_0_1_0.READ_DURATIONS).fetchall()) == 1
        assert len(database.execute(journal_0_1_0.READ_RECORDS, (0,)).fetchall()) == 4
        assert database.execute(journal_0_1_0.OLD, (now + 60, 100_000)).fetchone() == (killed,)
        rows = database.execute(journal_0_1_0.KILLED, (KILLED, killed)).fetchall()
        database.executemany(journal_0_1_0.ADD_TOTAL, rows)
        database.execute(journal_0_1_0.TRIM, (killed,))

    after = totals(str(folder))
    assert {each.outcome: (each.attempts, each.octets) for each in after.exits} == {
        "delivered": (1, 10),
        "truncated": (2, 17),
        KILLED: (1, 0),
    }
    assert [duration.counts[-1] for duration in after.durations] == [3]


def test_what_nobody_else_may_read(either: Handler) -> None:
    """The file belongs to the handler's account, and is closed to others."""
    either.deliver(MESSAGE)
    written(either)
    for path in either.state.glob(f"{NAME}*"):
        assert path.stat().st_mode & 0o077 == 0, path
        assert path.owner() == account.NAME


def test_reading_changes_nothing(handler: Handler) -> None:
    """After any account has read it, including root, the handler's account can still write it."""
    handler.deliver(MESSAGE)
    for path in handler.state.glob(f"{NAME}-*"):
        path.unlink()
    totals(str(handler.state))
    assert handler.deliver(MESSAGE).status == 0
    assert len(records(str(handler.state), 1_000)) >= 1
    assert all(path.owner() == account.NAME for path in handler.state.iterdir())
