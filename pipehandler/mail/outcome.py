"""The outcome table: the one place that combines an exit status, an enhanced status code and a public text.

Every delivery ends in one of these. pipe(8) reads the line first: an enhanced status code (RFC 3463) at the start of
the output overrides the exit status, so the class of the code must agree with the status (2 with 0, 4 with a status
that defers, 5 with one that bounces). Postfix shows the line to the outside sender, so it never contains a host name,
SQL, a path or content of the message. Details for the operator go to the log.
"""

import errno
import os
from collections.abc import Sequence
from typing import NamedTuple

from .sysexits import EX_DATAERR, EX_NOUSER, EX_OK, EX_OSERR, EX_TEMPFAIL


class Outcome(NamedTuple):
    """How a delivery ended.

    name:   the fixed word in log lines, in the journal and in metrics.
    code:   the enhanced status code of RFC 3463.
    text:   what the sender of the message may read, ASCII, one line.
    status: the exit status (sysexits.h).
    """

    name: str
    code: str
    text: str
    status: int

    def line(self, stored: str = "") -> str:
        """Return the line for pipe(8): the code, the text and the id of a stored message; no line end."""
        return f"{self.code} {self.text} {stored}".rstrip()


DELIVERED = Outcome("delivered", "2.0.0", "stored", EX_OK)
DUPLICATE = Outcome("duplicate", "2.0.0", "stored before", EX_OK)
QUARANTINED = Outcome("quarantined", "2.0.0", "stored, not parsed", EX_OK)

STORE_UNAVAILABLE = Outcome("store_unavailable", "4.3.0", "message store unavailable", EX_TEMPFAIL)
OUTAGE = Outcome("outage", "4.3.0", "message store unavailable", EX_TEMPFAIL)
"""Not tried: the circuit breaker is open, because the database was down a moment ago."""
STORE_FULL = Outcome("store_full", "4.3.1", "message store full", EX_TEMPFAIL)
MISCONFIGURED = Outcome("misconfigured", "4.3.5", "mail system incorrectly configured", EX_TEMPFAIL)
DEADLINE = Outcome("deadline", "4.3.0", "delivery took too long", EX_TEMPFAIL)
CONGESTED = Outcome("congested", "4.4.5", "mail system congested", EX_TEMPFAIL)
TRUNCATED = Outcome("truncated", "4.3.0", "message truncated", EX_TEMPFAIL)
FAULT = Outcome("fault", "4.3.0", "internal fault", EX_TEMPFAIL)
EXHAUSTED = Outcome("exhausted", "4.3.0", "mail system out of resources", EX_OSERR)

# Only these two return mail to its sender, and only where the operator configured it. From a Maildir, they and the third put it
# into failed/.
UNKNOWN_RECIPIENT = Outcome("unknown_recipient", "5.1.1", "recipient unknown", EX_NOUSER)
TOO_LARGE = Outcome("too_large", "5.3.4", "message larger than this system accepts", EX_DATAERR)
UNSTORABLE = Outcome("unstorable", "5.6.0", "message cannot be stored", EX_DATAERR)
"""From a Maildir alone: it has no envelope, or one that the database cannot hold."""

TABLE = (
    DELIVERED,
    DUPLICATE,
    QUARANTINED,
    STORE_UNAVAILABLE,
    OUTAGE,
    STORE_FULL,
    MISCONFIGURED,
    DEADLINE,
    CONGESTED,
    TRUNCATED,
    FAULT,
    EXHAUSTED,
    UNKNOWN_RECIPIENT,
    TOO_LARGE,
    UNSTORABLE,
)
"""All outcomes; docs/outcomes.md shows the same table, and a test compares them."""


NEWLY_STORED = frozenset({DELIVERED, QUARANTINED})
"""The outcomes after which a new message or delivery is stored."""

EXHAUSTED_ERRORS = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
"""The operating system errors for running out of processes, descriptors or memory (EX_OSERR)."""

_NOT_MAPPED = "failed to map segment from shared object"
"""What glibc's dynamic loader reports where there is no memory for a library."""

_NO_REASON = "error return without exception set"
"""The text of the SystemError that CPython 3.13 raises in places where it finds no memory."""

