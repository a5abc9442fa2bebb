"""The store: PostgreSQL, and the only module that knows psycopg.

One message is one call of the SQL function pipehandler.ingest, sent in autocommit mode: one round trip, one transaction.
`Store.ingest` returns only after the server said that it is ready for the next query, which it says after the commit.
Everything that goes wrong leaves as a StoreError with the outcome that it means; psycopg's errors are translated
here, once. Default: temporary. An uncertain commit (the connection ends before the answer) is a temporary failure, never
a success: the redelivery finds its own row and is a duplicate.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

from ..mail.outcome import MISCONFIGURED, STORE_FULL, STORE_UNAVAILABLE, Outcome, Result, Undelivered
from . import notify
from .notify import readable
from .submission import Submission, octets

_TRIES = 3
# serialization_failure, deadlock_detected, lock_not_available; foreign_key_violation: a lease was removed at this very moment
_AGAIN = frozenset({"40001", "40P01", "55P03", "23503"})
_DATA_CLASSES = frozenset({"22", "54", "0A"})  # data exception, program limit exceeded, feature not supported
_DATA = frozenset({"23502", "23514"})  # not_null_violation, check_violation
_NO_TEXT = "22021"  # character_not_in_repertoire; here also for what psycopg refuses before the server can
_TOO_LARGE = "54000"  # program_limit_exceeded
_LARGEST = 1_070_000_000  # octets in one message of the protocol, for which a server ends the session from 1 GB on
_DISK_FULL = "53100"
_READ_ONLY = "25006"
_GONE = frozenset({"", "57P01", "57P02", "57P03"})  # the connection, or the server: shut down, crashed, not yet up
_QUERY_CANCELED = "57014"  # statement_timeout

_WHERE = ("host", "hostaddr", "port", "sslmode", "sslrootcert")

_INGEST = """
SELECT recipient, delivery, message::text, duplicate
  FROM pipehandler.ingest(%s::jsonb, %s::jsonb, %s::text, %s::text, %b::bytea, %b::bytea, %b::bytea[])
