"""Messages to be stored, built as the core builds them."""

from typing import Any

from pipehandler.mail.envelope import Envelope
from pipehandler.mail.identity import identify
from pipehandler.mail.parsed import ParsedMessage
from pipehandler.parse.message import PARSER_VERSION, parse
from pipehandler.store.ingest import IngestRequest

INGEST = """
SELECT recipient, delivery, message::text, duplicate
  FROM pipehandler.ingest(%s::jsonb, %s::jsonb, %s::text, %s::text, %b::bytea, %b::bytea, %b::bytea[])
"""
"""Call ingest with arbitrary arguments, for values that our handler never sends."""

MESSAGE = b"From: A <a@example.org>\nMessage-ID: <1@example.org>\nSubject: one\n\nbody\n"


def submission(
    raw: bytes = MESSAGE,
    *recipients: str,
    sender: str = "a@example.org",
    parsed: ParsedMessage | None = None,
    **changes: Any,
) -> IngestRequest:
    """`raw` for these recipients (default: user@example.com), parsed unless `parsed` is given."""
    made = IngestRequest(
        envelope=Envelope(sender, recipients or ("user@example.com",)),
        identity=identify(raw),
        parsed=parsed or parse(raw),
        raw=raw,
        received_at="2026-09-07T10:00:00+09:00",
        mail_host="mx.example.net",
        ingress="pipe",
        parser=PARSER_VERSION,
    )
    return made._replace(**changes)
