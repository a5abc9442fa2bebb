"""Errors of the database: every SQLSTATE that pipehandler distinguishes, and what it means.

The codes are those of PostgreSQL's documentation, appendix A; the first two characters are the class. Every error
leaves the store as a StoreError, translated here and nowhere else. The default is temporary: only a message's own data
is ever refused.
"""

import errno
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import psycopg

from ..mail.outcome import EXHAUSTED, STORE_FULL, STORE_UNAVAILABLE, Outcome, Result, Undelivered

_T = TypeVar("_T")

WARNING = "01000"
PROTOCOL_VIOLATION = "08P01"
SEQUENCE_GENERATOR_LIMIT_EXCEEDED = "2200H"
"""In the class of data, but it is the database that has no numbers left."""
CHARACTER_NOT_IN_REPERTOIRE = "22021"
"""Also for text that psycopg refuses before the server can: NUL, a lone surrogate."""
NOT_NULL_VIOLATION = "23502"
FOREIGN_KEY_VIOLATION = "23503"
UNIQUE_VIOLATION = "23505"
CHECK_VIOLATION = "23514"
READ_ONLY_SQL_TRANSACTION = "25006"
TRANSACTION_TIMEOUT = "25P04"
INVALID_AUTHORIZATION_SPECIFICATION = "28000"
INVALID_PASSWORD = "28P01"  # noqa: S105 # a SQLSTATE
INVALID_CATALOG_NAME = "3D000"
SERIALIZATION_FAILURE = "40001"
DEADLOCK_DETECTED = "40P01"
INSUFFICIENT_PRIVILEGE = "42501"
UNDEFINED_FUNCTION = "42883"
INVALID_FUNCTION_DEFINITION = "42P13"
INVALID_TABLE_DEFINITION = "42P16"
"""Of a view, too."""
DISK_FULL = "53100"
OUT_OF_MEMORY = "53200"
TOO_MANY_CONNECTIONS = "53300"
CONFIGURATION_LIMIT_EXCEEDED = "53400"
PROGRAM_LIMIT_EXCEEDED = "54000"
OBJECT_NOT_IN_PREREQUISITE_STATE = "55000"
LOCK_NOT_AVAILABLE = "55P03"
QUERY_CANCELED = "57014"
ADMIN_SHUTDOWN = "57P01"
CRASH_SHUTDOWN = "57P02"
CANNOT_CONNECT_NOW = "57P03"
RAISE_EXCEPTION = "P0001"
NO_DATA_FOUND = "P0002"
INBOX_ENDED = "PH002"
NAME_REFUSED = "PH003"
NAME_TAKEN = "PH004"
QUOTA_REACHED = "PH005"
NETWORK_CLOSED = "PH006"
LIFETIME_REACHED = "PH007"
NOT_KEPT = "PH008"
TOO_MANY_INBOXES = "PH009"
"""Our own, of the functions of the inbox page (sql/code/56_inbox_rules.sql)."""
SEVERAL_SHARDS = "PH101"
"""Our own, of the proxy of several shards: one call of ingest has recipients on more than one of them."""
INTERNAL_ERROR = "XX000"
NO_SQLSTATE = ""
"""The connection ended, or was never made: the server has sent no error."""

CLASS_FEATURE_NOT_SUPPORTED = "0A"
CLASS_CONNECTION_EXCEPTION = "08"
CLASS_CARDINALITY_VIOLATION = "21"
CLASS_DATA_EXCEPTION = "22"
CLASS_INTEGRITY_CONSTRAINT_VIOLATION = "23"
CLASS_INVALID_AUTHORIZATION = "28"
CLASS_INVALID_CATALOG_NAME = "3D"
CLASS_INVALID_SCHEMA_NAME = "3F"
CLASS_SQL_ROUTINE_EXCEPTION = "2F"
CLASS_EXTERNAL_ROUTINE_EXCEPTION = "38"
CLASS_EXTERNAL_ROUTINE_INVOCATION_EXCEPTION = "39"
CLASS_TRANSACTION_ROLLBACK = "40"
CLASS_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION = "42"
CLASS_PROGRAM_LIMIT_EXCEEDED = "54"
CLASS_PLPGSQL_ERROR = "P0"
CLASS_OURS = "PH"

CONFLICTS = frozenset({SERIALIZATION_FAILURE, DEADLOCK_DETECTED, FOREIGN_KEY_VIOLATION})
"""Another transaction changed the same rows (23503: it removed or added one that ours refers to): the same statement,
run again, may succeed."""

