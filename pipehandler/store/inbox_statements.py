"""The connections of the inbox page, and how its statements run there; store/inboxes.py has the statements.

Every method raises StoreError if the database fails, and the errors of inbox_errors.py where it refuses. Rows that cannot be read
are left out and logged (store/readable.py).
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout

from ..mail.outcome import STORE_UNAVAILABLE
from . import async_session
from .async_session import AsyncSession
from .errors import CONTENTION, NotConnected, StoreError
from .inbox_errors import refused
from .readable import mismatch, tolerate

_T = TypeVar("_T")

_log = logging.getLogger("pipehandler.store")

PIECE = 262_144
"""Octets of a piece of an attachment, or of the bytes of a message."""

_WAIT = 10.0  # seconds for a free connection
_QUICK = 5.0  # seconds for a statement that takes no time where the server works
_RECONNECT = 2.0  # seconds until the pool leaves further attempts to the statements: its own come ever more rarely
_TRIES = 3
_PAUSE = (0.02, 0.2)  # seconds

_LIMIT = "SELECT pg_catalog.set_config('statement_timeout', %s, true)"


class Statements:
    """A pool of connections; `open_pool` before the first statement, `close` after the last one.

    conninfo: of a role in pipehandler_web. connections: at most so many. search_timeout: seconds for one search. No statement is
    ever built from input.
    """

    def __init__(self, conninfo: str, connections: int, search_timeout: float) -> None:
        self._connections = connections
        self._search_timeout = search_timeout
        self._pool = self._pool_of(conninfo)

    def _pool_of(self, conninfo: str) -> AsyncConnectionPool[AsyncSession]:
        return AsyncConnectionPool(
            connection_class=AsyncSession,
            kwargs=async_session.arguments(conninfo),
            min_size=1,
            max_size=self._connections,
            timeout=_WAIT,
            max_lifetime=3600.0,
            reconnect_timeout=_RECONNECT,
            open=False,
            configure=_configure,
            check=_check,
            name="inboxes",
        )

    async def open_pool(self) -> None:
        """Start connecting; a database that is away is reported by the statements that need it."""
        await self._pool.open()

    async def move(self, conninfo: str) -> None:
        """Connect to another place from now on: the database has moved."""
        former, self._pool = self._pool, self._pool_of(conninfo)
        await self._pool.open()
        await former.close()

    async def close(self) -> None:
        """End all connections."""
        await self._pool.close()

    async def pieces(self, statement: str, parameters: list[Any]) -> AsyncIterator[bytes]:
        first = 0
        while True:
            piece = bytes(await self.value(statement, [*parameters, first, PIECE]))
            if piece:
                yield piece
            if len(piece) < PIECE:
                return
            first += PIECE

    async def write(self, statement: str, *parameters: Any) -> Any:
        """The value of a statement that changes something; tried again if another transaction changed the same rows."""
        for number in range(1, _TRIES):
            try:
                return await self.value(statement, list(parameters))
            except StoreError as error:
                if error.sqlstate not in CONTENTION:
                    raise
                await asyncio.sleep(random.uniform(*_PAUSE) * number)  # noqa: S311 # jitter needs no secrecy
        return await self.value(statement, list(parameters))

    async def value(self, statement: str, parameters: Sequence[Any] = (), quick: bool = False) -> Any:
        (row,) = await self.rows(statement, parameters, quick=quick)
        (value,) = row.values()
        return value

    async def read(self, statement: str, parameters: Sequence[Any], row: type[_T]) -> list[_T]:
        return list(readable_rows(await self.rows(statement, parameters), row))

    async def rows(
        self, statement: str, parameters: Sequence[Any] = (), limited: bool = False, quick: bool = False
    ) -> list[dict[str, Any]]:
        """The rows of a statement. limited: it may take as long as a search. quick: a server that does not answer it in five
        seconds is away."""
        async with self._connection() as connection:
            connection.patience = _QUICK if quick else AsyncSession.patience
            with refused():
                cursor = connection.cursor(row_factory=dict_row)
                if not limited:
                    return await (await cursor.execute(statement, parameters)).fetchall()
                async with connection.transaction():
                    await cursor.execute(_LIMIT, [str(int(1000 * self._search_timeout))])
                    return await (await cursor.execute(statement, parameters)).fetchall()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AsyncSession]:
        try:
            async with self._pool.connection() as connection:
                yield connection
        except (PoolTimeout, PoolClosed) as error:
            raise NotConnected(STORE_UNAVAILABLE, f"no connection to the database: {error}") from error


async def _configure(connection: AsyncSession) -> None:
    tolerate(connection.adapters)


async def _check(connection: AsyncSession) -> None:
    connection.patience = _QUICK
    await AsyncConnectionPool.check_connection(connection)


def readable_rows(rows: Sequence[dict[str, Any]], row: type[_T]) -> list[_T]:
    """The rows as values, without those whose columns are not of the types that `row` declares."""
    values = []
    for columns in rows:
        wrong = mismatch(columns, row)
        if wrong:
            which = next(iter(columns.values()))
            _log.warning("a row of an inbox (%s) cannot be read and is left out: %s", which, wrong)
        else:
            values.append(row(**columns))
    return values
