"""Rows of stored mail, checked: whoever may store mail, or change the schema, can leave values there that Python cannot hold.

A timestamp of infinity or of the year 200000, JSON of another shape, NULL in a column that has none: one such row must not stop
the list, or the stream, in which it stands. It is left out, and a warning of the logger pipehandler.store says which and why.
"""

import json
import logging
import math
from collections.abc import Iterator, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict

import psycopg
from psycopg.adapt import AdaptersMap, Buffer, Loader
from psycopg.rows import dict_row
from psycopg.types.datetime import TimestamptzLoader

from .connection import Parameters, Store
from .errors import translated

_T = TypeVar("_T")

_log = logging.getLogger("pipehandler.store")

_DEPTH = 20  # of JSON; ours has 3
_SHOWN = 60  # characters of a value in a warning


class Unreadable:
    """A value that Python cannot hold, as the server wrote it."""

    def __init__(self, data: Buffer) -> None:
        self._text = bytes(data[: 4 * _SHOWN]).decode("utf-8", "replace")

    def __repr__(self) -> str:
        return self._text


class _Time(TimestamptzLoader):
    def load(self, data: Buffer) -> Any:
        try:
            return super().load(data)
        except (psycopg.Error, ValueError, OverflowError):  # infinity, or outside of the years 1 to 9999
            return Unreadable(data)


class _Json(Loader):
    def load(self, data: Buffer) -> Any:
        try:
            value = json.loads(bytes(data), parse_float=_finite)
        except (ValueError, RecursionError):  # numbers of thousands of digits, or a depth of thousands
            return Unreadable(data)
        return value if _is_flat(value, _DEPTH) else Unreadable(data)


def _is_flat(value: Any, depth: int) -> bool:
    if not isinstance(value, (list, dict)):
        return True
    return depth > 0 and all(
        _is_flat(item, depth - 1) for item in (value.values() if isinstance(value, dict) else value)
    )


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:_SHOWN]} is too large")
    return number


def tolerate(adapters: AdaptersMap) -> None:
    """Have a cursor or a connection load values that Python cannot hold as Unreadable."""
    adapters.register_loader("timestamptz", _Time)
    adapters.register_loader("jsonb", _Json)


def tolerant_rows(store: Store, statement: str, parameters: Parameters = ()) -> list[dict[str, Any]]:
    """The rows that `statement` returns, each a dict, in which values that Python cannot hold are Unreadable."""
    with translated():
        cursor = store.connect().cursor(row_factory=dict_row)
        tolerate(cursor.adapters)
        return cursor.execute(statement, parameters).fetchall()


def readable_rows(store: Store, statement: str, parameters: Parameters, row: type[_T], name: str, key: str) -> list[_T]:
    """The rows that `statement` returns, each a `row`, without those whose columns are not of its types; these are logged.

    row: a dataclass or NamedTuple. name: what one row is; key: the column that identifies it.
    """
    return list(_readable(tolerant_rows(store, statement, parameters), row, name, key))


def _readable(rows: Sequence[dict[str, Any]], row: type[_T], name: str, key: str) -> Iterator[_T]:
    for columns in rows:
        wrong = mismatch(columns, row)
        if wrong:
            _log.warning("%s %s cannot be read and is left out: %s", name, columns[key], wrong)
        else:
            yield row(**columns)


def mismatch(columns: dict[str, Any], row: type) -> str:
    """Why `columns` are not of the types that `row` declares, "" if they are."""
    hints = get_type_hints(row, include_extras=True)
    for column, value in columns.items():
        if not _matches(value, hints[column]):
            shown = repr(value)
            return f"{column} is {shown if len(shown) <= _SHOWN else shown[:_SHOWN] + '...'}"
    return ""


def _matches(value: Any, hint: Any) -> bool:
    """Whether `value` is of the type `hint`. Annotated[list[T], N] is a list of N."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return not isinstance(value, Unreadable)
    if origin is Annotated:
        return _matches(value, arguments[0]) and len(value) == arguments[1]
    if origin in (Union, UnionType):
        return any(_matches(value, argument) for argument in arguments)
    if origin is tuple:
        return isinstance(value, tuple) and all(_matches(item, arguments[0]) for item in value)
    if origin is list:
        return isinstance(value, list) and all(_matches(item, arguments[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_matches(item, arguments[1]) for item in value.values())
    if is_typeddict(hint):
        hints = get_type_hints(hint)
        return (
            isinstance(value, dict)
            and hint.__required_keys__ <= value.keys()
            and all(_matches(value[name], hints[name]) for name in hints if name in value)
        )  # fmt: skip
    if hint is None or hint is NoneType:
        return value is None
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool))
