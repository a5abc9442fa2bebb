"""Statements as a program sends them, with the columns and the number of rows returned: recorded, and replayed.

So the tests can replay what the previous release does to a database, without its code.
"""

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import psycopg


class Sent(NamedTuple):
    """One statement: its login role, its parameters, whether a binary result was requested; the columns of the result
    (None: it has none) and the number of its rows."""

    user: str
    statement: str
    parameters: Any
    binary: bool
    columns: list[str] | None
    rows: int


@contextmanager
def recording(path: Path) -> Iterator[None]:
    """Record in `path` everything that this process sends to databases."""
    execute = psycopg.Cursor.execute

    def recorded(cursor: psycopg.Cursor[Any], query: Any, params: Any = None, **options: Any) -> psycopg.Cursor[Any]:
        done = execute(cursor, query, params, **options)
        columns = None if done.description is None else [column.name for column in done.description]
        user = cursor.connection.info.user
        sent = Sent(user, str(query), params, bool(options.get("binary")), columns, done.rowcount)
        file.write(json.dumps(sent, default=_plain, ensure_ascii=False) + "\n")
        return done

    with path.open("w", encoding="utf-8") as file:
        psycopg.Cursor.execute = recorded  # type: ignore[assignment, method-assign]
        try:
            yield
        finally:
            psycopg.Cursor.execute = execute  # type: ignore[method-assign]


def replay(path: Path, conninfo: Callable[[str], str]) -> Iterator[tuple[Sent, list[str] | None, int]]:
    """Send the statements again, each login role (-> conninfo) over one connection; yields each with its current
    columns and rows."""
    with ExitStack() as stack:
        connections: dict[str, psycopg.Connection[Any]] = {}
        for line in path.read_text("utf-8").splitlines():
            sent = Sent(*json.loads(line, object_hook=_typed))
            if sent.user not in connections:
                connections[sent.user] = stack.enter_context(psycopg.connect(conninfo(sent.user), autocommit=True))
            cursor = connections[sent.user].execute(sent.statement, sent.parameters or None, binary=sent.binary)
            columns = None if cursor.description is None else [column.name for column in cursor.description]
            yield sent, columns, cursor.rowcount


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"$bytes": base64.b64encode(value).decode()}
    if isinstance(value, timedelta):
        return {"$seconds": value.total_seconds()}
    raise TypeError(f"cannot record a {type(value).__name__}")


def _typed(value: dict[str, Any]) -> Any:
    if "$bytes" in value:
        return base64.b64decode(value["$bytes"])
    if "$seconds" in value:
        return timedelta(seconds=value["$seconds"])
    return value