CONTENTION = CONFLICTS | {LOCK_NOT_AVAILABLE}
"""A conflict, or another transaction that held a lock for too long."""

_REFUSED_CLASSES = frozenset({CLASS_DATA_EXCEPTION, CLASS_PROGRAM_LIMIT_EXCEEDED, CLASS_FEATURE_NOT_SUPPORTED})
_REFUSED = frozenset({NOT_NULL_VIOLATION, CHECK_VIOLATION})
_DATA_CLASSES = _REFUSED_CLASSES | {CLASS_INTEGRITY_CONSTRAINT_VIOLATION}

_CONNECTION_LOST = frozenset({NO_SQLSTATE, ADMIN_SHUTDOWN, CRASH_SHUTDOWN, CANNOT_CONNECT_NOW})

_MESSAGE_MAY_CAUSE = frozenset(
    {
        NO_SQLSTATE,
        PROTOCOL_VIOLATION,
        OUT_OF_MEMORY,
        CONFIGURATION_LIMIT_EXCEEDED,
        TRANSACTION_TIMEOUT,
        INTERNAL_ERROR,
    }
)
"""Beside the refused data: what its size or its shape may do to a server that has no fault."""

_MESSAGE_MAY_CAUSE_CLASSES = frozenset(
    {
        CLASS_CARDINALITY_VIOLATION,
        CLASS_INTEGRITY_CONSTRAINT_VIOLATION,
        CLASS_SQL_ROUTINE_EXCEPTION,
        CLASS_EXTERNAL_ROUTINE_EXCEPTION,
        CLASS_EXTERNAL_ROUTINE_INVOCATION_EXCEPTION,
        CLASS_PLPGSQL_ERROR,
    }
)
"""What a message may cause in a trigger or a constraint of an application, but for a foreign key (CONFLICTS)."""

_LIBPQ_OUT_OF_MEMORY = ("out of memory", "cannot allocate memory for")
"""libpq's own words. They are in English: no process of ours sets LC_MESSAGES (setlocale(3))."""
_SHORTAGES = tuple(os.strerror(number) for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM))

_FINDS_PARTITION = "ExecFindPartition"
"""The function in which PostgreSQL finds no partition for a row."""

_NO_PARTITION = "no partition of relation"
"""What it reports then, as PL/Proxy passes it on: in English, which `check` insists on for shards."""

_OF_PROXY = "plproxy_error_with_state"
"""The function in which PL/Proxy reports the connection to a shard: that it cannot be made, or has ended."""

OF_SHARD = "plproxy_remote_error"
"""The function in which PL/Proxy passes on what a shard reports, with its SQLSTATE if that is an error."""

_PERMANENT_CLASSES = frozenset(
    {
        CLASS_FEATURE_NOT_SUPPORTED,
        CLASS_DATA_EXCEPTION,
        CLASS_INVALID_AUTHORIZATION,
        CLASS_INVALID_CATALOG_NAME,
        CLASS_INVALID_SCHEMA_NAME,
        CLASS_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION,
        CLASS_PLPGSQL_ERROR,
        CLASS_OURS,
    }
)


class StoreError(Undelivered):
    """The database did not do what was asked.

    outcome:   what that means for a delivery.
    sqlstate:  the server's code, "" where it sent none.
    timed_out: our own statement_timeout ended the statement, not an administrator.
    of_shard:  a shard, or its connection to the proxy, is the reason, or that the recipients are on several shards.
    unrouted:  the same, and it is not known which shard: the failure is to be repeated on that one alone (MessageStore.on_shard).
    answered:  afterwards the database answered a query that has nothing of the message in it (MessageStore.answers).
    The text is the reason for the log, without any content of the message.
    """

    timed_out = False
    of_shard = False
    unrouted = False
    answered = False

    def __init__(self, outcome: Outcome, reason: str, sqlstate: str = NO_SQLSTATE) -> None:
        super().__init__(outcome, reason)
        self.sqlstate = sqlstate

    @property
    def result(self) -> Result:
        """The end of the delivery."""
        return Result(self.outcome, reason=str(self), sqlstate=self.sqlstate, outage=self.outage)

    @property
    def stale(self) -> bool:
        """Whether the fault may be that of a connection that has been open for a while: a new one may work."""
        return (
            self.sqlstate in _CONNECTION_LOST
            or self.sqlstate == READ_ONLY_SQL_TRANSACTION
            or self.sqlstate[:2] == CLASS_CONNECTION_EXCEPTION
        )

    @property
    def outage(self) -> bool:
        """Whether the database would fail any other message too: not where a lock or the time limit was the reason, and
        not if it answers a query without this message."""
        unavailable = self.outcome in (STORE_UNAVAILABLE, STORE_FULL) and not self.answered
        return unavailable and self.sqlstate not in (*CONTENTION, QUERY_CANCELED)

    @property
    def by_message(self) -> bool:
        """Whether the message itself may be the reason: the database answers, and this is what a message can cause."""
        may_be = self.sqlstate in _MESSAGE_MAY_CAUSE or self.sqlstate[:2] in _MESSAGE_MAY_CAUSE_CLASSES
        return self.answered and (self.timed_out or (may_be and self.sqlstate not in CONFLICTS))

    @property
    def permanent(self) -> bool:
        """Whether the same statement would fail again, however often it is repeated."""
        return is_permanent(self.sqlstate)


