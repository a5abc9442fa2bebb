"""The largest share that one message can take of what is parsed: counts, and octets to store for each octet
received."""

import base64
from typing import Any

import pytest

from pipehandler.mail.parsed import ParsedMessage
from pipehandler.parse.limits import DEFAULT
from pipehandler.parse.message import PARSER_VERSION, parse
from pipehandler.store.view import view

OCTETS = 300_000
STORED = 8  # octets for each octet of the message, its bytes included
BESIDES = 4_000_000  # octets, for values with their own bound: addresses, parameters of attachments, references
DEFECTS = 101

CONTROLS = bytes(octet for octet in range(1, 32) if octet not in b"\t\n\r")
LISTS = (b"From", b"Sender", b"Reply-To", b"To", b"Cc", b"Bcc")
CHARSETS = (b"utf-8", b"windows-1252", b"shift_jis", b"us-ascii", b"utf-7", b"gb18030", b"iso-2022-jp")
TEXTS = (b"\x80", b"\xc1", b"\xff\xfe", b"<", b"&", b'"', b"a", CONTROLS, b"\0", b"\n", b"\xb1", b"> ")
MAILBOXES = (
    *(b"a@b,", b"<a@b>,", b"<a@b>", b"a@b ", b"a:b@c;", b",a", b"=?utf-8?q?a?= <a@b>,", b"(a)b@c,", b'"a"@b,', b"a ,"),
    *(b"<a@b> c@d ", b"a,(<a@b>),", b"=?utf-8?q?a=40b?=,", b"=?utf-8?q?a@b?= "),
)


def multipart(part: bytes, count: int) -> bytes:
    """So many equal parts."""
    return b"Content-Type: multipart/mixed; boundary=b\n\n" + (b"--b\n" + part + b"\n") * count + b"--b--\n"


def texts(octets: bytes, charset: bytes) -> dict[str, bytes]:
    """A body as text, as HTML, and as text with HTML, which fills both columns."""
    body = octets * (OCTETS // len(octets))
    plain, html = (b"Content-Type: text/%s; charset=%s\n\n" % (kind, charset) + body for kind in (b"plain", b"html"))
    beside = (
        b"Content-Type: multipart/mixed; boundary=b\n\n--b\n"
        + plain
        + b"\n--b\nContent-Type: text/html\n\n<p>x\n--b--\n"
    )
    return {"plain": plain, "html": html, "beside": beside}


def addresses(octets: bytes) -> dict[str, bytes]:
    """Address fields as long as they are read."""
    body = (octets * (DEFAULT.field_size // len(octets) + 1))[: DEFAULT.field_size]
    return {
        "each": b"".join(name + b": " + body + b"\n" for name in LISTS) + b"\nx",
        "many": (b"To: " + body + b"\n") * 2 + b"\nx",
    }


OTHERS = {
    "references": b"".join(
        name + b": " + b"<a>" * 40_000 + b"\n"
        for name in (b"Message-ID", b"References", b"In-Reply-To", b"List-Unsubscribe")
    )
    + b"\nx",
    "fields": b"a:\n" * (OCTETS // 3) + b"\nx",
    "parts": multipart(b"Content-Type: image/gif\n\nx", OCTETS // 31),
    "messages": multipart(b"Content-Type: message/rfc822\n\na: b\n\nx", 1_000),
    "parameters": multipart(
        b"Content-Type: image/gif" + b"".join(b";%c=x" % (97 + n) for n in range(26)) + b"\n\nx", 1_000
    ),
    "names": multipart(b"Content-Type: image/gif; name=" + CONTROLS * 15 + b"\n\nx", 1_000),
    "uuencoded": b"\n" + b"begin 644 x\n#YWJ\n`\nend\n" * (OCTETS // 23),
    "base64": b"Content-Type: image/gif\nContent-Transfer-Encoding: base64\n\n" + base64.encodebytes(b"x" * OCTETS),
    "nothing": b"\n",
}


def octets(value: Any) -> int:
    """The octets of an argument of the statement that stores a message."""
    if isinstance(value, list):
        return sum(map(octets, value))
    return len(value.encode() if isinstance(value, str) else value) if isinstance(value, str | bytes) else 8


def bounded(raw: bytes) -> ParsedMessage:
    """Parse, and compare every count with its bound, and all that is stored with the size."""
    parsed = parse(raw)
    assert parsed.error is None
    lists = (parsed.from_, parsed.sender, parsed.reply_to, parsed.to, parsed.cc, parsed.bcc)
    assert max(map(len, lists)) <= DEFAULT.addresses
    assert len(parsed.attachments) <= DEFAULT.parts
    assert len(parsed.header) <= DEFAULT.fields
    assert len(parsed.defects) <= DEFECTS
    for ids in (parsed.references, parsed.in_reply_to, parsed.list_unsubscribe):
        assert len(ids) <= DEFAULT.field_size // 3
    stored = len(raw) + sum(map(octets, view(parsed, PARSER_VERSION, True)))
    assert stored <= STORED * len(raw) + BESIDES
    return parsed


@pytest.mark.parametrize("charset", CHARSETS)
@pytest.mark.parametrize("text", TEXTS, ids=repr)
def test_texts(text: bytes, charset: bytes) -> None:
    """Whatever a body is made of."""
    for raw in texts(text, charset).values():
        bounded(raw)


@pytest.mark.parametrize("mailbox", MAILBOXES, ids=repr)
def test_addresses(mailbox: bytes) -> None:
    """Whatever an address list is made of; if more are found than are kept, a defect records it."""
    for raw in addresses(mailbox).values():
        parsed = bounded(raw)
        if len(parsed.to) == DEFAULT.addresses:
            assert "addresses-left-out" in {defect.code for defect in parsed.defects}


@pytest.mark.parametrize("kind", OTHERS)
def test_others(kind: str) -> None:
    """Fields, identifiers, parts and attachments of every kind."""
    bounded(OTHERS[kind])
