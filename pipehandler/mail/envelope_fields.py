"""Read and write the envelope in a message file: the fields that Postfix prepends (local(8), virtual(8)).

    Return-Path: <SENDER>            the reverse-path, <> for the null sender (RFC 5321 4.4)
    X-Original-To: RECIPIENT         before aliasing
    Delivered-To: RECIPIENT

Addresses are in their external form here, with a local part in quotes where it needs them (RFC 5321 4.1.2); elsewhere
they are in their internal form. These fields are not part of a message's identity (identity.py), so a message that is
written with them and read again is the same message.
"""

import re
from typing import NamedTuple

from .identity import prepended

_FIELD = re.compile(rb"^(Return-Path|X-Original-To|Delivered-To):(.*(?:\n[ \t].*)*)", re.IGNORECASE | re.MULTILINE)
_MBOX_LINE = re.compile(rb"From [^\n]*\n")
_ATOMS = re.compile(r"[^\x00-\x20\x7f()<>\[\]:;@\\,.\"]+(\.[^\x00-\x20\x7f()<>\[\]:;@\\,.\"]+)*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)


class EnvelopeFields(NamedTuple):
    """The envelope from these fields, addresses in their internal form; None for a missing field."""

    sender: str | None = None
    original_recipient: str | None = None
    recipient: str | None = None


_NAMES = {"sender": b"Return-Path", "original_recipient": b"X-Original-To", "recipient": b"Delivered-To"}


def read_fields(raw: bytes) -> EnvelopeFields:
    """Read the fields at the very top of `raw`. Of several with the same name the topmost counts: it is the latest."""
    found: dict[bytes, str] = {}
    for field in _FIELD.finditer(raw, 0, prepended(raw)):
        body = re.sub(rb"\r?\n|\r\Z", b"", field[2]).strip(b" \t")
        found.setdefault(field[1].lower(), _internal(body.decode("utf-8", "backslashreplace")))
    return EnvelopeFields(**{name: found.get(field.lower()) for name, field in _NAMES.items()})


def with_fields(kept: bytes, raw: bytes, wanted: EnvelopeFields) -> bytes | None:
    """Return `raw` with fields above it that express `wanted`. `kept`: what was prepended on delivery, which is kept.

    None if no fields can express it: `raw` begins like the continuation of a field, or an address contains a line end.
    """
    mbox_line = _MBOX_LINE.match(kept)  # it would turn the file into an mbox
    kept = kept[mbox_line.end() if mbox_line else 0 :]
    present = read_fields(kept)
    line_end = b"\r\n" if raw.partition(b"\n")[0].endswith(b"\r") else b"\n"
    head = b""
    for name, field in _NAMES.items():
        address = getattr(wanted, name)
        if address is not None and address != getattr(present, name):
            text = _external(address)
            if name == "sender" or text.endswith((" ", "\t")):  # a blank at the end of a field would be lost
                text = f"<{text}>"
            head += field + b": " + text.encode() + line_end
    head += kept
    whole = head + raw
    written = read_fields(whole)
    same = all(address in (None, getattr(written, name)) for name, address in wanted._asdict().items())
    return whole if same and prepended(whole) == len(head) else None


def _external(address: str) -> str:
    local, at, domain = address.rpartition("@")
    if not at:
        local, domain = domain, ""
    if local and not _ATOMS.fullmatch(local):
        local = '"' + re.sub(r'(["\\])', r"\\\1", local) + '"'
    return local + at + domain


def _internal(address: str) -> str:
    if address.startswith("<") and address.endswith(">"):
        address = address[1:-1]
    quoted = _QUOTED.match(address)
    if not quoted:
        return address
    return re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL) + address[quoted.end() :]
