"""What is recorded of an attempt: lines in the log, and records in the journal."""

import os
import shlex
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipehandler.mail.outcome import (
    DELIVERED,
    DUPLICATE,
    FAULT,
    STORE_UNAVAILABLE,
    UNKNOWN_RECIPIENT,
    Outcome,
    Result,
)
from pipehandler.record.attempt import Attempt, write_log
from pipehandler.record.journal import NAME, Journal
from pipehandler.settings.config import Config, Limits, Log, Sentry, State

_made: list[Attempt] = []
"""Those of the test that runs; a delivery's process ends with its attempt, and leaves the journal to the kernel."""


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    """Log and journal in a folder."""
    (tmp_path / "state").mkdir()
    yield Config(log=Log(syslog=False, file=f"{tmp_path}/log"), state=State(f"{tmp_path}/state"))
    while _made:
        if book := _made.pop().journal:
            book.close()


def made(config: Config, queue_id: str = "q") -> Attempt:
    """An attempt whose process started a second ago."""
    attempt = Attempt("pipe", "cold", queue_id, time.monotonic() - 1)
    _made.append(attempt)
    attempt.config = config
    return attempt


def begun(config: Config, queue_id: str = "q") -> Attempt:
    """An attempt that has begun a second ago."""
    attempt = made(config, queue_id)
    attempt.begin()
    return attempt


def lines(config: Config) -> list[dict[str, str]]:
    """The lines of the log, each as a dict."""
    text = Path(config.log.file).read_text()
    return [dict(word.split("=", 1) for word in shlex.split(line.partition("]: ")[2])) for line in text.splitlines()]


def journal(config: Config, columns: str, table: str = "attempt") -> list[tuple[Any, ...]]:
    """Rows of the journal."""
    with closing(sqlite3.connect(Path(config.state.directory, NAME))) as database:
        return database.execute(f"SELECT {columns} FROM {table} ORDER BY 1, 2").fetchall()


def test_every_value(config: Config) -> None:
    """Each value of the result and of the attempt is in the line, and what counts in the journal."""
    attempt = begun(config)
    attempt.recipients, attempt.size = 2, 300
    attempt.finish(Result(STORE_UNAVAILABLE, "uuid", "a reason", "08006", "m@x"))
    (line,) = lines(config)
    assert 1 <= float(line.pop("seconds")) < 60
    assert line == {
        "outcome": "store_unavailable",
        "status": "75",
        "code": "4.3.0",
        "queue_id": "q",
        "recipients": "2",
        "size": "300",
        "mode": "cold",
        "message": "uuid",
        "message_id": "m@x",
        "sqlstate": "08006",
        "reason": "a reason",
    }
    assert journal(config, "ingress, way, queue_id, status, action, code, sqlstate, size, message, reason") == [
        ("pipe", "cold", "q", 75, "store_unavailable", "4.3.0", "08006", 300, "uuid", "a reason")
    ]
    assert journal(config, "ingress, way, status, action, attempts, octets", "total") == [
        ("pipe", "cold", 75, "store_unavailable", 1, 300)
    ]


def test_what_is_missing_is_left_out(config: Config) -> None:
    """No key without a value."""
    attempt = begun(config, "")
    attempt.finish(Result(DELIVERED))
    assert lines(config)[0].keys() == {"outcome", "status", "code", "mode", "seconds"}
    assert journal(config, "queue_id, sqlstate, size, message, reason") == [(None,) * 5]


def test_one_line_for_each_outcome(config: Config) -> None:
    """Failures come first. The message was read once, so its octets and seconds count once."""
    attempt = begun(config)
    attempt.recipients, attempt.size = 5, 300
    kinds = (DELIVERED, UNKNOWN_RECIPIENT, DELIVERED, DUPLICATE, UNKNOWN_RECIPIENT)
    attempt.finish(*(Result(kind, f"{number}") for number, kind in enumerate(kinds)))
    found = [(line["outcome"], line["recipients"], line["message"]) for line in lines(config)]
    assert found == [("unknown_recipient", "2", "1"), ("delivered", "2", "0"), ("duplicate", "1", "3")]
    assert journal(config, "action, status, message") == [("unknown_recipient", 67, "1")]
    assert journal(config, "action, attempts, octets", "total") == [
        ("delivered", 1, 0),
        ("duplicate", 1, 0),
        ("unknown_recipient", 1, 300),
    ]
    assert {row[0] for row in journal(config, "attempts, way", "duration")} == {1}


def test_octets_of_argv(config: Config) -> None:
    """A queue id that is not UTF-8 is escaped, as in the envelope."""
    begun(config, "q\udcff").finish(Result(DELIVERED))
    assert journal(config, "queue_id, status") == [("q\\xff", 0)]


def test_finished_without_a_beginning(config: Config) -> None:
    """An attempt that failed before it began is recorded all the same."""
    attempt = made(config)
    attempt.finish(Result(FAULT, reason="r"))
    assert journal(config, "action, reason") == [("fault", "r")]


def test_of_a_dead_process(config: Config) -> None:
    """The entry that a dead process began is ended; another one's is not."""
    dead = begun(config)
    other = made(config)
    other.begin(2**22 + 1)
    other.finish(Result(FAULT))
    assert journal(config, "id, status") == [(1, None), (2, 75)]
    third = made(config)
    third.begin(os.getpid())
    third.finish(Result(FAULT))
    assert journal(config, "id, status") == [(1, 75), (2, 75)]
    assert dead.journal is not None


def test_lines_that_were_dropped(config: Config) -> None:
    """A log that takes no line is counted."""
    unwritable = config._replace(log=Log(syslog=False, file="/proc/self/mem/x"))
    begun(unwritable).finish(Result(DELIVERED))
    write_log(unwritable, "serve", event="started")
    assert journal(config, "destination, lines", "dropped") == [("file", 2)]
    write_log(config, "serve", failed=True, event="x", pid=None)
    assert lines(config) == [{"outcome": "serve", "event": "x"}]
    assert journal(config, "destination, lines", "dropped") == [("file", 2)]


@pytest.mark.parametrize(
    ("outcome", "failed"), [(DELIVERED, False), (STORE_UNAVAILABLE, True), (UNKNOWN_RECIPIENT, True)]
)
def test_priority(config: Config, monkeypatch: pytest.MonkeyPatch, outcome: Outcome, failed: bool) -> None:
    """Whatever is not status 0 is an error."""
    seen: list[bool] = []

    def write(_: str, __: Log, failed: bool) -> tuple[str, ...]:
        seen.append(failed)
        return ()

    monkeypatch.setattr("pipehandler.record.log.write", write)
    begun(config).finish(Result(outcome))
    assert seen == [failed]


def test_report_to_sentry(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only with a DSN, with the facts of this attempt, and the time that is left of it."""
    from pipehandler.record import sentry

    calls: list[tuple[Any, ...]] = []
    monkeypatch.setattr(sentry, "report", lambda *values, **facts: calls.append((*values, facts)))
    begun(config).finish(Result(FAULT))
    assert calls == []
    settings = config._replace(sentry=Sentry(dsn="https://k@x/1"), limits=Limits(deadline=100))
    attempt = begun(settings)
    attempt.size = 300
    attempt.finish(Result(FAULT))
    ((reported, written, result, left, facts),) = calls
    assert (reported, written, result) == (settings, attempt.journal, Result(FAULT))
    assert isinstance(written, Journal)
    assert 90 < left <= 99
    assert facts == {"mode": "cold", "size": 300}
