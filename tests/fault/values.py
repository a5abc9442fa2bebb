"""Hostile values: each field of a message and of its envelope, in five sizes, filled with the worst case for some
function that reads it.

The fields of messages go through the core in this process, those of the envelope through the entrypoint and its argv,
or a worker. Each message is stored at the first attempt, parsed and exact to the octet, and its redelivery is a
duplicate: no statement timeout, no deferral.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

from harness import account
from harness.database import Database
from harness.handler import Ended

from . import core
from .injection import fresh_database
from .ledger import Ledger, Mode, Row, Scale
from .pool import Pool, pool
from .retried import count

_SIZES = (64, 1_000, 10_000, 100_000, 1_000_000)
_LONGEST_ARGUMENT = 131_000
"""Octets of one argument of a program (MAX_ARG_STRLEN, execve(2)); Postfix cannot pass more either."""

_ALPHABETS = {
    "a label": ("a@xn--", "a9", ".example"),
    "labels": ("a@", "xn--bcher-kva.", "example"),
    "marks": ("a", "\u0301\u0323", "@example.com"),
    "one that grows": ("a", "\ufdfa", "@example.com"),
    "capitals": ("A", "ǄΣẞİ", "@EXAMPLE.com"),
    "at signs": ("a", "@", "example.com"),
    "delimiters": ("a", "+", "@example.com"),
    "wildcards": ("a", "%_\\", "@example.com"),
    "quotes": ('"', '\\"', '"@example.com'),
    "comments": ("a", "(", "@example.com"),
    "groups": ("a:", "b@example.com,", ";"),
    "encoded-words": ("", "=?utf-8?q?=c3=a9?= ", "@example.com"),
    "open encoded-words": ("", "=?utf-8?b?w6", "@example.com"),
    "parameters": ("text/plain; a=b", ";a*0*=utf-8''%c3", "; charset=utf-8"),
    "SQL": ("", "'; DROP SCHEMA pipehandler CASCADE; --", "@example.com"),
    "JSON": ("", '\\u0000"}],{[', "@example.com"),
    "patterns": ("", "${1}$$%s{0}", "@example.com"),
    "lines": ("", "\u2028\u2029\x85\r", "@example.com"),
    "controls": ("", "\x01\x1b[2J\x7f", "@example.com"),
    "directions": ("", "\u202e\u2066\u200f\ufeff", "@example.com"),
    "astral": ("", "\U0001f4a9\U000e0041\U0010ffff", "@example.com"),
    "no UTF-8": ("", "\udcff\udc80\udcc3", "@example.com"),
    "surrogates": ("", "\udced\udca0\udcbd", "@example.com"),
    "digits": ("", "9", ""),
    "folds": ("", " \n\t", "@example.com"),
    "zeros": ("", "\0", "@example.com"),
}
"""The beginning of a value, its filling, and its end. \\udc80 to \\udcff stand for octets (PEP 383)."""

_FIELDS = (
    *("From", "Sender", "Reply-To", "To", "Cc", "Bcc", "Subject", "Date", "In-Reply-To", "References", "List-Id"),
    *("Content-Type", "Content-Disposition", "Content-Transfer-Encoding", "Content-ID", "Received", "Return-Path"),
    *("Delivered-To", "X-Original-To", "Authentication-Results", "Received-SPF", "Auto-Submitted", "Precedence"),
    *("List-Unsubscribe", "List-Unsubscribe-Post", "MIME-Version", "X-Spam-Status", "X-Anything", "Message-ID"),
)
_TEXTS = (
    *("sender", "original_recipient", "queue_id", "client_address", "client_hostname", "client_helo"),
    *("client_protocol", "sasl_username"),
)
_NUMBERS = ("size", "client_port")


class _Point(NamedTuple):
    """A field and its value."""

    field: str
    alphabet: str
    size: int

    @property
    def value(self) -> bytes:
        """About so many octets, with at most a few more."""
        first, middle, last = (each.encode("utf-8", "surrogateescape") for each in _ALPHABETS[self.alphabet])
        return first + middle * max(1, (self.size - len(first + last)) // len(middle)) + last

    def __str__(self) -> str:
        return f"{self.field} of {self.size:,} octets of {self.alphabet}"


def run(scale: Scale, mode: Mode) -> Row:
    """All fields with all values, or a sample of them."""
    row, ledger = mode.row("values"), Ledger()
    with fresh_database() as database:
        if mode is Mode.COLD:
            points = [_Point(*each) for each in _product((*_FIELDS, "a name", "a file name", "a text", "HTML"))]
            _through_the_core(points[::373] if scale.short else scale.thin(points, 400), database, row, ledger)
        points = [point for point in map(_Point._make, _product((*_TEXTS, "recipient", *_NUMBERS))) if _possible(point)]
        with pool(mode, row, 2) as handlers:
            chosen = points[:: 167 if mode is Mode.COLD else 401] if scale.short else scale.thin(points, 50)
            _through_the_entrypoint(chosen, database, handlers, row, ledger)
        ledger.check(database, row)
        for recipient, state, error in database.rows(
            "SELECT d.recipient, m.state, m.error FROM pipehandler.delivery d"
            " JOIN pipehandler.message m ON m.day = d.day AND m.id = d.message WHERE m.state <> 'parsed'"
        ):
            row.note(f"the message for {recipient[:40]} is {state}: {error}")
    return row


def _product(fields: tuple[str, ...]) -> Iterator[tuple[str, str, int]]:
    return ((field, alphabet, size) for field in fields for alphabet in _ALPHABETS for size in _SIZES)


def _possible(point: _Point) -> bool:
    """Whether pipe(8) could pass it: no NUL, no longer than an argument may be, and a number where one is required."""
    if point.field in _NUMBERS:
        return point.alphabet == "digits" and point.size <= 100_000
    return point.size <= 100_000 and point.alphabet != "zeros" and len(point.value) < _LONGEST_ARGUMENT


def _message(point: _Point, number: int) -> bytes:
    """A distinct message with this value."""
    value = point.value
    own = b"Message-ID: <%d@example.org>\nFrom: a@example.org\nSubject: %d\n" % (number, number)
    match point.field:
        case "a name":
            return value + b": x\n" + own + b"\n%d\n" % number
        case "a file name":
            mixed = own + b"MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\ntext\n--b\n"
            return mixed + b'Content-Type: a/b; name="%b"\n\nx\n--b--\n' % value
        case "a text":
            return own + b"\n" + value + b"\n"
        case "HTML":
            return own + b"Content-Type: text/html\n\n<p title='%b'>%b</p>\n" % (value, value)
        case field:
            return b"%b: %b\n" % (field.encode(), value) + own + b"\n%d\n" % number


def _through_the_core(points: Sequence[_Point], database: Database, row: Row, ledger: Ledger) -> None:
    """Deliver messages with hostile fields in this process."""
    with account.folder("pipehandler-") as folder, core.core(database, folder) as inside:
        for number, point in enumerate(points):
            raw, recipient = _message(point, number), f"core{number}@example.com"
            ledger.send(raw, recipient)

            def once(raw: bytes = raw, recipient: str = recipient) -> Ended:
                result = inside.deliver(raw, recipient)
                return Ended(result.outcome.status, f"{result.outcome.line(result.message)} {result.reason}")

            _twice(point, once, row)


def _through_the_entrypoint(
    points: Sequence[_Point], database: Database, handlers: Pool, row: Row, ledger: Ledger
) -> None:
    """Deliver messages with hostile envelopes by the entrypoint."""

    numbered = list(enumerate(points))

    def some(share: list[tuple[int, _Point]]) -> None:
        with handlers.handler(database.conninfo) as handler:
            for number, point in share:
                raw = b"Message-ID: <e%d@example.org>\nSubject: %d\n\n%d\n" % (number, number, number)
                recipient = f"envelope{number}@example.com"
                value = point.value.decode("utf-8", "surrogateescape")
                options = {} if point.field == "recipient" else {point.field: value}
                command = handler.command(value if point.field == "recipient" else recipient, **options)
                _twice(point, partial(handler.run, command, raw), row)
                if point.field == "recipient":  # a long one is shortened
                    recipient = _recipient(database, raw) or recipient
                ledger.send(raw, recipient)

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(some, (numbered[::2], numbered[1::2])))


def _recipient(database: Database, raw: bytes) -> str:
    """The recipient for whom a message is stored; "" if it is not stored."""
    statement = (
        "SELECT d.recipient FROM pipehandler.delivery d"
        " JOIN pipehandler.raw_message r ON r.day = d.day AND r.message = d.message"
        " WHERE r.raw = %s"
    )
    return next((str(found.recipient) for found in database.rows(statement, raw)), "")


def _twice(point: _Point, deliver: Callable[[], Ended], row: Row) -> None:
    """Deliver twice."""
    row.points += 1
    first, again = deliver(), deliver()
    for ended in (first, again):
        count(ended, str(point), row)
    if not first.output.startswith("2.0.0 stored "):
        row.note(f"{first} with {point}")
    if not again.output.startswith("2.0.0 stored before "):
        row.note(f"{first} with {point}, and then {again}")
