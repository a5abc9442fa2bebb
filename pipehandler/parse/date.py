"""Dates (RFC 5322 3.3 and 4.3) as they really come: every form that names its instant without doubt.

Read as well: ISO 8601 and RFC 3339, the forms of JavaScript, asctime and Outlook, AM and PM, fractions of a second, zones
such as GMT+0900, +01:00 and CET. Not read: what could mean two days, such as 03/04/2026. A wrong time is worse than none.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

_YEARS = range(1900, 2100)  # what a date may plausibly be
_SIZE = 200  # characters of the field that are looked at
_COMMENT = re.compile(r"\([^()]*\)")
_TIME = re.compile(
    r"(?<![\d:.])(\d{1,2})(?::(\d{2})(?::(\d{2})(?:[.,]\d{1,9})?)?|\.(\d{2})\.(\d{2}))(?![\d:])"
    r"(?:\s*([AP])\.?M\b\.?)?"
)
_BASIC = re.compile(r"\b(\d{4})(\d{2})(\d{2})T(\d{2})(\d{2})(\d{2})?")  # ISO 8601 without punctuation
_ZONE = re.compile(r"\s*(?:\b(?:GMT|UTC?|Z)\s*)?([+-])(\d{1,2})(?::?(\d{2}))?(?![\d:]|\.\d)")
_ZONE_NAME = re.compile(r"(?<![A-Z])[A-Z]{1,4}(?![A-Z])")
_DAY_FIRST = re.compile(r"\b(\d{1,2})(?:ST|ND|RD|TH)?[\s.,-]+([A-Z]{3,9})\.?[\s.,-]+'?(\d{2,4})\b")
_MONTH_FIRST = re.compile(r"\b([A-Z]{3,9})\.?\s+(\d{1,2})(?:ST|ND|RD|TH)?\b,?(?:\s+|.*?\s(?=\d{4}\b))'?(\d{2,4})\b")
_YEAR_FIRST = re.compile(r"\b(\d{4})([-/.])(\d{1,2})\2(\d{1,2})(?!\d)")
_NUMBERS = re.compile(r"\b(\d{1,2})([-/.])(\d{1,2})\2(\d{4})\b")

_MONTHS = (
    "JANUARY", "FEBRUARY", "MARCH", "APRIL", "MAY", "JUNE", "JULY", "AUGUST", "SEPTEMBER", "OCTOBER", "NOVEMBER",
    "DECEMBER",
)  # fmt: skip
# RFC 5322 4.3 names the zones of the United States. The others have one meaning only. Any other word says nothing.
_ZONES = {
    "Z": 0, "UT": 0, "UTC": 0, "GMT": 0, "EST": -300, "EDT": -240, "CST": -360, "CDT": -300, "MST": -420, "MDT": -360,
    "PST": -480, "PDT": -420, "AST": -240, "ADT": -180, "AKST": -540, "AKDT": -480, "HST": -600, "WET": 0, "WEST": 60,
    "CET": 60, "CEST": 120, "MET": 60, "MEST": 120, "MEZ": 60, "MESZ": 120, "EET": 120, "EEST": 180, "MSK": 180,
    "JST": 540, "KST": 540, "AWST": 480, "AEST": 600, "AEDT": 660, "NZST": 720, "NZDT": 780, "SAST": 120,
}  # fmt: skip


class Date(NamedTuple):
    """An instant in UTC, and the zone that the sender named in minutes east of UTC (-5999 to 5999); None if none."""

    instant: datetime
    offset: int | None


def read(body: str) -> Date | None:
    """The date that `body` names; None where it names none, or none without doubt. Never raises."""
    text = _COMMENT.sub(" ", _COMMENT.sub(" ", body[:_SIZE])).upper()
    text = _BASIC.sub(r"\1-\2-\3T\4:\5:\g<6>", text)
    found = _TIME.search(text)
    if found is None:
        return None
    # The zone stands behind the time; the date stands before it, or around it (asctime).
    offset, end = _offset(text, found.end())
    clock, day = _clock(found), _day(f"{text[: found.start()]} {text[end:]}")
    if clock is None or day is None or day[0] not in _YEARS:
        return None
    hour, minute, second = clock
    try:
        local = datetime(*day, hour, minute, tzinfo=UTC)
    except ValueError:
        return None
    return Date(local + timedelta(minutes=-(offset or 0), seconds=second), offset)


def _clock(found: re.Match[str]) -> tuple[int, int, int] | None:
    """Hour, minute and second; the second may be 60 (RFC 5322 3.3)."""
    hour, minute = int(found[1]), int(found[2] or found[4])
    second = int(found[3] or found[5] or 0)
    half = found[6]
    if half == "P" and hour < 12:
        hour += 12
    elif half == "A" and hour >= 12:
        hour = 0 if hour == 12 else 24  # 18:30 AM says two things
    return (hour, minute, second) if hour < 24 and minute < 60 and second <= 60 else None


def _offset(text: str, position: int) -> tuple[int | None, int]:
    """The zone behind the time, and where what names it ends."""
    found = _ZONE.match(text, position)
    if found is not None:
        digits = found[2] + (found[3] or "")
        hours, minutes = (int(digits[:-2]), int(digits[-2:])) if len(digits) > 2 else (int(digits), 0)
        if minutes > 59 or (found[1] == "-" and not hours and not minutes):
            return None, found.end()  # "-0000": the zone is unknown (RFC 5322 3.3)
        return (-1 if found[1] == "-" else 1) * (hours * 60 + minutes), found.end()
    for word in _ZONE_NAME.finditer(text, position):
        if word[0] in _ZONES:
            return _ZONES[word[0]], position
    return None, position


def _day(text: str) -> tuple[int, int, int] | None:
    """Year, month and day."""
    found = _YEAR_FIRST.search(text)
    if found is not None:
        return _year(found[1]), int(found[3]), int(found[4])
    for found in _DAY_FIRST.finditer(text):
        if month := _month(found[2]):
            return _year(found[3]), month, int(found[1])
    for found in _MONTH_FIRST.finditer(text):
        if month := _month(found[1]):
            return _year(found[3]), month, int(found[2])
    found = _NUMBERS.search(text)
    if found is None:
        return None
    first, second = int(found[1]), int(found[3])
    if first > 12 or first == second:
        return _year(found[4]), second, first
    return (_year(found[4]), first, second) if second > 12 else None


def _month(word: str) -> int | None:
    return next(
        (number for number, name in enumerate(_MONTHS, 1) if name.startswith(word[:4]) and len(word) >= 3), None
    )


def _year(digits: str) -> int:
    """RFC 5322 4.3: two digits from 50 on and three digits count from 1900, two digits below 50 from 2000."""
    year = int(digits)
    if year < 50 and len(digits) == 2:
        return 2000 + year
    return year if year >= 1000 else 1900 + year
