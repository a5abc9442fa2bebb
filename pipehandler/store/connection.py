"""The connection to PostgreSQL: it opens when it is first needed, in autocommit mode, and its statements are bounded by
what is left of the delivery. Every method raises StoreError and nothing of psycopg.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar, overload

import psycopg
from psycopg.rows import args_row, kwargs_row

from . import notify
from .conninfo import parameters
from .errors import NotConnected, translated
from .notify import readable
from .resolve import resolved
from .session import open_session

_T = TypeVar("_T")

Parameters = Sequence[Any] | dict[str, Any]


class Store:
    """One connection, opened when it is first needed and kept while it works.

    connect_timeout, statement_timeout: seconds; shortened to what is left of the delivery.
    remaining: returns the seconds that are left of the delivery.
    longest_lock: seconds to wait for a lock; half of the statement's time if that is less.
    """

    def __init__(self, conninfo: str, connect_timeout: int = 5, statement_timeout: int = 20) -> None:
        self.remaining: Callable[[], float] = lambda: float("inf")
        self.longest_lock = float("inf")
        self._conninfo = conninfo
        self._connect_timeout = connect_timeout
        self._statement_timeout = statement_timeout
        self._timeouts = {"statement_timeout": 0, "lock_timeout": 0}  # of the open connection, in milliseconds
        self._connection: psycopg.Connection[Any] | None = None
        self._listening = False  # on the open connection
        self._notified = False  # since the last `wait`

    # Connecting.

    def connect(self) -> psycopg.Connection[Any]:
        """The open connection, in autocommit mode; opened if there is none."""
        timeouts = self._chosen_timeouts()
        if self.ended:
            self.close()
        if self._connection is None:
            self._connection = self._open(timeouts)
        elif timeouts != self._timeouts:  # a delivery that waited long, or the one after it
            with translated(NotConnected):
                self._connection.execute("; ".join(f"SET {name} = {value}" for name, value in timeouts.items()))
        self._timeouts = timeouts
        return self._connection

    def _chosen_timeouts(self) -> dict[str, int]:
        milliseconds = int(1000 * max(1.0, self._statement_seconds()))
        return {
            "statement_timeout": milliseconds,
            "lock_timeout": int(min(milliseconds // 2, 1000 * self.longest_lock)),
        }

    def _statement_seconds(self) -> float:
        """The limit of the next statement: the server gives up while there is time for another one."""
        return min(self._statement_timeout, (self.remaining() - 1) / 2)

    def _open(self, timeouts: dict[str, int]) -> psycopg.Connection[Any]:
        settings = parameters(self._conninfo)
        settings.setdefault("application_name", "pipehandler")
        # One time limit for the names and the first host.
        seconds = max(2.0, min(self._connect_timeout, self.remaining()))
        started = time.monotonic()
        settings = resolved(settings, seconds)
        settings["connect_timeout"] = max(2, int(seconds - (time.monotonic() - started)))
        # A host that died sends nothing; the kernel notices that nothing is acknowledged any more (tcp(7)). While the server
        # works, only keepalives are left to be acknowledged.
        liveness = {
            "tcp_user_timeout": 1000 * self._connect_timeout,
            "keepalives_idle": max(1, self._connect_timeout // 2),
            "keepalives_interval": 1,
        }
        settings = {**liveness, **settings}
        with translated(NotConnected):
            return open_session(settings, timeouts)

    def another(self, statement_timeout: int | None = None) -> Self:
        """A second connection to the same database, not yet opened; statement_timeout: another one, in seconds."""
        return type(self)(self._conninfo, self._connect_timeout, statement_timeout or self._statement_timeout)

    @property
    def socket(self) -> int | None:
        """The descriptor of the open connection, None if there is none."""
        return None if self._connection is None or self._connection.closed else self._connection.fileno()

    @property
    def ended(self) -> bool:
        """Whether there is no usable connection: an idle server sends only its shutdown notice, or notifications. While
        this connection listens, the next statement finds out."""
        return self.socket is None or (not self._listening and readable(self.socket))

    def close(self) -> None:
        """Close the connection, if there is one; never raises."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
            self._listening = False

    # Statements. None of them is ever built from input.

    @overload
    def rows(
        self, statement: str, parameters: Parameters = (), *, row: Callable[..., _T], binary: bool = False
    ) -> list[_T]: ...

    @overload
    def rows(self, statement: str, parameters: Parameters = (), *, binary: bool = False) -> list[dict[str, Any]]: ...

    def rows(
        self, statement: str, parameters: Parameters = (), *, row: Callable[..., Any] = dict, binary: bool = False
    ) -> list[Any]:
        """The rows that `statement` returns.

        row: what is called with the columns of each row by name, such as a NamedTuple; without it each row is a dict.
        binary: octets are sent as they are, in half the memory.
        """
        with translated():
            cursor = self.connect().cursor(row_factory=kwargs_row(row))
            return cursor.execute(statement, parameters, binary=binary).fetchall()

    def values(self, statement: str, parameters: Parameters = (), *, of: Callable[[Any], _T]) -> list[_T]:
        """The values of a statement that returns one column, each converted with `of`, such as int or bytes."""
        with translated():
            return self.connect().cursor(row_factory=args_row(of)).execute(statement, parameters).fetchall()

    def script(self, statements: str) -> None:
        """Run several statements, separated by semicolons, without parameters."""
        with translated():
            self.connect().execute(statements)

    # Notifications.

    def announce(self) -> None:
        """Wake listeners: new mail is committed. Only a hint, so only on a connection that is open, for at most a
        second, and never raises."""
        if self._connection is not None and not notify.notify(self._connection.pgconn):
            self.close()

    def listen(self) -> None:
        """Receive notifications from now on, as long as this connection lasts."""
        self.connect().add_notify_handler(self._note)
        self.script(f"LISTEN {notify.CHANNEL}")
        self._listening = True

    def wait(self, seconds: float) -> bool:
        """Wait for a notification, at most `seconds`; whether one came now or since the last call. Raises StoreError if
        the connection ended."""
        with translated():
            notified = self._notified or notify.wait(self.connect().pgconn, seconds)
        self._notified = False
        return notified

    def _note(self, _: psycopg.Notify) -> None:
        self._notified = True
