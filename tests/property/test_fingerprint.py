"""Identity: the fingerprint is equal exactly for what counts as the same delivery, the message id for the same bytes."""

import hashlib
import re
import subprocess
import sys
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipehandler.mail.identity import identify

NAMED = (b"message-id", b"date", b"from", b"to", b"cc", b"subject")
PREPENDED = (b"return-path:", b"x-original-to:", b"delivered-to:")

MESSAGE = (
    b"Received: from mx.example.org by mx.example.net; Mon, 7 Sep 2026 10:00:00 +0900\n"
    b"Message-ID: <1@example.org>\n"
    b"Date: Mon, 7 Sep 2026 09:59:59 +0900\n"
    b"From: A <a@example.org>\n"
    b"To: b@example.com\n"
    b"Cc: c@example.com\n"
    b"Subject: =?utf-8?B?7Jyg?= one two\n"
    b"X-Other: x\n"
    b"\n"
    b"Body\n"
    b" \n"
    b"\n"
    b"end\n"
)
NAMELESS = MESSAGE.replace(b"Message-ID: <1@example.org>\n", b"")


def fingerprint(raw: bytes) -> bytes:
    """The fingerprint of `raw`."""
    return identify(raw).fingerprint


SAME = {
    "another Received": MESSAGE.replace(b"10:00:00", b"10:05:00"),
    "one Received more": b"Received: by backup.example.net\n\tid 1\n" + MESSAGE,
    "no Received": MESSAGE.partition(b"\n")[2],
    "mbox line": b"From a@example.org  Mon Sep  7 10:00:00 2026\n" + MESSAGE,
    "prepended fields": b"Return-Path: <a@example.org>\nX-Original-To: b@example.com\nDelivered-To:\n b\n" + MESSAGE,
    "such fields further down": MESSAGE.replace(b"\nDate:", b"\nDelivered-To: x\nreturn-path: <y>\nDate:"),
    "another field": MESSAGE.replace(b"X-Other: x", b"X-Other: y\nDKIM-Signature: z"),
    "refolded field": MESSAGE.replace(b"one two", b"one\n two"),
    "field folded at its begin": MESSAGE.replace(b"Subject: ", b"Subject:\n "),
    "names in capitals": MESSAGE.replace(b"Subject:", b"SUBJECT :").replace(b"Message-ID", b"Message-Id"),
    "fields in another order": MESSAGE.replace(b"X-Other: x\n", b"").replace(b"\nTo:", b"\nX-Other: x\nTo:"),
    "CRLF": MESSAGE.replace(b"\n", b"\r\n"),
    "CRLF in the body only": MESSAGE.replace(b"Body\n", b"Body\r\n"),
    "empty lines at the end": MESSAGE + b"\n\n\n",
    "empty lines at the end, CRLF": MESSAGE.replace(b"\n", b"\r\n") + b"\r\n\r\n",
    "no line end at the end": MESSAGE.rstrip(b"\n"),
}
FIELDS = ("Message-ID", "Date", "From", "To", "Cc", "Subject")
OTHER = {
    **{f"another {name}": MESSAGE.replace(f"\n{name}: ".encode(), f"\n{name}: x".encode()) for name in FIELDS},
    "a field that is missing": MESSAGE.replace(b"Cc: c@example.com\n", b""),
    "a field that is empty": MESSAGE.replace(b"Cc: c@example.com", b"Cc:"),
    "a field that is there twice": MESSAGE.replace(b"Cc: c@example.com\n", b"Cc: c@example.com\n" * 2),
    "To and Cc exchanged": MESSAGE.replace(b"\nTo:", b"\n:").replace(b"\nCc:", b"\nTo:").replace(b"\n:", b"\nCc:"),
    "a form feed in a field": MESSAGE.replace(b"one two", b"one two\f"),
    "one space in a field": MESSAGE.replace(b"one two", b"one  two"),
    "another body": MESSAGE.replace(b"end", b"End"),
    "a space at the end of a line": MESSAGE.replace(b"Body\n", b"Body \n"),
    "a space at the end": MESSAGE + b" ",
    "an empty line more before the body": MESSAGE.replace(b"\n\nBody", b"\n\n\nBody"),
    "no empty line before the body": MESSAGE.replace(b"\n\nBody", b"\nBody"),
    "a bare CR": MESSAGE.replace(b"Body\n", b"Body\r"),
    "a field moved into the body": MESSAGE.replace(
        b"Subject: =?utf-8?B?7Jyg?= one two\nX-Other: x\n\n", b"\nSubject: x\n\n"
    ),
    "a second Message-ID": MESSAGE.replace(b"\nDate:", b"\nMessage-ID: <2@example.org>\nDate:"),
    "no Message-ID": NAMELESS,
    "no header": b"\n" + MESSAGE,
    "nothing": b"",
}


