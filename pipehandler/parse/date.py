"""A lenient parser for dates (RFC 5322 3.3 and 4.3): every form that is unambiguous.

Also accepted: ISO 8601 and RFC 3339; the formats of JavaScript, asctime and Outlook; AM and PM; fractions of a second;
zones such as GMT+0900, +01:00 and CET; months in other languages. Rejected: dates that could be either of two days,
such as 03/04/2026, because a wrong time is worse than none.
"""

import re
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

_YEARS = range(1900, 2100)  # plausible ones
_SIZE = 200  # characters read of the field
_COMMENT = re.compile(r"\(([^()]*)\)")
# RFC 5322 3.3 and, for the year and the zone, 4.3.
_EXACT = re.compile(
    r"\s*(?:([A-Z]{3})\s*,\s*)?(\d{1,2})\s+([A-Z]{3})\s+(\d{2,4})\s+(\d{2})\s*:\s*(\d{2})(?:\s*:\s*(\d{2}))?"
    r"\s+(?:([+-])(\d{2})([0-5]\d)|(UT|GMT|[ECMP][SD]T|[A-IK-Z]))\s*"
)
_WEEKDAYS = ("MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN")
# Compiled on first use (re caches it): most dates are exact, and compiling costs more than reading them.
_TIME = (
    r"(?<![\d:.])(\d{1,2})(?::(\d{1,2})(?::(\d{1,2})(?:[.,]\d{1,9}|:\d{3})?)?|\.(\d{2})\.(\d{2}))(?![\d:])"
    r"(?:\s*([AP])\.?M\b\.?)?"
)
# ISO 8601 without punctuation, and the time of X.690 (20261126090000Z)
_BASIC_DAY = r"\b((?:19|20)\d{2})(0[1-9]|1[0-2])([0-3]\d)(?=\s|T?\d{4}(?:\d{2})?(?!\d))T?"
_BASIC_TIME = r"(?<=\d)T(\d{2})(\d{2})(\d{2})?(?!\d)"
# Behind "GMT" or a name such as BST. Behind another name than that of UTC four digits are required: POSIX writes EST+5
# for the zone -0500.
_ZONE = r"\s*(?:\b(?:GMT|UTC?|Z)\s*|\b[A-Z]{3,5}\s*(?=[+-]\d{2}:?\d{2}))?(([+-])(\d{1,2})(?:[:.]?(\d{2})(?::00)?)?)(?![\d:]|\.\d)"
_ZONE_APART = r"([+-])\s((?:0\d|1[0-4]):?[0-5]\d)(?!\S)"  # a blank behind the sign
_ZONE_WITHOUT_SIGN = r"\s+(0\d|1[0-4])([034][05])(?!\S)"  # the "+" became a blank, as in a form
_ZONE_AT_END = r"(?:\s|\b(?:GMT|UTC?))(([+-])(\d{2}):?(\d{2}))\s*\Z"  # behind the year, as in Git's dates
_ZONE_NAME = r"(?<![A-Z])[A-Z]{1,4}(?![A-Z])"
_DAY_FIRST = r"\b(\d{1,2})(?:ST|ND|RD|TH)?[\s.,/-]*([^\W\d_]{3,10})\.?[\s.,/-]*'?(\d{2,5})\b"
_MONTH_FIRST = r"\b([^\W\d_]{3,10})\.?\s+(\d{1,2})(?:ST|ND|RD|TH)?\b,?(?:\s+|.*?\s(?=\d{4}\b))'?(\d{2,5})\b"
_MONTH_AFTER_YEAR = r"\b(\d{4})[\s.,/-]+([^\W\d_]{3,10})\.?[\s.,/-]+(\d{1,2})\b"
_YEAR_FIRST = r"\b(\d{4})([-/.])(\d{1,2})\2(\d{1,2})(?!\d)"
_NUMBERS = r"\b(\d{1,2})([-/.])(\d{1,2})\2(\d{4})\b"

