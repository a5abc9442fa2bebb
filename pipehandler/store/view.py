"""What was parsed, as the SQL functions pipehandler.ingest and pipehandler.reparse take it: one jsonb, and what is large.

JSON writes a control character in six octets (RFC 8259 7). Of an ordinary message that is nothing; a header of megabytes
of them would fill the memory of both sides. So what can be large travels as arrays of text, in which a character is
itself, and the server makes the same jsonb of it. It costs more for a small message, so only a wide one travels so.
"""

import json
from datetime import UTC
from hashlib import sha256
from typing import Any

from ..mail.parsed import Address, ParsedMessage

_WIDE = 1_000_000
"""Characters of header and names of attachments; Postfix leaves a tenth of that of a header (header_size_limit)."""

_JSON = "%s::jsonb"

_ARRAYS = """%s::jsonb || jsonb_build_object('header', to_jsonb(%s::text[]), 'attachments', (
    SELECT coalesce(jsonb_agg(to_jsonb(a)), '[]')
      FROM unnest(%s::integer[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::text[],
                  %s::text[], %s::text[], %s::jsonb[])
        AS a (ordinal, part, file_name, content_type, content_id, disposition, size, sha256, content_location,
              content_description, parameters)))"""


def expression(parsed: ParsedMessage) -> str:
    """The jsonb in SQL; its parameters are those that `view` returns first."""
    return _ARRAYS if _is_wide(parsed) else _JSON


def view(parsed: ParsedMessage, parser: str, with_contents: bool) -> list[Any]:
    """The parameters of `expression`, then the text, the HTML and the contents of the attachments.

    The names inside the jsonb are the columns of pipehandler.message and pipehandler.attachment.
    parser: the version of the parser. with_contents: False describes the attachments and leaves their contents out.
    """
    message: dict[str, Any] = {
        "message_id": parsed.message_id,
        "in_reply_to": parsed.in_reply_to,
        "reference_ids": parsed.references,
        # In UTC: PostgreSQL refuses a zone of 16 hours and more, which RFC 5322 3.3 allows.
        "date": parsed.date.astimezone(UTC).isoformat() if parsed.date else None,
        "date_offset": parsed.date_offset,
        "subject": parsed.subject,
        "from_list": _addresses(parsed.from_),
        "sender_list": _addresses(parsed.sender),
        "reply_to_list": _addresses(parsed.reply_to),
        "to_list": _addresses(parsed.to),
        "cc_list": _addresses(parsed.cc),
        "bcc_list": _addresses(parsed.bcc),
        "list_id": parsed.list_id,
        "list_unsubscribe": parsed.list_unsubscribe,
        "list_unsubscribe_post": parsed.list_unsubscribe_post,
        "auto_submitted": parsed.auto_submitted,
        "precedence": parsed.precedence,
        "text_from_html": parsed.text_from_html,
        "preview": parsed.preview,
        "report": parsed.report,
        "authentication": parsed.authentication,
        "error": parsed.error,
        "defects": [defect._asdict() for defect in parsed.defects],
        "parser": parser,
    }
    attachments = [
        {
            "ordinal": ordinal,
            "part": attachment.part,
            "file_name": attachment.file_name,
            "content_type": attachment.content_type,
            "content_id": attachment.content_id,
            "disposition": attachment.disposition,
            "size": len(attachment.content),
            "sha256": sha256(attachment.content).hexdigest(),
            "content_location": attachment.content_location,
            "content_description": attachment.content_description,
            "parameters": attachment.parameters,
        }
        for ordinal, attachment in enumerate(parsed.attachments, 1)
    ]
    arrays: list[list[Any]] = []
    if _is_wide(parsed):
        for each in attachments:
            each["parameters"] = json.dumps(each["parameters"], ensure_ascii=False)
        columns = zip(*(each.values() for each in attachments), strict=True) if attachments else [()] * 11
        arrays = [[list(field) for field in parsed.header], *map(list, columns)]
    else:
        message |= {"header": parsed.header, "attachments": attachments}
    contents = [attachment.content for attachment in parsed.attachments] if with_contents else []
    return [json.dumps(message, ensure_ascii=False), *arrays, parsed.text, parsed.html, contents or None]


def _is_wide(parsed: ParsedMessage) -> bool:
    names = (
        text
        for each in parsed.attachments
        for text in (
            *(each.file_name, each.content_id, each.disposition, each.content_location, each.content_description),
            *each.parameters.values(),
        )
        if text
    )
    return sum(len(body) for _, body in parsed.header) + sum(map(len, names)) > _WIDE


def _addresses(addresses: list[Address]) -> list[dict[str, str]]:
    return [address._asdict() for address in addresses]
