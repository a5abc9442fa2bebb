"""Nothing after the commit blocks a delivery or changes its status: a log, a reader of the output, or a database that
hangs."""

import os
import subprocess
from pathlib import Path

import pytest
from harness.database import Database
from harness.devlog import dev_log
from harness.handler import ENVIRONMENT, Ended, Handler
from harness.service import ResidentHandler, Service, wait_until

from pipehandler.monitor.journal_totals import totals

MESSAGE = b"From: a@example.org\nMessage-ID: <1@example.org>\n\nbody\n"
LIMIT = 10
"""Seconds: below the deadline of 60 s, after which an alarm would kill a delivery that hangs."""


def dropped(handler: Handler) -> dict[str, int]:
    """The number of dropped lines, by destination."""
    return {name: count for name, (count, _) in totals(str(handler.state)).dropped.items()}


def test_syslog_takes_a_line(handler: Handler) -> None:
    """A line arrives as syslog(3) sends it: priority, time, name and process."""
    handler.configure(handler.conninfo, log={"syslog": True})
    with dev_log() as log:
        done = subprocess.run(log.command(handler.command()), input=MESSAGE, capture_output=True, env=ENVIRONMENT)
        (line,) = log.lines()
    assert done.returncode == 0, done
    assert line.startswith("<22>")
    assert ": outcome=delivered status=0 " in line
    assert f"<22>{line[4:19]} pipehandler[" in line
    assert dropped(handler) == {}


def test_syslog_stands_still(handler: Handler, database: Database) -> None:
    """With a syslog daemon that reads nothing, a message is stored and reported as stored; the dropped lines are
    counted."""
    handler.configure(handler.conninfo, log={"syslog": True, "file": ""})
    with dev_log() as log:
        log.fill()
        for number in range(3):
            command = log.command(handler.command(f"{number}@example.com"))
            done = subprocess.run(command, input=MESSAGE, capture_output=True, env=ENVIRONMENT, timeout=LIMIT)
            assert (done.returncode, done.stdout[:12]) == (0, b"2.0.0 stored"), done
    assert database.value("SELECT count(*) FROM pipehandler.delivery") == 3
    assert dropped(handler) == {"syslog": 3}


@pytest.mark.parametrize("kind", ["fifo without a reader", "fifo that is full", "full disk", "folder"])
def test_file_that_takes_no_line(either: Handler, database: Database, kind: str) -> None:
    """A log file that cannot be written loses a line, but no message; both modes count it."""
    path = either.folder / "odd"
    reader = -1
    if kind == "full disk":
        path = Path("/dev/full")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path, 0o666)
        path.chmod(0o666)
    if kind == "fifo that is full":
        reader = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        try:
            while True:
                os.write(reader, bytes(4096))
        except BlockingIOError:
            pass
    either.configure(either.conninfo, log={"file": str(path)})
    ended = either.deliver(MESSAGE)
    if isinstance(either, ResidentHandler):
        either.stop()
    assert (ended.status, ended.output[:12]) == (0, "2.0.0 stored")
    assert database.value("SELECT count(*) FROM pipehandler.delivery") == 1
    assert dropped(either)["file"] >= 1
    if reader >= 0:
        os.close(reader)


def test_log_above_a_gibibyte(handler: Handler) -> None:
    """Our limits do not apply to the log's size: the next line is complete."""
    with handler.log.open("wb") as file:
        file.truncate((1 << 30) - 40)
    handler.log.chmod(0o666)
    assert handler.deliver(MESSAGE).status == 0
    with handler.log.open("rb") as file:
        file.seek((1 << 30) - 40)
        rest = file.read()
    assert rest.partition(b"]: ")[2].startswith(b"outcome=delivered ")
    assert rest.endswith(b"\n")
    assert dropped(handler) == {}


def test_answer_that_is_never_read(handler: Handler, database: Database) -> None:
    """A full, blocking pipe accepts no line; the process still ends with its status."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        while True:
            os.write(writing, bytes(4096))
    except BlockingIOError:
        os.set_blocking(writing, True)
    with handler.start(handler.command(), output=writing) as running:
        running.communicate(MESSAGE, timeout=LIMIT)
    os.close(writing)
    os.close(reading)
    assert running.returncode == 0
    assert database.value("SELECT count(*) FROM pipehandler.delivery") == 1


def test_journal_that_is_locked(handler: Handler, database: Database) -> None:
    """A process that hangs with the journal locked costs a record, but no message."""
    assert handler.deliver(MESSAGE).status == 0
    program = (
        "import sqlite3, sys, time; base = sqlite3.connect(sys.argv[1]); base.execute('BEGIN IMMEDIATE');"
        " print('ready', flush=True); time.sleep(100)"
    )
    command = ["python3", "-c", program, str(handler.state / "journal.sqlite")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout
        assert other.stdout.readline() == b"ready\n"
        running = handler.start(handler.command("other@example.com"))
        output, _ = running.communicate(MESSAGE, timeout=LIMIT)
        other.kill()
    assert Ended(running.returncode, output.decode()).status == 0
    assert database.value("SELECT count(*) FROM pipehandler.delivery") == 2


def test_state_directory_is_emptied(handler: Handler) -> None:
    """A worker whose journal lost its name begins a new one with the next message."""
    with Service(handler) as service:
        assert handler.deliver(MESSAGE).status == 0
        wait_until(lambda: service.status()["delivered"] == 1, "the end of the first delivery")
        for file in handler.state.iterdir():
            file.unlink()
        assert handler.deliver(MESSAGE).status == 0
        wait_until(lambda: service.status()["delivered"] == 2, "the end of the second delivery")
    assert sum(exits.attempts for exits in totals(str(handler.state)).exits) == 1


def test_leftovers(handler: Handler) -> None:
    """Files that dead processes left in the state directory are removed by the next delivery; files that may still be
    needed are kept."""
    uuid = "00000000-0000-0000-0000-000000000000"
    dead = subprocess.Popen(["true"])
    dead.wait()
    old, new = handler.state / f"parsing-{uuid}", handler.state / f"parsing-{uuid[:-1]}1"
    for file in (
        old,
        new,
        handler.state / f"journal.sqlite.{dead.pid}",
        handler.state / f"journal.sqlite.{dead.pid}-journal",
    ):
        file.write_text("x")
    (handler.state / f"journal.sqlite.{os.getpid()}").write_text("x")
    os.utime(old, (1, 1))
    assert handler.deliver(MESSAGE).status == 0
    names = {file.name for file in handler.state.iterdir() if not file.name.startswith("journal.sqlite-")}
    assert names == {new.name, f"journal.sqlite.{os.getpid()}", "journal.sqlite"}
