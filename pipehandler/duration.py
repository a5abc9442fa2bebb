"""Durations as people write them: 10m, 36h, 30d."""

import re
from datetime import timedelta

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_LONGEST = timedelta(weeks=52 * 1000)


def duration(text: str) -> timedelta:
    """A whole number of seconds (s), minutes (m), hours (h), days (d) or weeks (w), such as 10m.

    Raises ValueError for anything else, for 0, and for more than a thousand years.
    """
    found = re.fullmatch(r"(\d{1,12})([smhdw])", text, re.ASCII)
    if found and (length := int(found[1]) * timedelta(**{_UNITS[found[2]]: 1})) and length <= _LONGEST:
        return length
    raise ValueError(f"{text!r} is no duration; expected a number and a unit (s, m, h, d, w), such as 10m or 30d")
