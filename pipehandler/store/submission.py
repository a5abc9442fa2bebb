"""One message on its way into the store, and what the SQL function pipehandler.ingest is told of it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from typing import Any

from ..mail.envelope import Envelope
from ..mail.identity import Identity
from ..mail.parsed import Address, ParsedMessage
from ..settings.config import Recipients


@dataclass(frozen=True, slots=True)
class Submission:
    """One message on its way into the store: everything that pipehandler.ingest is told.

    `raw` is what was read; `received_at` an ISO 8601 time with zone; `parser` the version of the parser;
    `recipients` says which of the envelope's recipients are rejected.
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
    recipients: Recipients = field(default_factory=Recipients)

    def arguments(self) -> tuple[Any, ...]:
        """The arguments of pipehandler.ingest, in their order; the names inside the JSON are its columns."""
        envelope, parsed, identity = self.envelope, self.parsed, self.identity
        originals = envelope.original_recipients or (None,) * len(envelope.recipients)
        delivery = {
            "fingerprint": identity.fingerprint.hex(),
            "recipients": [
                {"recipient": recipient, "original_recipient": original}
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
        message = {
            "message_id": parsed.message_id,
            "in_reply_to": parsed.in_reply_to,
            "reference_ids": parsed.references,
            "date": parsed.date.isoformat() if parsed.date else None,
            "date_offset": parsed.date_offset,
            "subject": parsed.subject,
            "from_list": _addresses(parsed.from_),
            "sender_list": _addresses(parsed.sender),
            "reply_to_list": _addresses(parsed.reply_to),
            "to_list": _addresses(parsed.to),
            "cc_list": _addresses(parsed.cc),
            "bcc_list": _addresses(parsed.bcc),
            "list_id": parsed.list_id,
            "header": parsed.header,
            "authentication": parsed.authentication,
            "error": parsed.error,
            "defects": [asdict(defect) for defect in parsed.defects],
            "parser": self.parser,
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
                for ordinal, attachment in enumerate(parsed.attachments, 1)
            ],
        }
        contents = [attachment.content for attachment in parsed.attachments] if self.attachments else []
        return (
            json.dumps(delivery, ensure_ascii=False),
            json.dumps(message, ensure_ascii=False),
            parsed.text,
            parsed.html,
            self.raw[: identity.prepended] or None,
            self.raw[identity.prepended :],
            contents or None,
        )


def octets(arguments: Sequence[Any]) -> int:
    """How many octets the arguments of a call may have at the most, as UTF-8."""
    return sum(
        octets(each) if isinstance(each, list) else len(each) * (4 if isinstance(each, str) else 1)
        for each in arguments
        if each is not None
    )


def _addresses(addresses: list[Address]) -> list[dict[str, str]]:
    return [{"name": each.name, "address": each.address, "group": each.group} for each in addresses]