_MONTHS = (
    "JANUARY", "FEBRUARY", "MARCH", "APRIL", "MAY", "JUNE", "JULY", "AUGUST", "SEPTEMBER", "OCTOBER", "NOVEMBER",
    "DECEMBER",
)  # fmt: skip
_SHORT_MONTHS = {name[:3]: number for number, name in enumerate(_MONTHS, 1)}
# The beginnings of their names in German, French, Spanish, Portuguese, Italian, Dutch, Scandinavian and Russian.
_OTHER_MONTHS = (
    "JÄN GEN ENE ЯНВ", "FEV FÉV ФЕВ", "MAR MÄR MRZ MRT МАР", "ABR AVR АПР", "MAI MAJ MEI MAG МАЙ МАЯ", "JUIN GIU ИЮН",  # noqa: RUF001 # Russian
    "JUIL LUG ИЮЛ", "AGO AOU AOÛ АВГ", "SET СЕН", "OKT OUT OTT ОКТ", "НОЯ", "DEZ DÉC DIC DES ДЕК",  # noqa: RUF001 # Russian
)  # fmt: skip
# RFC 5322 4.3 names the zones of the United States. The others are unambiguous. Any other word is ignored.
_ZONES = {
    "Z": 0, "UT": 0, "UTC": 0, "GMT": 0, "EST": -300, "EDT": -240, "CST": -360, "CDT": -300, "MST": -420, "MDT": -360,
    "PST": -480, "PDT": -420, "AST": -240, "ADT": -180, "AKST": -540, "AKDT": -480, "HST": -600, "WET": 0, "WEST": 60,
    "CET": 60, "CEST": 120, "MET": 60, "MEST": 120, "MEZ": 60, "MESZ": 120, "EET": 120, "EEST": 180, "MSK": 180,
    "JST": 540, "KST": 540, "AWST": 480, "AEST": 600, "AEDT": 660, "NZST": 720, "NZDT": 780, "SAST": 120,
}  # fmt: skip


class Date(NamedTuple):
    """An instant in UTC and the sender's zone, in minutes east of UTC (-5999 to 5999), None if unknown.

    `exact`: the field follows RFC 5322, and the day of the week is right.
    """

    instant: datetime
    offset: int | None
    exact: bool = False


def read(body: str) -> Date | None:
    """Return the date in `body`; None if there is none, or it is ambiguous. Never raises."""
    text, comments = body[:_SIZE].upper(), ""
    if "(" in text:
        comments = " ".join(_COMMENT.findall(text))
        text = _COMMENT.sub(" ", _COMMENT.sub(" ", text))
    found = _EXACT.fullmatch(text)
    if found is not None and (month := _SHORT_MONTHS.get(found[3])):
        weekday, day, _, year, hour, minute, second, sign, hours, minutes, zone = found.groups()
        if sign:
            east = int(hours) * 60 + int(minutes)
            offset = (-east or None) if sign == "-" else east  # "-0000": the zone is unknown (RFC 5322 3.3)
        else:
            offset = _ZONES.get(zone)
        date = _date((_year(year), month, int(day)), (int(hour), int(minute), int(second or 0)), offset)
        if date is None:
            return None
        local = date.instant + timedelta(minutes=offset or 0, seconds=-1 if second == "60" else 0)
        return date._replace(exact=not weekday or _WEEKDAYS[local.weekday()] == weekday)
    text = text.replace("\N{MINUS SIGN}", "-").replace("\N{EN DASH}", "-")
    text = re.sub(_BASIC_TIME, _with_colons, re.sub(_BASIC_DAY, r"\1-\2-\3T", text))
    found = re.search(_TIME, text)
    if found is None:
        return None
    # The zone follows the time; the date precedes it, or surrounds it (asctime).
    offset, rest = _offset(text[found.end() :])
    if offset is None and comments and not re.search(r"[+-]\d", rest):
        offset, _ = _offset(comments)
    clock, moment = _clock(found), _day(f"{text[: found.start()]} {rest}")
    return _date(moment, clock, offset) if clock and moment else None


