"""PostgreSQL accepts whatever the parser returns: no value of a message can make it refuse the row."""

import base64
import itertools
from collections.abc import Callable
from datetime import UTC
from urllib.parse import quote_from_bytes

from golden.write import FOLDER
from harness.database import Database
from harness.submission import submission
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipehandler.parse.message import parse
from pipehandler.store.message_store import MessageStore

NAMES = sorted(path.stem for path in FOLDER.glob("*.eml"))
EXTREMES = {
    "zone-plus-1600": b"Date: Tue, 03 Mar 2026 10:00:00 +1600\n\nx",
    "zone-plus-9959": b"Date: Fri, 01 Jan 1900 00:00:00 +9959\n\nx",
    "zone-minus-9959": b"Date: Thu, 31 Dec 2099 23:59:60 -9959\n\nx",
    "zone-minus-9999": b"Date: Thu, 31 Dec 2099 23:59:59 -9999\n\nx",
    "long-values": b"Message-ID: <%b@x>\nFrom: %b@x\nSubject: %b\nList-ID: <%b>\nReferences: <%b>\n\nx"
    % tuple(bytes(97 + (n * n * 7919 + 31 * n) % 26 for n in range(start, start + 90_000)) for start in range(5)),
    "nul-everywhere": b"Subject: =?utf-8?q?=00=ED=A0=80?=\nFrom: =?utf-8?q?=00?= <a\0@x>\nContent-Type: text/plain; name*=%00\n"
    b"Content-ID: <\0>\nContent-Location: \0\nContent-Disposition: attachment\0; filename=\0\n\n\0",
    "nul-in-new-fields": b"Auto-Submitted: \0\nPrecedence: =?utf-8?q?=00=ED=A0=80?=\nList-Unsubscribe: <a:\0>, <\0:b>\n"
    b"List-Unsubscribe-Post: \0\nList-Id: \0\nContent-Type: a/b; \0=\0; *0*=\0; c*=x'y'%00%ED%A0%80\nContent-Description: \0\n\n",
    "nul-in-html": b"Content-Type: text/html\n\n\0<p \0='\0'>&#0;&#xD800;&#x110000;\0<a href='https://\0'>\0</a>",
    "nul-in-report": b"Content-Type: message/delivery-status\n\nReporting-MTA: \0\n\nFinal-Recipient: utf-8; \\x{00}\\x{D800}\n"
    b"Diagnostic-Code: \0\xff\nArrival-Date: Fri, 31 Dec 9999 23:59:59 -9959\nWill-Retry-Until: 1 Jan 0001 00:00 +9959\n",
    "nul-in-complaint": b"Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/feedback-report\n\n"
    b"Feedback-Type: \0\nOriginal-Rcpt-To: \0\nOriginal-Message-ID: \0\n--b\nContent-Type: message/rfc822\n\nMessage-ID: <\0\xff>\n--b--\n",
    "many-parameters": b"Content-Type: a/b" + b"".join(b"; %d=%b" % (n, b"x" * n) for n in range(300)) + b"\n\n",
    "long-parameters": b"Content-Type: multipart/mixed; boundary=b\n\n"
    + b"".join(
        b'--b\nContent-Type: a/b; x="%b"\nContent-Description: %b\n\n' % ((b"\xff" * 90_000,) * 2) for _ in range(20)
    ),
    "long-report": b"Content-Type: message/delivery-status\n\nA: b\n\n"
    + b"".join(b"Final-Recipient: rfc822; %b\nDiagnostic-Code: %b\n\n" % ((b"\xfc" * 100,) * 2) for _ in range(3_000)),
    "long-html": b"Content-Type: text/html\n\n" + b"<blockquote>" * 9 + b"<p>\xc3\xbc<li>" * 40_000,
    "long-unsubscribe": b"List-Unsubscribe: "
    + b"<https://x/%b>," % (b"y" * 4_000) * 25
    + b"\nAuto-Submitted: "
    + b"z" * 90_000
    + b"\n\n",
    "nul-in-tnef": b"Content-Type: application/ms-tnef\n\n\x78\x9f\x3e\x22\1\0\1\x0c\x80\6\0\3\0\0\0a\0b\xc3\0",
    "nul-in-guessed-fields": b"From: <=?utf-8?q?=00@=ED=A0=80?=>\nTo: [\0@\0], '\0@x', \0 at \0.\0, <\0:;>, \0@\0 <>\n"
    b"Date: Thu, 31 Dec 2099 24:00:00 -9959\nList-Id: =?utf-8?q?=3C=00=3E?=\nContent-Transfer-Encoding: base64\n"
    b"Content-Disposition: filename=\0; \0.\0; name=utf-8''%00%ED%A0%80\n\n\0 is not base64, \0\n",
    "nul-in-uuencode": b"Content-Type: text/plain\n\nbegin 644 a\0b\n#0V%T\n`\nend\n",
}