"""


class StoreError(Undelivered):
    """The store did not take the message. `outcome` is what it means for the delivery, `sqlstate` the server's code or
    "", and the text a reason for the log without content of the message."""

    def __init__(self, outcome: Outcome, reason: str, sqlstate: str = "") -> None:
        super().__init__(outcome, reason)
        self.sqlstate = sqlstate

    @property
    def result(self) -> Result:
        """What it means for the delivery."""
        return Result(self.outcome, reason=str(self), sqlstate=self.sqlstate, outage=self.outage)

    @property
    def stale(self) -> bool:
        """Whether another connection may be better than one that was open before."""
        return self.sqlstate in _GONE or self.sqlstate[:2] == "08" or self.sqlstate == _READ_ONLY

    @property
    def outage(self) -> bool:
        """Whether the database would fail any other message, too: not so where a lock or the time was the reason."""
        return self.outcome in (STORE_UNAVAILABLE, STORE_FULL) and self.sqlstate not in (*_AGAIN, _QUERY_CANCELED)


class DataRefused(StoreError):
    """The server refused the data itself and will refuse it again: store the bytes without what was read from them."""

    @property
    def outage(self) -> bool:
        """Another message has other data."""
        return False


class Stored(NamedTuple):
    """What happened for one recipient: the ids of its delivery and message, and whether they were there before."""

    recipient: str
    delivery: int
    message: str
    duplicate: bool


class Store:
    """One connection to the store, opened when it is first needed, and kept while it is good.

    `remaining` tells how many seconds of the delivery are left; the timeouts (seconds) are cut down to that.
    Raises StoreError from every method.
    """

    def __init__(self, conninfo: str, connect_timeout: int = 5, statement_timeout: int = 20) -> None:
        self.remaining: Callable[[], float] = lambda: float("inf")
        self._conninfo = conninfo
        self._connect_timeout = connect_timeout
        self._statement_timeout = statement_timeout
        self._statement_milliseconds = 0  # of the open connection
        self._connection: psycopg.Connection[Any] | None = None
        self._listening = False  # on the open connection
        self._announced = False  # since the last `wait`

    @property
    def socket(self) -> int | None:
        """The descriptor of the open connection, None if there is none."""
        return None if self._connection is None or self._connection.closed else self._connection.fileno()

    @property
    def ended(self) -> bool:
        """Whether the connection is no more: between two statements a server has nothing to say but that it ends, or what
        we listen to; then the next statement will tell."""
        return self.socket is None or (not self._listening and readable(self.socket))

    def connect(self) -> psycopg.Connection[Any]:
        """The open connection, in autocommit mode; opened if there is none."""
        # The server gives up a little before we do, so that the failure has a name.
        milliseconds = int(1000 * max(1.0, min(self._statement_timeout, self.remaining() - 1)))
        timeouts = {"statement_timeout": milliseconds, "lock_timeout": milliseconds // 2}
        if self.ended:
            self.close()
        if self._connection is None:
            with _translated():
                parameters = _parameters(self._conninfo)
                options = " ".join(f"-c {name}={value}" for name, value in timeouts.items())
                parameters["options"] = f"{parameters.get('options') or ''} {options}".strip()
                parameters.setdefault("application_name", "pipehandler")
                parameters["connect_timeout"] = int(max(2, min(self._connect_timeout, self.remaining())))
                # A host that died does not say so; ours notices that nothing is acknowledged any more.
                parameters.setdefault("tcp_user_timeout", 1000 * self._connect_timeout)
                self._connection = psycopg.connect(
                    autocommit=True, client_encoding="utf8", prepare_threshold=None, **parameters
                )
        elif milliseconds != self._statement_milliseconds:  # a message that waited for long, or the one after it
            with _translated():
                self._connection.execute("; ".join(f"SET {name} = {value}" for name, value in timeouts.items()))
        self._statement_milliseconds = milliseconds
        return self._connection

    def close(self) -> None:
        """Close the connection, if there is one; never raises."""
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
            self._connection = None
            self._listening = False

    def ingest(self, submission: Submission) -> list[Stored]:
        """Store one message for its recipients, all or nothing: THE COMMIT POINT.

        Returns what happened for each recipient that was not rejected (submission.recipients), after the transaction was
        committed. Raises DataRefused where the server refuses the decoded view, StoreError otherwise; after either nothing
        was stored, or it is not known.
        """
        arguments = submission.arguments()
        check_size(arguments)
        wanted = len(set(submission.envelope.recipients))
        for attempt in range(1, _TRIES + 1):
            kept = self.socket is not None
            try:
                return self._ingest(arguments, wanted)
            except StoreError as error:
                if kept and error.stale and attempt < _TRIES:
                    continue  # an earlier message's connection; whatever became of the statement, it may be said again
                pause = random.uniform(0.02, 0.2) * attempt  # noqa: S311 # jitter is no secret
                if error.sqlstate not in _AGAIN or attempt == _TRIES or pause > self.remaining():
                    raise
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _ingest(self, arguments: Sequence[Any], wanted: int) -> list[Stored]:
        try:
            connection = self.connect()
            with _translated():
                rows = connection.execute(_INGEST, arguments).fetchall()
            if not self._idle():
                raise StoreError(STORE_UNAVAILABLE, "the server did not confirm the commit")
        except BaseException as error:
            # Nobody shall go on with a connection that is in the middle of something, or to a server that cannot store.
            if not self._idle() or (isinstance(error, StoreError) and error.outage):
                self.close()
            raise
        if len(rows) != wanted:
            raise StoreError(STORE_UNAVAILABLE, "a delivery was removed while it came again", "40001")
        return [Stored(*row) for row in rows if row[1] is not None]

    def announce(self) -> None:
        """Wake those who listen: something new is committed. Only a hint, so only on a connection that is open; for a second at
        the most, and never raises."""
        if self._connection is not None and not notify.notify(self._connection.pgconn):
            self.close()

    def listen(self) -> None:
        """Hear from now on what is announced, while this connection lasts."""
        self.connect().add_notify_handler(self._hear)
        self.script(f"LISTEN {notify.CHANNEL}")
        self._listening = True

    def wait(self, seconds: float) -> bool:
        """Wait until something is announced, or was since the last call, `seconds` at the most; whether that is so. Raises
        StoreError where the connection ended."""
        with _translated():
            heard = self._announced or notify.heard(self.connect().pgconn, seconds)
        self._announced = False
        return heard

    def _hear(self, _: psycopg.Notify) -> None:
        self._announced = True

    def _idle(self) -> bool:
        return self._connection is not None and self._connection.info.transaction_status == TransactionStatus.IDLE

    def rows(
        self, statement: str, parameters: Sequence[Any] | dict[str, Any] = (), binary: bool = False
    ) -> list[dict[str, Any]]:
        """The rows that `statement` (one of ours, never built from input) returns, each as a dict. `binary`: bytes come as they
        are, in half the memory."""
        with _translated():
            cursor = self.connect().cursor(row_factory=dict_row)
            return cursor.execute(statement, parameters, binary=binary).fetchall()

    def script(self, statements: str) -> None:
        """Run several statements of ours, separated by semicolons, without parameters."""
        with _translated():
            self.connect().execute(statements)


def check_size(arguments: Sequence[Any]) -> None:
    """Raises DataRefused for arguments of a statement that a server may not take: it would end the session instead."""
    if octets(arguments) > _LARGEST:
        raise DataRefused(STORE_UNAVAILABLE, "the data was refused (larger than the protocol allows)", _TOO_LARGE)


def uri(conninfo: str) -> str:
    """Where the database of `conninfo` is, as a URI for programs of others: without user and secrets. Raises StoreError."""
    parameters = _parameters(conninfo)
    where = {name: str(parameters[name]) for name in _WHERE if parameters.get(name)} or {"host": "/run/postgresql"}
    # A comma between hosts would end the URI for pgsql_table(5).
    return (
        f"postgresql:///{quote(str(parameters.get('dbname') or ''), '')}?{urlencode(where, quote_via=quote, safe='/')}"
    )


def _parameters(conninfo: str) -> dict[str, Any]:
    try:
        return dict(conninfo_to_dict(conninfo))
    except psycopg.ProgrammingError as error:
        raise StoreError(MISCONFIGURED, f"database.conninfo is no libpq connection string: {error}") from error


@contextmanager
def _translated() -> Iterator[None]:
    """Turn psycopg's errors into StoreError: the one place where a SQLSTATE becomes an outcome."""
    try:
        yield
    except UnicodeEncodeError as error:  # a lone surrogate
        raise DataRefused(STORE_UNAVAILABLE, "the data was refused (UnicodeEncodeError)", _NO_TEXT) from error
    except psycopg.Error as error:
        # Without a code, a DataError is psycopg's own: NUL in a text.
        sqlstate = error.sqlstate or (_NO_TEXT if isinstance(error, psycopg.DataError) else "")
        # Only the server's first line: DETAIL may quote the row, and so the message.
        reason = (error.diag.message_primary or str(error)).partition("\n")[0]
        if sqlstate[:2] in _DATA_CLASSES or (sqlstate in _DATA and "no partition" not in reason):
            raise DataRefused(STORE_UNAVAILABLE, f"the data was refused ({type(error).__name__})", sqlstate) from error
        outcome = STORE_FULL if sqlstate == _DISK_FULL else STORE_UNAVAILABLE
        raise StoreError(outcome, reason, sqlstate) from error
