"""PostgreSQL accepts whatever the parser returns: no value of a message can make it refuse the row."""

from datetime import UTC

from golden.write import FOLDER
from harness.database import Database
from harness.submission import submission

from pipehandler.parse.message import parse
from pipehandler.store.connection import Store

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
    "nul-in-uuencode": b"Content-Type: text/plain\n\nbegin 644 a\0b\n#0V%T\n`\nend\n",
}


def test_every_message_is_stored_as_parsed(every_database: Database) -> None:
    """Each message is stored as parsed, with the instant of its date, on every version of PostgreSQL."""
    database = every_database
    store, wrong = Store(database.conninfo), {}
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
