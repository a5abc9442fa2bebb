"""The connection to PostgreSQL, and the commit point of every message.

One message is one call of the SQL function pipehandler.ingest in autocommit mode: one round trip, one transaction. An
uncertain commit (the connection ends before the server's answer) is a temporary failure, never a success: the
redelivery finds the stored row and is a duplicate. Where the database is the proxy of several shards, `route` says which
shard a recipient is on, and each shard gets a call of its own; it is asked only where that can matter. Every method
raises StoreError and nothing of psycopg.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from typing import Any, TypeVar, overload

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import args_row, kwargs_row

from ..mail.outcome import EXHAUSTED, STORE_UNAVAILABLE
from ..runtime.deadline import TimeUp
from . import notify
from .conninfo import parameters
from .errors import (
    CONTENTION,
    QUERY_CANCELED,
    SERIALIZATION_FAILURE,
    UNDEFINED_FUNCTION,
    WARNING,
    NotConnected,
    StoreError,
    retried,
    translated,
)
from .ingest import IngestRequest, Stored
from .notify import readable
from .resolve import resolved
from .session import open_session
from .standby import CommitWatch, cancel

_T = TypeVar("_T")

Parameters = Sequence[Any] | dict[str, Any]

_TRIES = 3
_PAUSE = (0.02, 0.2)  # seconds

IS_PROXY = """
EXISTS (SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
         WHERE n.nspname OPERATOR(pg_catalog.=) 'pipehandler' AND p.proname OPERATOR(pg_catalog.=) 'shards')
"""
"""Whether a database is the proxy of shards, as an expression that needs no right."""

# Fails where nothing can be stored: there is no schema, or the server is read-only.
_PROBE = (
    f"SELECT pg_current_xact_id() IS NOT NULL AND 'pipehandler'::regnamespace IS NOT NULL AND {IS_PROXY} AS is_proxy"
)
_PROBE_SHARD = "SELECT pipehandler.shard_answers(%s)"
_PROBE_ROUTE = "SELECT bool_and(pipehandler.shard_answers(n)) FROM unnest(pipehandler.route(%s::text[], %s::text)) AS n"
_IS_PROXY = f"SELECT {IS_PROXY}"
_PROBE_MILLISECONDS = 2000

_SPARE = 2
"""Seconds that we wait for the reply after the server's own limit has ended the statement."""

_LONGEST = 3600
"""Seconds; a delivery that has more has no deadline."""

_AFTER_US = 10
"""Seconds after our own limit for a statement at which a proxy would end it. It asks the shard to cancel, waits for the
reply without a limit, and hangs where the shard is frozen. So we end it first: the proxy notices that its client has gone
(client_connection_check_interval, which `become_proxy` sets). Where the shard answers, it is asked to cancel, or its session
might wait for a standby."""

_ROUTE = "SELECT pipehandler.route(%s::text[], %s::text)"


def _asked(connection: psycopg.Connection[Any], question: str, parameters: Parameters = ()) -> bool:
    """What a connection answers within the timeouts that it has; Store.connect would set those of a delivery."""
    with translated():
        (answer,) = connection.execute(question, parameters).fetchone() or (False,)
    return bool(answer)


