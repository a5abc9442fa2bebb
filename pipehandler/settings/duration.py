"""Durations as people write them: 10m, 36h, 1d12h."""

import re
from datetime import timedelta

FOREVER = "forever"

UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
"""Seconds in each unit; the same as in main.cf (postconf(5))."""

_LONGEST = 1_000 * 365 * 86_400

# Each unit at most once, the greatest first.
_DURATION = re.compile("".join(rf"(?:(\d{{1,12}}){unit})?" for unit in reversed(UNITS)), re.ASCII)


def duration(text: str) -> timedelta:
    """Read whole numbers of weeks (w), days (d), hours (h), minutes (m) and seconds (s) in this order, such as 10m or 1d12h.

    Raises ValueError for anything else, for 0, and for more than a thousand years.
    """
    match = _DURATION.fullmatch(text)
    numbers = zip(match.groups(), reversed(UNITS.values()), strict=True) if match else ()
    seconds = sum(int(number) * unit for number, unit in numbers if number)
    if not 0 < seconds <= _LONGEST:
        raise ValueError(
            f"invalid duration {text!r}: expected a number and a unit (s, m, h, d, w), such as 10m, 30d or 1d12h"
        )
    return timedelta(seconds=seconds)


def period(text: str) -> timedelta | None:
    """Read a duration, or "forever", which is None. Raises ValueError."""
    return None if text == FOREVER else duration(text)
