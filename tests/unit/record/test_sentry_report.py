"""Which results are reported to Sentry, and how much time that may take."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipehandler.mail.outcome import DEADLINE, FAULT, QUARANTINED, Outcome, Result
from pipehandler.record import sentry
from pipehandler.record.journal import Journal
from pipehandler.settings.config import Config, Sentry

DSN = "http://k@127.0.0.1:1/1"


@pytest.mark.parametrize(
    ("settings", "outcome", "left", "times"),
    [
        (Sentry(dsn=DSN), FAULT, 60.0, [5.0]),
        (Sentry(dsn=DSN), FAULT, 4.0, [4.0]),
        (Sentry(dsn=DSN), FAULT, 0.5, [0.5]),
        (Sentry(dsn=DSN), FAULT, 0.0, []),
        (Sentry(dsn=DSN), FAULT, -1.0, []),
        (Sentry(), FAULT, 60.0, []),
        (Sentry(dsn=DSN), DEADLINE, 60.0, []),
        (Sentry(dsn=DSN, quarantined=True), DEADLINE, 60.0, []),
        (Sentry(dsn=DSN, quarantined=False), QUARANTINED, 60.0, []),
        (Sentry(dsn=DSN, quarantined=True), QUARANTINED, 60.0, [5.0]),
    ],
)
def test_reported(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: Sentry,
    outcome: Outcome,
    left: float,
    times: list[float],
) -> None:
    """A fault, and a quarantined message if that is configured, within the time that is left; once in a while."""
    given: list[float] = []
    sent: list[tuple[object, ...]] = []

    def detach(work: Callable[[], None], seconds: float) -> None:
        given.append(seconds)
        work()

    monkeypatch.setattr(sentry, "detach", detach)
    monkeypatch.setattr(sentry, "_send", lambda _, *values: sent.append(values))
    journal = Journal(str(tmp_path))
    for _ in range(2):
        sentry.report(Config(sentry=settings), journal, Result(outcome, reason="a reason"), left, size=7)
    assert given == times
    facts = {"outcome": outcome.name, "status": outcome.status, "sqlstate": None, "size": 7}
    assert sent == [(f"{outcome.name}: a reason", None, facts)] * len(times)
    # What could not be reported does not count as reported.
    assert journal.should_report(f"{outcome.name}: a reason", settings.min_interval) is not bool(times)
    journal.close()


def test_facts_of_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kind and place are the title, and the SQLSTATE is a fact; nothing that cannot start a process changes anything."""
    sent: list[tuple[object, ...]] = []
    monkeypatch.setattr(sentry, "_send", lambda _, *values: sent.append(values))

    def refusing(work: Callable[[], None], _: float) -> None:
        work()
        raise BlockingIOError

    monkeypatch.setattr(sentry, "detach", refusing)
    journal, fault = Journal(str(tmp_path)), ValueError("secret")
    sentry.report(Config(sentry=Sentry(dsn=DSN)), journal, Result(FAULT, sqlstate="XX000", fault=fault), 9.0)
    journal.close()
    assert sent == [("fault: ValueError", fault, {"outcome": "fault", "status": 75, "sqlstate": "XX000"})]