class NotConnected(StoreError):
    """There is no connection: nothing of a message was sent."""


class DataRefused(StoreError):
    """The server refused the data itself and will refuse it again: store the raw message without the parsed view."""

    @property
    def outage(self) -> bool:
        """Another message has other data."""
        return False


def is_permanent(sqlstate: str) -> bool:
    """Whether a statement with this SQLSTATE fails until an operator, or the caller, changes something."""
    return sqlstate[:2] in _PERMANENT_CLASSES


def concerns_data(sqlstate: str) -> bool:
    """Whether the data of this statement was the reason, so that another message may well be stored."""
    return sqlstate[:2] in _DATA_CLASSES and sqlstate != SEQUENCE_GENERATOR_LIMIT_EXCEEDED


def retried(
    call: Callable[[], _T],
    sqlstates: frozenset[str],
    tries: int,
    pause: tuple[float, float],
    remaining: Callable[[], float] = lambda: float("inf"),
) -> _T:
    """Return what `call` returns; repeat it after a StoreError with one of `sqlstates`.

    tries: calls in all. pause: the shortest and longest first pause in seconds; the n-th is n times as long. remaining:
    seconds that are left; a pause that is longer is not begun. Raises the StoreError of the last call.
    """
    for number in range(1, tries):
        try:
            return call()
        except StoreError as error:
            seconds = random.uniform(*pause) * number  # noqa: S311 # jitter needs no secrecy
            if error.sqlstate not in sqlstates or seconds > remaining():
                raise
            time.sleep(seconds)
    return call()


@contextmanager
def translated(kind: type[StoreError] = StoreError) -> Iterator[None]:
    """Turn psycopg's errors into StoreError, or that kind of it."""
    try:
        yield
    except UnicodeEncodeError as error:  # a lone surrogate
        raise _refused(error, CHARACTER_NOT_IN_REPERTOIRE) from error
    except psycopg.Error as error:
        # Without a code, a DataError is psycopg's own: NUL in a text.
        own = CHARACTER_NOT_IN_REPERTOIRE if isinstance(error, psycopg.DataError) else NO_SQLSTATE
        sqlstate = error.sqlstate or own
        # Only the server's first line: DETAIL may quote the row, and so the message.
        reason = (error.diag.message_primary or str(error)).partition("\n")[0]
        if sqlstate == INTERNAL_ERROR and error.diag.source_function == _OF_PROXY:
            sqlstate = NO_SQLSTATE
        if error.diag.source_function == _FINDS_PARTITION or _NO_PARTITION in reason:
            # Of a day that was just created, another session may see the name before the bounds: a second call sees both.
            sqlstate = SERIALIZATION_FAILURE
        data = sqlstate[:2] in _REFUSED_CLASSES and sqlstate != SEQUENCE_GENERATOR_LIMIT_EXCEEDED
        if data or sqlstate in _REFUSED:
            raise _refused(error, sqlstate) from error
        failure = kind(_outcome(sqlstate, reason), reason, sqlstate)
        failure.of_shard = sqlstate == SEVERAL_SHARDS or error.diag.source_function in (_OF_PROXY, OF_SHARD)
        raise failure from error


def _outcome(sqlstate: str, reason: str) -> Outcome:
    if sqlstate == DISK_FULL:
        return STORE_FULL
    # Not the server's shortage, which it reports while it has no process to let us in.
    ours = any(text in reason for text in (*_LIBPQ_OUT_OF_MEMORY, *_SHORTAGES)) and "could not fork" not in reason
    return EXHAUSTED if ours and sqlstate == NO_SQLSTATE else STORE_UNAVAILABLE


def _refused(error: Exception, sqlstate: str) -> DataRefused:
    return DataRefused(STORE_UNAVAILABLE, f"the data was refused ({type(error).__name__})", sqlstate)