NUMBERS = itertools.count()
FIELDS = (
    b"Message-ID In-Reply-To References Date Subject From Sender Reply-To To Cc Bcc List-Id List-Unsubscribe"
    b" List-Unsubscribe-Post Auto-Submitted Precedence Authentication-Results Content-Type Content-Disposition"
    b" Content-ID Content-Location Content-Description Content-Transfer-Encoding X-Other"
).split()
REPORTED = b"Reporting-MTA Final-Recipient Action Status Diagnostic-Code Arrival-Date Original-Message-ID Feedback-Type".split()
# What a type of PostgreSQL or a JSON text may refuse: NUL, surrogates, no characters, and numbers and times out of range.
OCTETS = st.binary(max_size=40) | st.sampled_from([
    b"\0", b"\xed\xa0\x80", b"\xed\xb0\x80x", b"\xef\xbf\xbf", b"\xf4\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\\u0000", b"\\", b'"',
    b"{NULL}", b"9" * 40, b"-1e400", b"NaN", b"infinity", b"x" * 9_000, "\u00fc".encode() * 3_000,
])  # fmt: skip
DATES = st.builds(
    b"%d %b %d %d:%02d:%02d %b".__mod__,
    st.tuples(
        st.integers(0, 32), st.sampled_from([b"Jan", b"Feb", b"Dec"]), st.integers(0, 10_000), st.integers(0, 25),
        st.integers(0, 61), st.integers(0, 61), st.sampled_from([b"+9959", b"-9959", b"+2400", b"-1600", b"Z", b"", b"+0060"]),
    ),
)  # fmt: skip
WRITTEN: dict[str, Callable[[bytes], bytes]] = {
    "as it is": lambda octets: octets,
    "as a word": lambda octets: b"=?utf-8?b?%b?=" % base64.b64encode(octets),
    "in UTF-16": lambda octets: b"=?utf-16?b?%b?=" % base64.b64encode(octets),
    "as an address": lambda octets: b'"%b" <%b@%b>' % (octets, octets, octets),
    "as identifiers": lambda octets: b"<%b> <%b@x>, <https://%b>" % (octets, octets, octets),
    "as a parameter": lambda octets: b"text/x; %b=y; name*=utf-8''%b" % (octets, quote_from_bytes(octets).encode()),
}
VALUES = st.builds(lambda octets, how: WRITTEN[how](octets), OCTETS, st.sampled_from(list(WRITTEN))) | DATES


def header(names: list[bytes]) -> st.SearchStrategy[bytes]:
    """A header of some of these fields, with extreme values."""
    field = st.builds(b"%b: %b\n".__mod__, st.tuples(st.sampled_from(names), VALUES))
    return st.lists(field, max_size=12).map(b"".join)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(header(FIELDS), header(FIELDS), header(REPORTED), OCTETS)
def test_no_value_is_refused(every_database: Database, top: bytes, part: bytes, report: bytes, text: bytes) -> None:
    """Whatever a field of a message, of a part and of a report contains, the message is stored, parsed."""
    raw = top + b"Content-Type: multipart/report; boundary=b\n\n"
    raw += b"--b\n%b\n%b\n--b\nContent-Type: message/delivery-status\n\n%b\n%b\n--b--\n" % (part, text, report, report)
    store = MessageStore(every_database.conninfo)
    try:
        (stored,) = store.ingest(submission(raw, f"{next(NUMBERS)}@example.com", parsed=parse(raw)))
    finally:
        store.close()
    assert every_database.value("SELECT state FROM pipehandler.message WHERE id = %s", stored.message) == "parsed"


def test_every_message_is_stored_as_parsed(every_database: Database) -> None:
    """Each message is stored as parsed, with the instant of its date, on every version of PostgreSQL."""
    database = every_database
    store, wrong = MessageStore(database.conninfo), {}
    try:
        for name in [*NAMES, *EXTREMES]:
            raw = EXTREMES[name] if name in EXTREMES else (FOLDER / f"{name}.eml").read_bytes()
            parsed = parse(raw)
            (stored,) = store.ingest(submission(raw, f"{name}@example.com", parsed=parsed))
            row = database.rows(
                "SELECT state, date AT TIME ZONE 'UTC', date_offset FROM pipehandler.message WHERE id = %s",
                stored.message,
            )
            date = parsed.date.astimezone(UTC).replace(tzinfo=None) if parsed.date else None
            if row != [("parsed", date, parsed.date_offset)]:
                wrong[name] = row
    finally:
        store.close()
    assert not wrong
