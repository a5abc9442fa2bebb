"""The store: PostgreSQL, and the only module that knows psycopg.

One message is one call of the SQL function pipehandler.ingest, sent in autocommit mode: one round trip, one transaction.
`Store.ingest` returns only after the server said that it is ready for the next query, which it says after the commit.
Everything that goes wrong leaves as a StoreError with the outcome that it means; psycopg's errors are translated
here, once. Default: temporary. An uncertain commit (the connection ends before the answer) is a temporary failure, never
a success: the redelivery finds its own row and is a duplicate.
"""

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, NamedTuple

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from psycopg.rows import dict_row

from .document import Address, Document
from .envelope import Envelope
from .fingerprint import Identity
from .outcome import MISCONFIGURED, STORE_FULL, STORE_UNAVAILABLE, Outcome

_TRIES = 3
_AGAIN = frozenset({"40001", "40P01", "55P03"})  # serialization_failure, deadlock_detected, lock_not_available
_DATA_CLASSES = frozenset({"22", "54", "0A"})  # data exception, program limit exceeded, feature not supported
_DATA = frozenset({"23502", "23514"})  # not_null_violation, check_violation
_NO_TEXT = "22021"  # character_not_in_repertoire; here also for what psycopg refuses before the server can
_TOO_LARGE = "54000"  # program_limit_exceeded
_LARGEST = 1_070_000_000  # octets in one message of the protocol, for which a server ends the session from 1 GB on
_DISK_FULL = "53100"
_QUERY_CANCELED = "57014"  # statement_timeout

_INGEST = """
SELECT recipient, delivery, message::text, duplicate
  FROM pipehandler.ingest(%s::jsonb, %s::jsonb, %s::text, %s::text, %b::bytea, %b::bytea, %b::bytea[])
"""


class StoreError(Exception):
    """The store did not take the message. `outcome` is what it means for the delivery, `sqlstate` the server's code or
    "", and the text a reason for the log without content of the message."""

    def __init__(self, outcome: Outcome, reason: str, sqlstate: str = "") -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.sqlstate = sqlstate

    @property
    def outage(self) -> bool:
        """Whether the database would fail any other message, too: not so where a lock or the time was the reason."""
        return self.outcome in (STORE_UNAVAILABLE, STORE_FULL) and self.sqlstate not in (*_AGAIN, _QUERY_CANCELED)


class DataRefused(StoreError):
    """The server refused the data itself and will refuse it again: store the bytes without what was read from them."""


class Stored(NamedTuple):
    """What happened for one recipient: the ids of its delivery and message, and whether they were there before."""

    recipient: str
    delivery: int
    message: str
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Submission:
    """One message on its way into the store: everything that pipehandler.ingest is told.

    `raw` is what was read; `received_at` an ISO 8601 time with zone; `parser` the version that made the document.
    """

    envelope: Envelope
    identity: Identity
    document: Document
    raw: bytes
    received_at: str
    mail_host: str
    ingress: str
    parser: str
    attachments: bool = True


class Store:
    """One connection to the store, opened when it is first needed.

    `remaining` tells how many seconds of the delivery are left; the timeouts (seconds) are cut down to that.
    Raises StoreError from every method.
    """

    def __init__(
        self,
        conninfo: str,
        connect_timeout: int = 5,
        statement_timeout: int = 20,
        remaining: Callable[[], float] = lambda: float("inf"),
    ) -> None:
        self._conninfo = conninfo
        self._connect_timeout = connect_timeout
        self._statement_timeout = statement_timeout
        self._remaining = remaining
        self._connection: psycopg.Connection[Any] | None = None

    def connect(self) -> psycopg.Connection[Any]:
        """The open connection, in autocommit mode; opened if there is none."""
        if self._connection is None or self._connection.closed:
            # The server gives up a little before we do, so that the failure has a name.
            statement = 1000 * max(1.0, min(self._statement_timeout, self._remaining() - 1))
            options = f"-c statement_timeout={statement:.0f} -c lock_timeout={statement / 2:.0f}"
            with _translated():
                parameters = _parameters(self._conninfo)
                parameters["options"] = f"{parameters.get('options') or ''} {options}".strip()
                parameters.setdefault("application_name", "pipehandler")
                parameters["connect_timeout"] = int(max(2, min(self._connect_timeout, self._remaining())))
                self._connection = psycopg.connect(
                    autocommit=True, client_encoding="utf8", prepare_threshold=None, **parameters
                )
        return self._connection

    def close(self) -> None:
        """Close the connection, if there is one; never raises."""
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.close()
            self._connection = None

    def ingest(self, submission: Submission) -> list[Stored]:
        """Store one message for its recipients, all or nothing: THE COMMIT POINT.

        Returns what happened for each recipient, after the transaction was committed. Raises DataRefused where the
        server refuses the decoded view, StoreError otherwise; after either nothing was stored, or it is not known.
        """
        arguments = _arguments(submission)
        if _octets(arguments) > _LARGEST:
            raise DataRefused(STORE_UNAVAILABLE, "the data was refused (larger than the protocol allows)", _TOO_LARGE)
        for attempt in range(1, _TRIES + 1):
            try:
                return self._ingest(arguments, wanted=len(set(submission.envelope.recipients)))
            except StoreError as error:
                pause = random.uniform(0.02, 0.2) * attempt  # noqa: S311 # jitter is no secret
                if error.sqlstate not in _AGAIN or attempt == _TRIES or pause > self._remaining():
                    raise
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _ingest(self, arguments: Sequence[Any], wanted: int) -> list[Stored]:
        connection = self.connect()
        with _translated():
            rows = [Stored(*row) for row in connection.execute(_INGEST, arguments)]
        if connection.info.transaction_status != TransactionStatus.IDLE:
            raise StoreError(STORE_UNAVAILABLE, "the server did not confirm the commit")
        if len(rows) != wanted:
            raise StoreError(STORE_UNAVAILABLE, "a delivery was removed while it came again", "40001")
        return rows

    def rows(self, statement: str, parameters: Sequence[Any] | dict[str, Any] = ()) -> list[dict[str, Any]]:
        """The rows that `statement` (one of ours, never built from input) returns, each as a dict."""
        with _translated():
            cursor = self.connect().cursor(row_factory=dict_row)
            return cursor.execute(statement, parameters).fetchall()

    def script(self, statements: str) -> None:
        """Run several statements of ours, separated by semicolons, without parameters."""
        with _translated():
            self.connect().execute(statements)


