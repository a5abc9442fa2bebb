"""Durations as people write them: 10m, 36h, 30d."""

import re
from datetime import timedelta

FOREVER = "forever"

UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
"""Seconds in each unit; the same as in main.cf (postconf(5))."""

_LONGEST = 1_000 * 365 * 86_400


def duration(text: str) -> timedelta:
    """Read a whole number of seconds (s), minutes (m), hours (h), days (d) or weeks (w), such as 10m.

    Raises ValueError for anything else, for 0, and for more than a thousand years.
    """
    match = re.fullmatch(r"(\d{1,12})([smhdw])", text, re.ASCII)
    seconds = int(match[1]) * UNITS[match[2]] if match else 0
    if not 0 < seconds <= _LONGEST:
        raise ValueError(f"invalid duration {text!r}: expected a number and a unit (s, m, h, d, w), such as 10m or 30d")
    return timedelta(seconds=seconds)


def period(text: str) -> timedelta | None:
    """Read a duration, or "forever", which is None. Raises ValueError."""
    return None if text == FOREVER else duration(text)
