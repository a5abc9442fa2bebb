"""Read reports about another message: bounces, complaints and receipts.

That is delivery status notifications (RFC 3464, and RFC 6533 for addresses in UTF-8), complaints (RFC 5965) and
disposition notifications (RFC 8098). Only parts of their media types are read, anywhere in the message. All of the
contents may be forged.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from pipehandler.mail.parsed import Attachment

from . import date
from .charset import one_line, storable
from .decoding import decode
from .defect import Notebook

_TYPES = {
    "message/delivery-status": "delivery-status",
    "message/global-delivery-status": "delivery-status",
    "message/feedback-report": "feedback-report",
    "message/disposition-notification": "disposition-notification",
    "message/global-disposition-notification": "disposition-notification",
}
_ABOUT = frozenset(
    {"message/rfc822", "text/rfc822-headers", "message/rfc822-headers", "message/global", "message/global-headers"}
)  # the reported message, or its header: RFC 6522 3, RFC 6533 6

_SIZE = 262_144  # octets of a report that are read
_HEADER_SIZE = 65_536  # octets in which the Message-ID of the enclosed message must appear
_VALUE_SIZE = 2_000  # characters of one value
_RECIPIENTS = 1_000
_REPEATED = 100  # values of a field that may occur several times

_FIELD = re.compile(r"([!-9;-~]{1,100})[ \t]*:[ \t]*(.*)")
_END_OF_HEADER = re.compile(rb"\r?\n\r?\n")
_MESSAGE_ID = re.compile(rb"^message-id[ \t]*:\s{0,9}<?([^<>\s]{1,998})", re.IGNORECASE | re.MULTILINE)
_STATUS = re.compile(r"\b([245]\.\d{1,3}\.\d{1,3})\b")  # RFC 3463 2
_COMMENT = re.compile(r"\([^()]*\)")
_NAME = re.compile(r"\A([^;<]*;)?[^;<]*<([^<>]*)>.*")  # of a mailbox, before its address in angle brackets
_ESCAPED = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")  # RFC 6533 3: utf-8-addr-xtext

_PER_MESSAGE = ("reporting_mta", "original_envelope_id", "arrival_date", "received_from_mta", "dsn_gateway")
_PER_RECIPIENT = (
    "original_recipient", "final_recipient", "action", "status", "remote_mta", "diagnostic_code", "last_attempt_date",
    "final_log_id", "will_retry_until",
)  # fmt: skip
_FEEDBACK = (
    "feedback_type", "user_agent", "version", "original_envelope_id", "original_mail_from", "arrival_date",
    "received_date", "reporting_mta", "source_ip", "incidents", "auth_failure", "delivery_result",
)  # fmt: skip
_FEEDBACK_REPEATED = ("original_rcpt_to", "authentication_results", "reported_domain", "reported_uri")
_DISPOSITION = ("reporting_ua", "mdn_gateway", "original_recipient", "final_recipient", "disposition", "error")

_ADDRESSES = frozenset({"original_recipient", "final_recipient"})
_HOSTS = frozenset({"reporting_mta", "received_from_mta", "remote_mta", "dsn_gateway", "mdn_gateway"})
_DATES = frozenset({"arrival_date", "received_date", "last_attempt_date", "will_retry_until"})
_WORDS = frozenset({"action", "feedback_type", "auth_failure", "delivery_result"})
_IN_BRACKETS = frozenset({"original_mail_from", "original_rcpt_to"})


def read(attachments: Sequence[Attachment], notebook: Notebook) -> dict[str, Any] | None:
    """Return the contents of the first report among `attachments`; None if there is none. Never raises for content.

    The keys are field names in lower case with underscores; missing and empty fields are left out. "type" is one of the
    values of _TYPES, "recipients" the list of a delivery status notification, "original_message_id" the Message-ID in
    the report, or that of the enclosed message. Hosts and addresses are without their type (RFC 3464 2.1.2), dates are
    in ISO 8601 and UTC.
    """
    found = next((each for each in attachments if each.content_type in _TYPES), None)
    if found is None:
        return None
    if len(found.content) > _SIZE:
        notebook.note("report-left-out", found.part, f"{len(found.content)} octets")
    groups = _groups(found.content[:_SIZE])
    kind = _TYPES[found.content_type]
    report: dict[str, Any] = {"type": kind}
    if kind == "delivery-status":
        report |= _single(groups[0], _PER_MESSAGE)
        recipients = [each for group in groups if (each := _single(group, _PER_RECIPIENT))]
        if len(recipients) > _RECIPIENTS:
            notebook.note("report-left-out", found.part, f"{len(recipients)} recipients")
        report["recipients"] = recipients[:_RECIPIENTS]
    else:
        fields = [field for group in groups for field in group]
        report |= _single(fields, _FEEDBACK if kind == "feedback-report" else _DISPOSITION)
        report |= _repeated(fields, _FEEDBACK_REPEATED) if kind == "feedback-report" else {}
    about = _named(groups) or _enclosed(attachments)
    return report | ({"original_message_id": about} if about else {})


def _groups(content: bytes) -> list[list[tuple[str, str]]]:
    """Return the groups of fields in a report, each field as (key, body).

    A blank line begins a new group (RFC 3464 2.1); so does a second recipient if the blank line is missing.
    """
    groups: list[list[tuple[str, str]]] = [[]]
    seen: set[str] = set()
    for line in _unfolded(decode(content).text):
        if not line.strip():
            if groups[-1]:
                groups.append([])
                seen.clear()
        elif match := _FIELD.match(line):
            name = match[1].lower().replace("-", "_")
            if name in _PER_RECIPIENT and name in seen:
                groups.append([])
                seen.clear()
            seen.add(name)
            groups[-1].append((name, match[2]))
    return groups


def _unfolded(text: str) -> Iterator[str]:
    parts: list[str] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        if line[:1] in (" ", "\t") and line.strip() and parts:
            parts.append(line.strip())
            continue
        if parts:
            yield " ".join(parts)
        parts = [line.rstrip()]
    yield " ".join(parts)


def _single(fields: Sequence[tuple[str, str]], names: Sequence[str]) -> dict[str, Any]:
    """Return the first nonempty field of each of these names."""
    found: dict[str, Any] = {}
    for name, body in fields:
        if name in names and name not in found and (value := _value(name, body)):
            found[name] = value
    return found


def _repeated(fields: Sequence[tuple[str, str]], names: Sequence[str]) -> dict[str, Any]:
    found = {name: [value for key, body in fields if key == name and (value := _value(name, body))] for name in names}
    return {name: values[:_REPEATED] for name, values in found.items() if values}


def _value(name: str, body: str) -> str | None:
    """Return the value of one field as it is stored; None or "" if it has none."""
    text = storable(one_line(body[:_VALUE_SIZE]).strip())
    if name in _DATES:
        found = date.read(text)
        return found.instant.isoformat() if found else None
    if name == "status":
        status = _STATUS.search(text)
        return status[1] if status else None
    if name in _WORDS:
        words = _COMMENT.sub(" ", text).lower().split()
        return words[0] if words else None
    if name in _IN_BRACKETS:
        return text.strip("<> ")
    if name in _HOSTS or name in _ADDRESSES:
        if name in _ADDRESSES:
            text = _COMMENT.sub(" ", _NAME.sub(r"\1\2", text)).strip()
        kind, semicolon, value = text.partition(";")
        if not semicolon:
            return text.strip("<> ")
        if kind.strip().lower() == "utf-8":
            value = storable(one_line(_ESCAPED.sub(_unescaped, value)))
        return value.strip().strip("<>")
    return text


def _unescaped(match: re.Match[str]) -> str:
    code = int(match[1], 16)
    return chr(code) if code < 0x110000 else match[0]


def _named(groups: Sequence[Sequence[tuple[str, str]]]) -> str | None:
    """Return the Message-ID given in the report itself (RFC 8098 3.2.5; some complaints have it as well)."""
    for group in groups:
        for name, body in group:
            if name == "original_message_id" and (value := storable(one_line(body[:998])).strip("<> ")):
                return value
    return None


def _enclosed(attachments: Sequence[Attachment]) -> str | None:
    """Return the Message-ID of the enclosed message."""
    for each in attachments:
        if each.content_type in _ABOUT:
            beginning = each.content[:_HEADER_SIZE]
            end = _END_OF_HEADER.search(beginning)
            if found := _MESSAGE_ID.search(beginning[: end.start()] if end else beginning):
                return storable(found[1].decode("utf-8", "replace"))
    return None
