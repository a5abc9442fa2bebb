"""Rows of the journal, each value checked: SQLite lets a column hold anything, and the handler's account can write anything."""

import math
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from .journal_copy import JournalError

Row = dict[str, Any]
"""The values of one row, by column."""

_LARGEST_COUNT = 1 << 62
_LARGEST_TIME = 253_000_000_000.0  # in the year 9987: a date in every time zone
_LONGEST_TEXT = 1_000  # characters that are read

_MOST = {"attempt": 200_000, "total": 2_000, "duration": 2_000, "dropped": 100}
"""Rows; the journal itself keeps half of these at most."""


class Kind(NamedTuple):
    """What a column holds. name: for the error; accepts: whether a value is of this kind."""

    name: str
    accepts: Callable[[Any], bool]


def _is_number(value: Any, largest: float = math.inf) -> bool:
    return isinstance(value, (int, float)) and 0 <= value <= largest


COUNT = Kind("a count", lambda value: isinstance(value, int) and 0 <= value <= _LARGEST_COUNT)
STATUS = Kind("an exit status", lambda value: isinstance(value, int) and -1 <= value <= 255)
NUMBER = Kind("a number that is not negative", _is_number)
TIME = Kind("a time", lambda value: _is_number(value, _LARGEST_TIME))
SECONDS = Kind("a number of seconds", lambda value: _is_number(value, _LARGEST_TIME))
WORD = Kind(
    "a word", lambda value: isinstance(value, str) and re.fullmatch(r"[\w.-]{1,60}", value, re.ASCII) is not None
)
TEXT = Kind("a text", lambda value: isinstance(value, str))


def optional(kind: Kind) -> Kind:
    """The kind that also accepts NULL."""
    return Kind(f"{kind.name} or NULL", lambda value: value is None or kind.accepts(value))


def rows(database: sqlite3.Connection, table: str, columns: Mapping[str, Kind]) -> Iterator[Row]:
    """Yield the rows of a table, in the order of its key. Raises JournalError for a value of another kind, or too many rows."""
    values = ", ".join(
        f"CASE typeof({name}) WHEN 'text' THEN substr({name}, 1, {_LONGEST_TEXT}) WHEN 'blob' THEN x'' ELSE {name} END"
        for name in columns
    )
    most = _MOST[table]
    for number, row in enumerate(database.execute(f"SELECT {values} FROM {table} LIMIT {most + 1}")):  # noqa: S608 # our names
        if number == most:
            raise JournalError(f"{table} has more than {most} rows")
        for value, (name, kind) in zip(row, columns.items(), strict=True):
            if not kind.accepts(value):
                shown = f"{type(value).__name__} {value!r:.40}" if value is not None else "NULL"
                raise JournalError(f"{table}.{name} holds {shown}, which is not {kind.name}")
        yield dict(zip(columns, row, strict=True))