def _parameters(conninfo: str) -> dict[str, Any]:
    try:
        return dict(conninfo_to_dict(conninfo))
    except psycopg.ProgrammingError as error:
        raise StoreError(MISCONFIGURED, f"database.conninfo is no libpq connection string: {error}") from error


def _arguments(submission: Submission) -> tuple[Any, ...]:
    """The arguments of pipehandler.ingest; the names inside the JSON are its columns."""
    envelope, document, identity = submission.envelope, submission.document, submission.identity
    originals = envelope.original_recipients or (None,) * len(envelope.recipients)
    delivery = {
        "fingerprint": identity.fingerprint.hex(),
        "recipients": [
            {"recipient": recipient, "original_recipient": original}
            for recipient, original in zip(envelope.recipients, originals, strict=True)
        ],
        "sender": envelope.sender,
        "queue_id": envelope.queue_id or None,
        "mail_host": submission.mail_host,
        "ingress": submission.ingress,
        "client_address": envelope.client_address,
        "client_hostname": envelope.client_hostname or None,
        "client_helo": envelope.client_helo or None,
        "client_port": envelope.client_port,
        "client_protocol": envelope.client_protocol or None,
        "sasl_username": envelope.sasl_username or None,
        "received_at": submission.received_at,
    }
    message = {
        "message_id": document.message_id,
        "in_reply_to": document.in_reply_to,
        "reference_ids": document.references,
        "date": document.date.isoformat() if document.date else None,
        "date_offset": document.date_offset,
        "subject": document.subject,
        "from_list": _addresses(document.from_),
        "sender_list": _addresses(document.sender),
        "reply_to_list": _addresses(document.reply_to),
        "to_list": _addresses(document.to),
        "cc_list": _addresses(document.cc),
        "bcc_list": _addresses(document.bcc),
        "list_id": document.list_id,
        "header": document.header,
        "authentication": document.authentication,
        "error": document.error,
        "defects": [asdict(defect) for defect in document.defects],
        "parser": submission.parser,
        "attachments": [
            {
                "ordinal": ordinal,
                "part": attachment.part,
                "file_name": attachment.file_name,
                "content_type": attachment.content_type,
                "content_id": attachment.content_id,
                "disposition": attachment.disposition,
                "size": len(attachment.content),
                "sha256": sha256(attachment.content).hexdigest(),
            }
            for ordinal, attachment in enumerate(document.attachments, 1)
        ],
    }
    contents = [attachment.content for attachment in document.attachments] if submission.attachments else []
    return (
        json.dumps(delivery, ensure_ascii=False),
        json.dumps(message, ensure_ascii=False),
        document.text,
        document.html,
        submission.raw[: identity.prepended] or None,
        submission.raw[identity.prepended :],
        contents or None,
    )


def _octets(arguments: Sequence[Any]) -> int:
    """How many octets the arguments may have at the most, as UTF-8."""
    return sum(
        _octets(each) if isinstance(each, list) else len(each) * (4 if isinstance(each, str) else 1)
        for each in arguments
        if each is not None
    )


def _addresses(addresses: list[Address]) -> list[dict[str, str]]:
    return [{"name": each.name, "address": each.address, "group": each.group} for each in addresses]


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
