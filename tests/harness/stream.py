"""Deliveries in open transactions, and what the stream shows of them."""

import itertools
import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from queue import Queue
from typing import Any

import psycopg
from psycopg.rows import namedtuple_row

from pipehandler.store.connection import Store
from pipehandler.store.errors import StoreError
from pipehandler.store.stream import Delivery

from .database import Database
from .submission import MESSAGE, submission

_INGEST = """
SELECT delivery FROM pipehandler.ingest(%s::jsonb, %s::jsonb, %s::text, %s::text, %b::bytea, %b::bytea, %b::bytea[])
"""


def numbered(number: int) -> bytes:
    """A distinct message."""
    return MESSAGE.replace(b"<1@", b"<%d@" % number)


def ingest(connection: "psycopg.Connection[Any]", number: int, *recipients: str) -> int:
    """Store a message in the transaction of `connection`; returns the id of its (last) delivery."""
    arguments = submission(numbered(number), *recipients).arguments()
    ids = [int(delivery) for (delivery,) in connection.execute(_INGEST, arguments)]
    return max(ids)


@contextmanager
def writing(database: Database) -> Iterator["psycopg.Connection[Any]"]:
    """A transaction that may store messages, and is rolled back unless it is committed."""
    with psycopg.connect(database.conninfo) as connection:
        yield connection
        connection.rollback()


def stored(database: Database, number: int, *recipients: str) -> int:
    """Store a message; returns the id of its delivery."""
    with writing(database) as connection:
        delivery = ingest(connection, number, *recipients)
        connection.commit()
    return delivery


def announce(database: Database) -> None:
    """Send NOTIFY to all listeners, as the handler does after its answer."""
    with closing(Store(database.conninfo)) as store:
        store.connect()
        store.announce()


class Coming:
    """The next `count` deliveries of a stream, read in a separate thread; then the stream is closed."""

    def __init__(self, stream: Generator[Delivery, None, None], count: int = 1) -> None:
        self._stream, self._count = stream, count
        self._seen: Queue[Delivery | StoreError] = Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with closing(self._stream):
            try:
                for each in itertools.islice(self._stream, self._count):
                    self._seen.put(each)
            except StoreError as error:
                self._seen.put(error)

    @property
    def there(self) -> int:
        """How many have arrived and were not fetched."""
        return self._seen.qsize()

    def next(self, seconds: float = 60) -> int:
        """The id of the next delivery; wait for it so long. Raises queue.Empty, and what the stream raised."""
        seen = self._seen.get(timeout=seconds)
        if isinstance(seen, StoreError):
            raise seen
        return seen.id


def after(database: Database, cursor: str | None, *more: object, role: str = "reader") -> list[Any]:
    """What pipehandler.deliveries_after returns to a reader; `more`: recipient, lease, max_rows."""
    places = ", ".join(["%s::text", "%s::text", "%s::bigint", "%s::integer"][: 1 + len(more)])
    conninfo = database.server.conninfo(database.name, user=role)
    with psycopg.connect(conninfo, row_factory=namedtuple_row) as connection:
        return connection.execute(f"SELECT * FROM pipehandler.deliveries_after({places})", [cursor, *more]).fetchall()


def ids(rows: list[Any]) -> list[int]:
    """The ids of deliveries, in their order."""
    return [row.id for row in rows]