class Store:
    """One connection, opened when it is first needed and kept while it works.

    connect_timeout, statement_timeout: seconds; shortened to what is left of the delivery.
    remaining: returns the seconds that are left of the delivery.
    step: a context that raises TimeUp after so many seconds.
    longest_lock: seconds to wait for a lock; half of the statement's time if that is less.
    """

    def __init__(self, conninfo: str, connect_timeout: int = 5, statement_timeout: int = 20) -> None:
        self.remaining: Callable[[], float] = lambda: float("inf")
        self.step: Callable[[float], AbstractContextManager[object]] = lambda _: nullcontext()
        self.longest_lock = float("inf")
        self._conninfo = conninfo
        self._connect_timeout = connect_timeout
        self._statement_timeout = statement_timeout
        self._timeouts = {"statement_timeout": 0, "lock_timeout": 0}  # of the open connection, in milliseconds
        self._connection: psycopg.Connection[Any] | None = None
        self._commit = CommitWatch()  # of the open connection
        self._listening = False  # on the open connection
        self._notified = False  # since the last `wait`
        self.is_proxy = False  # known to be one, of several shards
        self._recognized = False  # the open connection was asked whether it is one
        self._shard: int | None = None  # that `ingest` stores on, where it is known
        self._spare = self._last = False  # of `ingest`
        self.unsent = False  # the call of `ingest` that failed last ended while the message was being sent

    # Storing a message.

    def ingest(self, request: IngestRequest, spare: bool = False, last: bool = False) -> list[Stored]:
        """Store one message for its recipients, all or nothing: THE COMMIT POINT.

        spare: leave time for another call, even if the message does not reach the server. last: there is none, so the
        statement may take all the time that is left; else half of it, and statement_timeout. Returns the result for each
        recipient that was not rejected (request.recipients), after the transaction was committed. Raises DataRefused if
        the server refuses the parsed view, StoreError otherwise. After either, nothing was stored, or
        that is not known; storing the same message again is safe.
        """
        statement, arguments = request.statement(), request.arguments()
        self._spare, self._last = spare, last
        call = partial(self._ingest, statement, arguments, request)
        try:
            return retried(lambda: self._on_new_if_ended(call), CONTENTION, _TRIES, _PAUSE, self.remaining)
        finally:
            self._spare = self._last = False  # what else is asked on this connection has its usual limits

    def _on_new_if_ended(self, call: Callable[[], _T]) -> _T:
        """Return what `call` returns; call it again where the connection, that of an earlier message, has ended."""
        reused = self.socket is not None
        try:
            return call()
        except StoreError as error:
            if not (reused and error.stale):
                raise
            return call()

    def _ingest(self, statement: str, arguments: tuple[Any, ...], request: IngestRequest) -> list[Stored]:
        started = time.monotonic()
        try:
            connection = self.connect()
            self._commit.weak = False
            with translated(), self._limit():
                rows = connection.cursor(row_factory=kwargs_row(Stored)).execute(statement, arguments).fetchall()
            # Committed: the server reports idle (ReadyForQuery) only after the commit.
            if not self._idle():
                raise StoreError(STORE_UNAVAILABLE, "the server did not confirm the commit")
            if self._commit.weak:
                raise StoreError(STORE_UNAVAILABLE, "the synchronous standby did not confirm the commit", WARNING)
        except BaseException as error:
            late = (self._limits or self._spare) and isinstance(error, TimeUp) and self.remaining() > 0
            if late and self._limits and self._connection is not None and self.another().answers_for(request):
                cancel(self._connection)
            self._give_up(error, 1000 * (time.monotonic() - started))
            if late:
                who = "shard" if self._limits else "database"
                failure = StoreError(STORE_UNAVAILABLE, f"the {who} did not answer in time", QUERY_CANCELED)
                failure.timed_out = self._limits or self.unsent
                raise (self._of_shard(failure) if self._limits else failure) from error
            if isinstance(error, StoreError) and error.of_shard:
                self._of_shard(error)
            raise
        if len(rows) != len(set(request.envelope.recipients)):
            reason = "a delivery was removed while the same message was delivered again"
            raise StoreError(STORE_UNAVAILABLE, reason, SERIALIZATION_FAILURE)
        return [row for row in rows if row.delivery is not None]  # None: rejected

    def _limit(self) -> AbstractContextManager[object]:
        """How long we wait for the reply, by our own clock: the server's begins when it has received all of the message."""
        if self._limits:
            return self.step(self._timeouts["statement_timeout"] / 1000 - _AFTER_US)
        return self.step(self.remaining() / 2 + _SPARE) if self._spare else nullcontext()

    def _of_shard(self, error: StoreError) -> StoreError:
        self.is_proxy = error.of_shard = True
        error.unrouted = self.unrouted and (error.outage or error.timed_out)
        return error

    def _give_up(self, error: BaseException, milliseconds: float) -> None:
        """Keep no connection with a statement under way, nor one to a server that cannot store."""
        self.unsent = not self._idle() and self._sends()
        if not self._idle() and self._connection is not None and not self._limits:
            cancel(self._connection)  # or its session goes on, and may wait for a standby as long as that is away
        unusable = not self._idle()
        if isinstance(error, StoreError):
            error.timed_out = error.sqlstate == QUERY_CANCELED and milliseconds >= self._timeouts["statement_timeout"]
            unusable = unusable or error.outage or error.outcome == EXHAUSTED
        if unusable:
            self.close()

    def _sends(self) -> bool:
        """Whether libpq has octets that the connection has not taken yet."""
        try:
            return self._connection is not None and self._connection.pgconn.flush() == 1
        except psycopg.Error:
            return False

    def answers_for(self, request: IngestRequest) -> bool:
        """Whether the shards of its recipients answer, on a new connection, which is closed then."""
        try:
            recipients = list(request.envelope.recipients)
            return _asked(self._open_for_probe(), _PROBE_ROUTE, [recipients, request.recipients.delimiter])
        except StoreError:
            return False
        finally:
            self.close()

    def recognize(self) -> None:
        """Find out, once for each connection, whether it leads to a proxy, from which on `ingest` limits what it waits for a
        shard. For a process that keeps its connection, when it has answered Postfix; never raises a StoreError."""
        if self._connection is None or self._recognized or not self._idle():
            return
        with suppress(StoreError):
            self.is_proxy = _asked(self._connection, _IS_PROXY)
            self._recognized = True

    @property
    def _limits(self) -> bool:
        """Whether we limit what the proxy waits for."""
        return self._recognized and self.is_proxy

    def answers(self) -> bool:
        """Whether the database answers a query without a message, on a new connection, within two seconds. So must the shard
        that `ingest` stores on; where it alone does not, the connection is open afterwards."""
        self.close()
        try:
            connection = self._open_for_probe()
            self.is_proxy = _asked(connection, _PROBE)
        except StoreError:
            self.close()
            return False
        try:
            return self._shard is None or _asked(connection, _PROBE_SHARD, [self._shard])
        except StoreError:
            return False

    def _open_for_probe(self) -> psycopg.Connection[Any]:
        self._timeouts = {"statement_timeout": _PROBE_MILLISECONDS, "lock_timeout": _PROBE_MILLISECONDS}
        self._connection = self._open(self._timeouts)
        return self._connection

    # Several shards (docs/design/shards.md).

    def route(self, recipients: Sequence[str], delimiter: str) -> list[int]:
        """The shard of each recipient, in order; empty where the database is not the proxy of shards. Raises StoreError."""
        parameters = [list(recipients), delimiter]
        try:
            (shards,) = self._on_new_if_ended(lambda: self.values(_ROUTE, parameters, of=list[int]))
        except StoreError as error:
            if error.sqlstate != UNDEFINED_FUNCTION:
                raise
            return []
        self.is_proxy = True
        return shards

    @property
    def unrouted(self) -> bool:
        """Whether this is known to be a proxy, and a call of `ingest` is for no shard in particular."""
        return self.is_proxy and self._shard is None

    @contextmanager
    def on_shard(self, shard: int) -> Iterator[None]:
        """In this context, `answers` means the shard too; `ingest` finds it by itself."""
        self._shard = shard
        try:
            yield
        finally:
            self._shard = None

    # Connecting.

    def connect(self) -> psycopg.Connection[Any]:
        """The open connection, in autocommit mode; opened if there is none."""
        # The server gives up while the delivery can still store the message without what was parsed.
        seconds = self.remaining() - 1
        if not self._last or seconds > _LONGEST:
            seconds = min(self._statement_timeout, seconds / 2)
        milliseconds = int(1000 * max(1.0, seconds))
        timeouts = {
            "statement_timeout": milliseconds + (1000 * _AFTER_US if self._limits else 0),
            "lock_timeout": int(min(milliseconds // 2, 1000 * self.longest_lock)),
        }
        if self.ended:
            self.close()
        if self._connection is None:
            self._connection = self._open(timeouts)
        elif timeouts != self._timeouts:  # a delivery that waited long, or the one after it
            with translated(NotConnected):
                self._connection.execute("; ".join(f"SET {name} = {value}" for name, value in timeouts.items()))
        self._timeouts = timeouts
        return self._connection

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
            connection = open_session(settings, timeouts)
        connection.add_notice_handler(self._commit)
        self._recognized = False
        return connection

    def another(self, statement_timeout: int | None = None) -> "Store":
        """A second connection to the same database, not yet opened; statement_timeout: another one, in seconds."""
        return Store(self._conninfo, self._connect_timeout, statement_timeout or self._statement_timeout)

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