def _date(day: tuple[int, int, int], clock: tuple[int, int, int], offset: int | None) -> Date | None:
    """Return the date of these numbers; None if there is no such day or time. The second may be 60 (RFC 5322 3.3)."""
    hour, minute, second = clock
    if day[0] not in _YEARS or second > 60:
        return None
    ends = clock == (24, 0, 0)  # ISO 8601: the end of the day
    try:
        local = datetime(*day, 0 if ends else hour, minute, tzinfo=UTC)
    except ValueError:
        return None
    return Date(local + timedelta(days=ends, minutes=-(offset or 0), seconds=second), offset)


def _clock(found: re.Match[str]) -> tuple[int, int, int] | None:
    """Return hour, minute and second; None if AM or PM contradicts the hour."""
    hour, minute = int(found[1]), int(found[2] or found[4])
    second = int(found[3] or found[5] or 0)
    half = found[6]
    if half == "P" and hour < 12:
        hour += 12
    elif half == "A" and hour >= 12:
        if hour > 12:
            return None  # 18:30 AM contradicts itself
        hour = 0
    return hour, minute, second


def _offset(text: str) -> tuple[int | None, str]:
    """Return the zone in the text after the time, None if unknown, and that text without a numeric zone."""
    text = re.sub(_ZONE_APART, r"\1\2", text)
    if found := re.match(_ZONE_WITHOUT_SIGN, text):
        return int(found[1]) * 60 + int(found[2]), text[found.end() :]
    found = re.match(_ZONE, text) or re.search(_ZONE_AT_END, text)
    if found is not None:
        rest = text[: found.start(1)] + text[found.end() :]
        digits = found[3] + (found[4] or "")
        hours, minutes = (int(digits[:-2]), int(digits[-2:])) if len(digits) > 2 else (int(digits), 0)
        if minutes > 59 or (found[2] == "-" and not hours and not minutes):
            return None, rest  # "-0000": the zone is unknown (RFC 5322 3.3)
        return (-1 if found[2] == "-" else 1) * (hours * 60 + minutes), rest
    for word in re.finditer(_ZONE_NAME, text):
        if word[0] in _ZONES:
            return _ZONES[word[0]] + 60 * bool(re.match(r"\s+DST\b", text[word.end() :])), text  # MET DST
    return None, text


def _day(text: str) -> tuple[int, int, int] | None:
    """Return year, month and day; None if there is no date, or it could be either of two days."""
    found = re.search(_YEAR_FIRST, text)
    if found is not None:
        return _year(found[1]), int(found[3]), int(found[4])
    found = re.search(_MONTH_AFTER_YEAR, text)
    if found is not None and (month := _month(found[2])):
        return _year(found[1]), month, int(found[3])
    for found in re.finditer(_DAY_FIRST, text):
        if month := _month(found[2]):
            return _year(found[3]), month, int(found[1])
    for found in re.finditer(_MONTH_FIRST, text):
        if month := _month(found[1]):
            return _year(found[3]), month, int(found[2])
    found = re.search(_NUMBERS, text)
    if found is None:
        return None
    first, second = int(found[1]), int(found[3])
    if first > 12 or first == second:
        return _year(found[4]), second, first
    return (_year(found[4]), first, second) if second > 12 else None


def _month(word: str) -> int | None:
    for number, name in enumerate(_MONTHS, 1):
        if name.startswith(word[:4]) or word.startswith(tuple(_OTHER_MONTHS[number - 1].split())):
            return number
    return None


def _with_colons(found: re.Match[str]) -> str:
    return "T" + ":".join(filter(None, found.groups()))


def _year(digits: str) -> int:
    """Return the full year (RFC 5322 4.3): two digits below 50 add 2000, other two digits and three digits add 1900.

    So do three digits behind a zero, as in 0126, or behind 19, as in 19126. Fewer are a year that no date has, such as
    0001 of .NET's empty one.
    """
    year = int(digits.removeprefix("19") if len(digits) == 5 else digits)
    if len(digits) == 2:
        return year + (2000 if year < 50 else 1900)
    return year if year >= 1000 or (year < 100 and len(digits) == 4) else 1900 + year
