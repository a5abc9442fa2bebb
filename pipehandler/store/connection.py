"""The connection to PostgreSQL, and the commit point of every message.

One message is one call of the SQL function pipehandler.ingest in autocommit mode: one round trip, one transaction. An
uncertain commit (the connection ends before the server's answer) is a temporary failure, never a success: the
redelivery finds the stored row and is a duplicate. Every method raises StoreError and nothing of psycopg.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar, overload

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import args_row, kwargs_row

from ..mail.outcome import STORE_UNAVAILABLE
from . import notify
from .conninfo import parameters
from .errors import CONTENTION, SERIALIZATION_FAILURE, StoreError, retried, translated
from .ingest import INGEST, IngestRequest, Stored
from .notify import readable
from .session import open_session

_T = TypeVar("_T")

Parameters = Sequence[Any] | dict[str, Any]

_TRIES = 3
_PAUSE = (0.02, 0.2)  # seconds


class Store:
    """One connection, opened when it is first needed and kept while it works.

    connect_timeout, statement_timeout: seconds; shortened to what is left of the delivery.
    remaining: returns the seconds that are left of the delivery.
    """

    def __init__(self, conninfo: str, connect_timeout: int = 5, statement_timeout: int = 20) -> None:
        self.remaining: Callable[[], float] = lambda: float("inf")
        self._conninfo = conninfo
        self._connect_timeout = connect_timeout
        self._statement_timeout = statement_timeout
        self._statement_milliseconds = 0  # of the open connection
        self._connection: psycopg.Connection[Any] | None = None
        self._listening = False  # on the open connection
        self._notified = False  # since the last `wait`

    # Storing a message.

    def ingest(self, request: IngestRequest) -> list[Stored]:
        """Store one message for its recipients, all or nothing: THE COMMIT POINT.

        Returns the result for each recipient that was not rejected (request.recipients), after the transaction was
        committed. Raises DataRefused if the server refuses the parsed view, StoreError otherwise. After either, nothing
        was stored, or that is not known; storing the same message again is safe.
        """
        arguments = request.arguments()
        recipients = len(set(request.envelope.recipients))

        def call() -> list[Stored]:
            reused = self.socket is not None
            try:
                return self._ingest(arguments, recipients)
            except StoreError as error:
                if not (reused and error.stale):
                    raise
                return self._ingest(arguments, recipients)  # the connection of an earlier message has ended

        return retried(call, CONTENTION, _TRIES, _PAUSE, self.remaining)

    def _ingest(self, arguments: tuple[Any, ...], recipients: int) -> list[Stored]:
        try:
            connection = self.connect()
            with translated():
                rows = connection.cursor(row_factory=kwargs_row(Stored)).execute(INGEST, arguments).fetchall()
            # Committed: the server reports idle (ReadyForQuery) only after the commit.
            if not self._idle():
                raise StoreError(STORE_UNAVAILABLE, "the server did not confirm the commit")
        except BaseException as error:
            # Keep no connection with a statement under way, nor one to a server that cannot store.
            if not self._idle() or (isinstance(error, StoreError) and error.outage):
                self.close()
            raise
        if len(rows) != recipients:
            reason = "a delivery was removed while the same message was delivered again"
            raise StoreError(STORE_UNAVAILABLE, reason, SERIALIZATION_FAILURE)
        return [row for row in rows if row.delivery is not None]  # None: rejected

    # Connecting.

    def connect(self) -> psycopg.Connection[Any]:
        """The open connection, in autocommit mode; opened if there is none."""
        # The server gives up a little before the delivery does, so that the failure has a name.
        milliseconds = int(1000 * max(1.0, min(self._statement_timeout, self.remaining() - 1)))
        timeouts = {"statement_timeout": milliseconds, "lock_timeout": milliseconds // 2}
        if self.ended:
            self.close()
        if self._connection is None:
            self._connection = self._open(timeouts)
        elif milliseconds != self._statement_milliseconds:  # a delivery that waited long, or the one after it
            with translated():
                self._connection.execute("; ".join(f"SET {name} = {value}" for name, value in timeouts.items()))
        self._statement_milliseconds = milliseconds
        return self._connection

    def _open(self, timeouts: dict[str, int]) -> psycopg.Connection[Any]:
        settings = parameters(self._conninfo)
        settings.setdefault("application_name", "pipehandler")
        settings["connect_timeout"] = int(max(2, min(self._connect_timeout, self.remaining())))
        # A host that died sends nothing; the kernel notices that nothing is acknowledged any more.
        settings.setdefault("tcp_user_timeout", 1000 * self._connect_timeout)
        with translated():
            return open_session(settings, timeouts)

    def another(self) -> "Store":
        """A second connection to the same database, not yet opened."""
        return Store(self._conninfo, self._connect_timeout, self._statement_timeout)

    @property
    def socket(self) -> int | None:
        """The descriptor of the open connection, None if there is none."""
        return None if self._connection is None or self._connection.closed else self._connection.fileno()

    @property
    def ended(self) -> bool:
        """Whether there is no usable connection: an idle server sends only its shutdown notice, or notifications. While
        this connection listens, the next statement finds out."""
        return self.socket is None or (not self._listening and readable(self.socket))

    def _idle(self) -> bool:
        return self._connection is not None and self._connection.info.transaction_status == TransactionStatus.IDLE

    def close(self) -> None:
        """Close the connection, if there is one; never raises."""
        if self._connection is not None:
            with suppress(psycopg.Error):
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
