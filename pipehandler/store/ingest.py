"""One message on its way into the store, as the SQL function pipehandler.ingest takes it, and what that returns.

Values only: `MessageStore.ingest` makes the call.
"""

import json
from typing import Any, NamedTuple

from ..mail.envelope import Envelope
from ..mail.identity import Identity
from ..mail.outcome import STORE_UNAVAILABLE
from ..mail.parsed import ParsedMessage
from ..settings.config import Recipients
from .errors import PROGRAM_LIMIT_EXCEEDED, DataRefused
from .view import expression, view

_INGEST = """
SELECT recipient, delivery, message::text, duplicate
  FROM pipehandler.ingest(%s::jsonb, {parsed}, %s::text, %s::text, %b::bytea, %b::bytea, %b::bytea[])
"""

_LARGEST = 1_070_000_000
"""Octets of a statement's arguments. From 1 GB on the server ends the session instead of returning an error."""


class Stored(NamedTuple):
    """The result for one recipient that was not rejected.

    delivery:  the number of its delivery.
    message:   the UUID of the message.
    duplicate: whether that delivery was stored before.
    """

    recipient: str
    delivery: int
    message: str
    duplicate: bool


class IngestRequest(NamedTuple):
    """One message for the SQL function pipehandler.ingest.

    raw:         the octets that were read, with what Postfix prepended.
    received_at: an ISO 8601 time with zone.
    parser:      the version of the parser.
    attachments: whether the contents of attachments are stored.
    recipients:  which of the envelope's recipients are rejected.
    """

    envelope: Envelope
    identity: Identity
    parsed: ParsedMessage
    raw: bytes
    received_at: str
    mail_host: str
    ingress: str
    parser: str
    attachments: bool = True
    recipients: Recipients = Recipients()

    def statement(self) -> str:
        """The call; its parameters are `arguments`. It returns one row for each distinct recipient."""
        return _INGEST.format(parsed=expression(self.parsed))

    def arguments(self) -> tuple[Any, ...]:
        """The parameters of `statement`, in order. Raises DataRefused if they are larger than the protocol allows."""
        *parsed, contents = view(self.parsed, self.parser, self.attachments)
        prepended = self.identity.prepended
        arguments = (
            json.dumps(self._delivery(), ensure_ascii=False),
            *parsed,
            self.raw[:prepended] or None,
            self.raw[prepended:],
            contents,
        )
        check_size(*arguments)
        return arguments

    def _delivery(self) -> dict[str, Any]:
        """The envelope; the names are the columns of pipehandler.delivery."""
        envelope = self.envelope
        originals = envelope.original_recipients or (None,) * len(envelope.recipients)
        return {
            # By these names, a schema of the previous release goes on with version 1 until `migrate` has run.
            "fingerprint": self.identity.former_fingerprint.hex(),
            "fingerprint_2": self.identity.fingerprint.hex(),
            "recipients": [
                {"recipient": recipient, "original_recipient": original or None}
                for recipient, original in zip(envelope.recipients, originals, strict=True)
            ],
            "policy": self.recipients.policy,
            "expired": self.recipients.expired,
            "delimiter": self.recipients.delimiter,
            "sender": envelope.sender,
            "queue_id": envelope.queue_id or None,
            "mail_host": self.mail_host,
            "ingress": self.ingress,
            "client_address": envelope.client_address,
            "client_hostname": envelope.client_hostname or None,
            "client_helo": envelope.client_helo or None,
            "client_port": envelope.client_port,
            "client_protocol": envelope.client_protocol or None,
            "sasl_username": envelope.sasl_username or None,
            "received_at": self.received_at,
        }


def check_size(*arguments: Any) -> None:
    """Raise DataRefused for arguments that are too large for one statement."""
    if sum(map(_octets, arguments)) > _LARGEST:
        reason = "the data was refused (larger than the protocol allows)"
        raise DataRefused(STORE_UNAVAILABLE, reason, PROGRAM_LIMIT_EXCEEDED)


def _octets(argument: Any) -> int:
    """The octets of an argument, at most: a character has up to four in UTF-8."""
    if isinstance(argument, list):
        return sum(map(_octets, argument))
    if isinstance(argument, (str, bytes)):
        return len(argument) * (4 if isinstance(argument, str) else 1)
    return 8