@pytest.mark.parametrize("raw", SAME.values(), ids=SAME)
def test_same(raw: bytes) -> None:
    """What a second transmission, another mail host or a delivery agent changes leaves the fingerprint as it is."""
    assert fingerprint(raw) == fingerprint(MESSAGE)


@pytest.mark.parametrize("raw", OTHER.values(), ids=OTHER)
def test_other(raw: bytes) -> None:
    """What the sender changed is another message."""
    assert raw != MESSAGE
    assert fingerprint(raw) != fingerprint(MESSAGE)


def test_all_others_differ_from_each_other() -> None:
    """No two of these messages are taken for the same."""
    assert len({fingerprint(raw) for raw in OTHER.values()}) == len(OTHER)


@pytest.mark.parametrize(
    "raw",
    [
        NAMELESS,
        MESSAGE.replace(b"\nDate:", b"\nMessage-ID: <2@example.org>\nDate:"),
        MESSAGE.replace(b"\nDate:", b"\nMessage-ID: <1@example.org>\nDate:"),
        MESSAGE.replace(b" <1@example.org>", b""),
        MESSAGE.replace(b"<1@example.org>", b"<>"),
        b"no field at all\n" + MESSAGE,
    ],
    ids=["none", "two", "the same twice", "empty", "empty brackets", "in the body"],
)
def test_without_one_message_id_the_bytes_decide(raw: bytes) -> None:
    """Two transmissions without exactly one Message-ID are two messages: they differ in our own Received field."""
    assert fingerprint(raw) != fingerprint(raw.replace(b"10:00:00", b"10:05:00"))
    assert fingerprint(raw) == fingerprint(b"Return-Path: <x>\n" + raw.replace(b"\n", b"\r\n") + b"\r\n")


@pytest.mark.parametrize("message", [MESSAGE, NAMELESS], ids=["named", "nameless"])
def test_cut_copy_is_another(message: bytes) -> None:
    """No beginning of a message is taken for the whole one, unless nothing but empty lines is missing."""
    whole = message.rstrip(b"\n")
    prints = {fingerprint(whole[:length]) for length in range(len(whole))}
    assert fingerprint(whole) not in prints


@pytest.mark.parametrize(
    ("above", "length"),
    [
        (b"", 0),
        (b"From a@example.org Mon Sep  7 10:00:00 2026\n", 44),
        (b"Return-Path: <a@example.org>\nDELIVERED-TO: b\n\tc\n", 48),
        (b"From x\nX-Original-To: b\r\n", 25),
        (b"From : not an mbox line\n", 0),
        (b"From\t: neither\n", 0),
        (b"From x\n begins with a space\nDelivered-To: b\n", 7),
        (b" begins with a space\nDelivered-To: b\n", 0),
        (b"Delivered-To : b\n", 0),
        (b"X-Other: x\nDelivered-To: b\n", 0),
        (b"Delivered-To: b\nFrom x\n", 16),
    ],
)
def test_prepended(above: bytes, length: int) -> None:
    """The id ignores an mbox line and the three fields that Postfix prepends (pipe(8) flags D, F, O, R), nothing else."""
    identity = identify(above + MESSAGE)
    assert identity.prepended == length
    assert (identity.id == identify(MESSAGE).id) == (length == len(above))


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_id_is_a_uuid_of_version_8(raw: bytes) -> None:
    """The message id is a UUID of version 8 and the variant of RFC 9562, made from SHA-256 of the content."""
    identity = identify(raw)
    name = uuid.UUID(identity.id)
    assert str(name) == identity.id
    assert (name.version, name.variant) == (8, uuid.RFC_4122)
    assert name.bytes[:6] == hashlib.sha256(raw[identity.prepended :]).digest()[:6]


