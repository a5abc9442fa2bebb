"""The outcome table: the one place where an exit status, an enhanced status code and the public text meet.

Every delivery ends in one of these. The line is what pipe(8) reads first: an enhanced status code (RFC 3463) that
begins the output wins over the exit status, so the class of the code and the status must say the same (2 with 0,
4 with a status that defers, 5 with one that bounces). Postfix shows the line to the outside sender: it never holds a host
name, SQL, a path or anything of the message. What the operator needs beside it goes to the log.
"""

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
        """The line for pipe(8): the code, the text and, where something was stored, its id; no line end."""
        return f"{self.code} {self.text} {stored}".rstrip()


DELIVERED = Outcome("delivered", "2.0.0", "stored", EX_OK)
DUPLICATE = Outcome("duplicate", "2.0.0", "stored before", EX_OK)
QUARANTINED = Outcome("quarantined", "2.0.0", "stored, not parsed", EX_OK)

STORE_UNAVAILABLE = Outcome("store_unavailable", "4.3.0", "message store unavailable", EX_TEMPFAIL)
OUTAGE = Outcome("outage", "4.3.0", "message store unavailable", EX_TEMPFAIL)
"""The same without trying: the database was found down a moment ago."""
STORE_FULL = Outcome("store_full", "4.3.1", "message store full", EX_TEMPFAIL)
MISCONFIGURED = Outcome("misconfigured", "4.3.5", "mail system incorrectly configured", EX_TEMPFAIL)
DEADLINE = Outcome("deadline", "4.3.0", "delivery took too long", EX_TEMPFAIL)
CONGESTED = Outcome("congested", "4.4.5", "mail system congested", EX_TEMPFAIL)
TRUNCATED = Outcome("truncated", "4.3.0", "message truncated", EX_TEMPFAIL)
FAULT = Outcome("fault", "4.3.0", "internal fault", EX_TEMPFAIL)
EXHAUSTED = Outcome("exhausted", "4.3.0", "mail system out of resources", EX_OSERR)

# Only these two return mail to its sender, and only where the operator configured it.
UNKNOWN_RECIPIENT = Outcome("unknown_recipient", "5.1.1", "recipient unknown", EX_NOUSER)
TOO_LARGE = Outcome("too_large", "5.3.4", "message larger than this system accepts", EX_DATAERR)

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
)
"""All outcomes there are; the README shows the same table, and a test compares them."""


NEWS = frozenset({DELIVERED, QUARANTINED})
"""Those after which something is stored that was not there before."""


class Result(NamedTuple):
    """How one delivery ended. message: the id of what is stored, else "". reason and sqlstate: for the log alone.
    message_id: the Message-ID, as far as it is known. outage: the database would have failed any other message, too.
    fault: the exception that nobody foresaw, or that ended the parser."""

    outcome: Outcome
    message: str = ""
    reason: str = ""
    sqlstate: str = ""
    message_id: str | None = None
    outage: bool = False
    fault: BaseException | None = None

    @property
    def line(self) -> str:
        """The line for pipe(8)."""
        return self.outcome.line(self.message)
