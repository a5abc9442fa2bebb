"""What the parser finds, PostgreSQL takes: no value of a message can make it refuse the row."""

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
    "nul-in-tnef": b"Content-Type: application/ms-tnef\n\n\x78\x9f\x3e\x22\1\0\1\x0c\x80\6\0\3\0\0\0a\0b\xc3\0",
    "nul-in-uuencode": b"Content-Type: text/plain\n\nbegin 644 a\0b\n#0V%T\n`\nend\n",
}


def test_every_message_is_stored_as_parsed(database: Database) -> None:
    """Each is stored, as parsed, with the instant of its date."""
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