INCOMPLETE = "the installation is not complete, or not for this Python:"
"""The beginning of the reason if a module cannot be found."""


class Result(NamedTuple):
    """The result of one delivery, for one recipient or for all of a call.

    message: the id of the stored message, else "". reason and sqlstate: only for the log. message_id: the Message-ID,
    if known. outage: the database would have failed any other message as well. fault: the unforeseen exception, or the
    one that ended the parser.
    """

    outcome: Outcome
    message: str = ""
    reason: str = ""
    sqlstate: str = ""
    message_id: str | None = None
    outage: bool = False
    fault: BaseException | None = None

    @property
    def line(self) -> str:
        """Return the line for pipe(8)."""
        return self.outcome.line(self.message)


class Undelivered(Exception):
    """A delivery ended before its message was stored, with a known outcome; the text is the reason for the log."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome

    @property
    def result(self) -> Result:
        """The result of the delivery."""
        return Result(self.outcome, reason=str(self))


def outcome_of(error: BaseException) -> Result:
    """Return the result of a delivery that an exception ended. Only this function decides that.

    Undelivered, its subclasses and TimeUp have an attribute `result`. Otherwise a resource shortage of this host is
    EXHAUSTED, a missing module is MISCONFIGURED, and anything else is a FAULT. None of these bounces.
    """
    known = getattr(error, "result", None)
    if isinstance(known, Result):
        return known
    if isinstance(error, MemoryError):
        return Result(EXHAUSTED, reason="out of memory")
    if out_of_resources(error):
        return Result(EXHAUSTED, reason=described(error))
    if isinstance(error, ModuleNotFoundError):
        return Result(MISCONFIGURED, reason=f"{INCOMPLETE} no module {error.name}, {described(error)}")
    return Result(FAULT, reason=described(error), fault=error)


def out_of_resources(error: BaseException) -> bool:
    """Whether the host ran out of a resource that the delivery needed, as opposed to a fault in the program."""
    if isinstance(error, OSError):
        return error.errno in EXHAUSTED_ERRORS
    if isinstance(error, SystemError):
        return str(error) == _NO_REASON
    if not isinstance(error, ImportError):
        return False
    # The dynamic loader and similar libraries report only a text: that of strerror(3), or the loader's own.
    text = str(error)
    lacks_memory = _NOT_MAPPED in text and f"{_NOT_MAPPED}:" not in text  # another reason follows a colon
    return lacks_memory or any(os.strerror(number) in text for number in EXHAUSTED_ERRORS)


def folded(results: Sequence[Result]) -> Result:
    """Fold the results for the recipients of one call into one: pipe(8) takes a single status.

    Deferred takes precedence over stored, which is then a duplicate; there are both where the recipients are on several
    shards. Stored takes precedence over refused, so that no recipient's copy bounces after it was stored.
    """
    deferred = [result for result in results if result.outcome.code[0] == "4"]
    if deferred:
        reason = f"{len(deferred)} of {len(results)} recipients: {deferred[0].reason}"
        return deferred[0]._replace(reason=reason if len(results) > 1 else deferred[0].reason)
    refused = [result for result in results if result.outcome == UNKNOWN_RECIPIENT]
    stored = [result for result in results if result.outcome != UNKNOWN_RECIPIENT]
    if not stored:
        return refused[0]._replace(reason=_refused(refused, results))
    chosen = next((result for result in stored if result.outcome in NEWLY_STORED), stored[0])
    reasons = [_refused(refused, results)] if refused else []
    return chosen._replace(reason="; ".join([*reasons, *filter(None, [chosen.reason])]))


def _refused(refused: Sequence[Result], results: Sequence[Result]) -> str:
    return f"{len(refused)} of {len(results)} recipients have no live lease"


def described(error: BaseException) -> str:
    """Describe an error by its type and where it was raised, but not by its text, which may quote the message."""
    place = error.__traceback__
    while place and place.tb_next:
        place = place.tb_next
    where = f" at {place.tb_frame.f_globals.get('__name__')}:{place.tb_lineno}" if place else ""
    number = f" ({errno.errorcode.get(error.errno or 0, error.errno)})" if isinstance(error, OSError) else ""
    return f"{type(error).__name__}{number}{where}"
