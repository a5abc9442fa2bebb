"""Messages on their way into the store, made as the core makes them."""

from dataclasses import replace
from typing import Any

from pipehandler.mail.envelope import Envelope
from pipehandler.mail.identity import identify
from pipehandler.mail.parsed import Document
from pipehandler.parse.message import PARSER_VERSION, parse
from pipehandler.store.submission import Submission

MESSAGE = b"From: A <a@example.org>\nMessage-ID: <1@example.org>\nSubject: one\n\nbody\n"


def submission(
    raw: bytes = MESSAGE,
    *recipients: str,
    sender: str = "a@example.org",
    document: Document | None = None,
    **changes: Any,
) -> Submission:
    """`raw` for these recipients (default: user@example.com), parsed unless a document is given."""
    made = Submission(
        envelope=Envelope(sender, recipients or ("user@example.com",)),
        identity=identify(raw),
        document=document or parse(raw),
        raw=raw,
        received_at="2026-09-07T10:00:00+09:00",
        mail_host="mx.example.net",
        ingress="pipe",
        parser=PARSER_VERSION,
    )
    return replace(made, **changes)
