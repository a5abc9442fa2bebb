"""The commit point of every message.

One message is one call of the SQL function pipehandler.ingest in autocommit mode: one round trip, one transaction. An
uncertain commit (the connection ends before the server's answer) is a temporary failure, never a success: the
redelivery finds the stored row and is a duplicate. Where the database is the proxy of several shards, `route` says which
shard a recipient is on, and each shard gets a call of its own; it is asked only where that can matter.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from typing import Any, TypeVar

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import kwargs_row

from ..mail.outcome import EXHAUSTED, STORE_UNAVAILABLE
from ..runtime.deadline import TimeUp
from .connection import Parameters, Store
from .errors import (
    CONTENTION,
    QUERY_CANCELED,
    SERIALIZATION_FAILURE,
    UNDEFINED_FUNCTION,
    WARNING,
    StoreError,
    retried,
    translated,
)
from .ingest import IngestRequest, Stored
from .standby import CommitWatch, cancel

_T = TypeVar("_T")

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


class MessageStore(Store):
    """The connection of a delivery, or of a worker for one delivery after the other.

    step: a context that raises TimeUp after so many seconds.
    """

    def __init__(self, conninfo: str, connect_timeout: int = 5, statement_timeout: int = 20) -> None:
        super().__init__(conninfo, connect_timeout, statement_timeout)
        self.step: Callable[[float], AbstractContextManager[object]] = lambda _: nullcontext()
        self.unsent = False  # the call of `ingest` that failed last ended while the message was being sent
        self.is_proxy = False  # known to be one, of several shards
        self._recognized = False  # the open connection was asked whether it is one
        self._shard: int | None = None  # that `ingest` stores on, where it is known
        self._spare = self._last = False  # of `ingest`
        self._commit = CommitWatch()  # of the open connection

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
            with translated(), self._within_limit():
                rows = connection.cursor(row_factory=kwargs_row(Stored)).execute(statement, arguments).fetchall()
            # Committed: the server reports idle (ReadyForQuery) only after the commit.
            if not self._idle():
                raise StoreError(STORE_UNAVAILABLE, "the server did not confirm the commit")
            if self._commit.weak:
                raise StoreError(STORE_UNAVAILABLE, "the synchronous standby did not confirm the commit", WARNING)
        except BaseException as error:
            late = (self._on_proxy or self._spare) and isinstance(error, TimeUp) and self.remaining() > 0
            if late and self._on_proxy and self._connection is not None and self.another().answers_for(request):
                cancel(self._connection)
            self._give_up(error, 1000 * (time.monotonic() - started))
            if late:
                who = "shard" if self._on_proxy else "database"
                failure = StoreError(STORE_UNAVAILABLE, f"the {who} did not answer in time", QUERY_CANCELED)
                failure.timed_out = self._on_proxy or self.unsent
                raise (self._of_shard(failure) if self._on_proxy else failure) from error
            if isinstance(error, StoreError) and error.of_shard:
                self._of_shard(error)
            raise
        if len(rows) != len(set(request.envelope.recipients)):
            reason = "a delivery was removed while the same message was delivered again"
            raise StoreError(STORE_UNAVAILABLE, reason, SERIALIZATION_FAILURE)
        return [row for row in rows if row.delivery is not None]  # None: rejected

    def _within_limit(self) -> AbstractContextManager[object]:
        """How long we wait for the reply, by our own clock: the server's begins when it has received all of the message."""
        if self._on_proxy:
            return self.step(self._timeouts["statement_timeout"] / 1000 - _AFTER_US)
        return self.step(self.remaining() / 2 + _SPARE) if self._spare else nullcontext()

    def _of_shard(self, error: StoreError) -> StoreError:
        self.is_proxy = error.of_shard = True
        error.unrouted = self.unrouted and (error.outage or error.timed_out)
        return error

    def _give_up(self, error: BaseException, milliseconds: float) -> None:
        """Keep no connection with a statement under way, nor one to a server that cannot store."""
        self.unsent = not self._idle() and self._sends()
        if not self._idle() and self._connection is not None and not self._on_proxy:
            cancel(self._connection)  # or its session goes on, and may wait for a standby as long as that is away
        unusable = not self._idle()
        if isinstance(error, StoreError):
            error.timed_out = error.sqlstate == QUERY_CANCELED and milliseconds >= self._timeouts["statement_timeout"]
            unusable = unusable or error.outage or error.outcome == EXHAUSTED
        if unusable:
            self.close()

    def _idle(self) -> bool:
        return self._connection is not None and self._connection.info.transaction_status == TransactionStatus.IDLE

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
    def _on_proxy(self) -> bool:
        """Whether the open connection is known to lead to a proxy, so that we limit what that waits for."""
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

    def _open(self, timeouts: dict[str, int]) -> psycopg.Connection[Any]:
        connection = super()._open(timeouts)
        connection.add_notice_handler(self._commit)
        self._recognized = False
        return connection

    def _chosen_timeouts(self) -> dict[str, int]:
        timeouts = super()._chosen_timeouts()
        if self._on_proxy:
            timeouts["statement_timeout"] += 1000 * _AFTER_US
        return timeouts

    def _statement_seconds(self) -> float:
        """Half of what is left, so that the message can still be stored without what was parsed; all of it in the last call."""
        left = self.remaining() - 1
        return left if self._last and left <= _LONGEST else super()._statement_seconds()