# What a header and its edges are made of, and what the digest itself writes between its parts.
TOKENS = [
    *(name + b":" for name in (*NAMED, b"x")),
    *PREPENDED,
    *(
        b"Message-ID: <1>\n",
        b"MESSAGE-ID :",
        b"subject 1:a\n",
        b"body\n",
        b"bytes\n",
        b"cut\n",
        b"From x\n",
        b"From :x\n",
    ),
    *(b"\n", b"\n", b"\r\n", b"\r", b" ", b"\t", b":", b"a", b"<>", b"\0", b"\xff", b"\x0b", b"\n "),
]
messages = st.lists(st.sampled_from(TOKENS), max_size=14)


FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:(.*)", re.DOTALL)


def rule(raw: bytes) -> list[object]:
    """The identity rule, told slowly and line by line: what two messages have in common that are the same delivery."""
    *ended, last = raw.split(b"\n")
    lines = [*(line.removesuffix(b"\r") for line in ended), last]
    if len(lines) > 1 and re.match(rb"From (?![ \t]*:)", lines[0]):
        del lines[0]
    prepended = False
    while lines and (lines[0].lower().startswith(PREPENDED) or (prepended and lines[0][:1] in (b" ", b"\t"))):
        prepended = True
        del lines[0]
    while lines and not lines[-1]:
        lines.pop()

    fields: list[list[bytes]] = []
    body = list(lines)
    while body:
        if fields and body[0][:1] in (b" ", b"\t"):
            fields[-1][1] += body.pop(0)
        elif found := FIELD.fullmatch(body[0]):
            fields.append([found[1].lower(), found[2]])
            del body[0]
        else:
            break
    named = [[text.strip(b" \t") for name, text in fields if name == wanted] for wanted in NAMED]
    if len(named[0]) == 1 and named[0][0].strip(b"<> \t"):
        return [named, body]
    return [lines]


@settings(max_examples=1500, deadline=None)
@given(st.data(), messages)
def test_equal_exactly_by_the_rule(data: st.DataObject, tokens: list[bytes]) -> None:
    """Two messages have the same fingerprint if and only if the rule says that they are the same delivery, however their
    bytes are chosen; and the same id if and only if their content is the same."""
    start = data.draw(st.integers(0, len(tokens)))
    end = data.draw(st.integers(start, min(start + 3, len(tokens))))
    between = data.draw(st.lists(st.sampled_from(TOKENS), max_size=2))
    one, two = b"".join(tokens), b"".join([*tokens[:start], *between, *tokens[end:]])
    names, others = identify(one), identify(two)
    assert (names.fingerprint == others.fingerprint) == (rule(one) == rule(two))
    assert (names.id == others.id) == (one[names.prepended :] == two[others.prepended :])


HUGE = {
    "fields": b"To:\n" * 2_000_000,
    "other fields": b"a:\n" * 2_000_000,
    "one folded field": b"Message-ID: a" + b"\n " * 2_000_000,
    "prepended fields": b"Delivered-To: x\n" * 500_000,
    "one prepended field": b"Delivered-To: x" + b"\n " * 2_000_000,
    "one line": b"a" * 8_000_000,
    "spaces before a colon": b"a" + b" " * 8_000_000,
    "empty lines": b"\n" * 8_000_000,
}


@pytest.mark.parametrize("kind", HUGE)
def test_hostile_messages_cost_little(kind: str) -> None:
    """No header makes identity cost more than a few times the message in memory, or time that grows faster than its size: it runs for every
    message, before anything is parsed."""
    program = (
        "import resource, sys; from pipehandler.mail.identity import identify; raw = sys.stdin.buffer.read()\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (60, 60)); resource.setrlimit(resource.RLIMIT_AS, (120 << 20,) * 2)\n"
        "print(identify(raw).id)"
    )
    done = subprocess.run([sys.executable, "-c", program], input=HUGE[kind], capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().strip() == identify(HUGE[kind]).id
