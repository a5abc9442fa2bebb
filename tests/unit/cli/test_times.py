"""Times as people write them."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from pipehandler.cli.times import moment

NOW = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test zone with summer time."""

    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("now", "2026-03-01T12:30:00+00:00"),
        ("2h", "2026-03-01T10:30:00+00:00"),
        ("1d12h", "2026-02-28T00:30:00+00:00"),
        ("today", "2026-03-01T00:00:00+01:00"),
        ("yesterday", "2026-02-28T00:00:00+01:00"),
        ("2026-07-01", "2026-07-01T00:00:00+02:00"),
        ("2026-01-01 07:30", "2026-01-01T07:30:00+01:00"),
        ("2026-01-01T07:30:15", "2026-01-01T07:30:15+01:00"),
        ("2026-01-01T07:30:15Z", "2026-01-01T07:30:15+00:00"),
        ("2026-01-01 07:30+09:00", "2026-01-01T07:30:00+09:00"),
    ],
)
def test_moment(text: str, expected: str) -> None:
    """A date or a time is local unless it has a zone; a duration counts back from now; days begin at midnight."""
    assert moment(text, NOW) == datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    "text", ["", "x", "2", "-2h", "2 h", "0h", "tomorrow", "2026-13-01", "0001-01-01", "999999999999w"]
)
def test_no_moment(text: str) -> None:
    """Everything else is refused, with its value and what is expected."""
    with pytest.raises(ValueError, match=r"^invalid time '.*': expected one such as ") as refused:
        moment(text, NOW)
    assert repr(text) in str(refused.value)


def test_without_now() -> None:
    """Without a clock from the test, the host's clock is used."""
    assert abs(datetime.now(UTC) - moment("1h") - timedelta(hours=1)) < timedelta(minutes=1)
