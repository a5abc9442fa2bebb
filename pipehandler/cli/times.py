"""Times as people write them, for the options that take one: 2026-03-01, 2h (ago), yesterday."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import click

from pipehandler.settings.duration import duration

_DAYS = {"today": 0, "yesterday": 1}

_EXPECTED = "such as 2026-03-01, '2026-03-01 07:30', 2h (two hours ago), 1d12h, today or yesterday"


def moment(text: str, now: datetime | None = None) -> datetime:
    """Read a time: in ISO 8601, local unless it has a zone; a duration, which is so long ago; now; or midnight of a day,
    today or yesterday. Raises ValueError for anything else. now: for tests."""
    now = now or datetime.now().astimezone()
    try:
        if text == "now":
            return now
        if text in _DAYS:
            day = now.date() - timedelta(days=_DAYS[text])
            return datetime(day.year, day.month, day.day).astimezone()  # midnight here
        if text[:1].isdigit() and text[-1:].isalpha() and text[-1:] != "Z":
            return now - duration(text)
        time = datetime.fromisoformat(text)
        return time if time.tzinfo else time.astimezone()
    except (ValueError, OverflowError):
        raise ValueError(f"invalid time {text!r}: expected one {_EXPECTED}") from None


def _time(_context: click.Context, _parameter: click.Parameter, value: str | None) -> datetime | None:
    try:
        return None if value is None else moment(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def time_option(*names: str, help: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:  # noqa: A002 # click's word
    """An option whose value is a time."""
    return click.option(*names, callback=_time, metavar="TIME", help=help)
