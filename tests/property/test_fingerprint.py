"""Identity: the fingerprint is equal exactly for copies of the same message, the message id for the same bytes."""

import dataclasses
import hashlib
import subprocess
import sys
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipehandler.mail.identity import identify
from pipehandler.parse.message import parse

MESSAGE = (
    b"Received: from mx.example.org by mx.example.net; Mon, 7 Sep 2026 10:00:00 +0900\n"
    b"Message-ID: <1@example.org>\n"
    b"Date: Mon, 7 Sep 2026 09:59:59 +0900\n"
    b"From: A <a@example.org>\n"
    b"To: b@example.com\n"
    b"Cc: c@example.com\n"
    b"Subject: =?utf-8?B?7Jyg?= one two\n"
    b"MIME-Version: 1.0\n"
    b"Content-Type: text/plain; charset=utf-8; format=flowed\n"
    b"Content-Transfer-Encoding: 8bit\n"
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
    "parameters in quotes": MESSAGE.replace(b"charset=utf-8", b'charset="utf-8"'),
    "parameters in another order": MESSAGE.replace(b"charset=utf-8; format=flowed", b"format=flowed;\n\tCharset=utf-8"),
    "a semicolon at the end": MESSAGE.replace(b"flowed", b"flowed;"),
    "the type in capitals": MESSAGE.replace(b"text/plain", b"TEXT/PLAIN"),
    "the encoding in capitals": MESSAGE.replace(b"8bit", b"8BIT"),
    "the copy through a list": b"List-Id: <l.example.org>\nList-Unsubscribe: <x:y>\nPrecedence: list\n" + MESSAGE,
    "no MIME-Version": MESSAGE.replace(b"MIME-Version: 1.0\n", b""),
    "results of checks": b"Authentication-Results: mx.example.net; spf=pass\nX-Spam-Score: 1\nARC-Seal: i=1\n"
    + MESSAGE,
    "a field with a long name": MESSAGE.replace(b"X-Other", b"X-" + b"o" * 250),
    "a byte order mark": b"\xef\xbb\xbf" + MESSAGE,
    "what Postfix makes of a byte order mark": b"Received: by x\n\n\xef\xbb\xbf" + MESSAGE,
    "an empty line where the header ends without one": MESSAGE.replace(b"\n\nBody", b"\nBody"),
}
FIELDS = ("Message-ID", "Date", "From", "To", "Cc", "Subject", "Content-Type", "Content-Transfer-Encoding")
ADDED = (
    "Reply-To",
    "Sender",
    "Bcc",
    "In-Reply-To",
    "References",
    "Content-Disposition",
    "Content-ID",
    "To",
)
OTHER = {
    **{f"another {name}": MESSAGE.replace(f"\n{name}: ".encode(), f"\n{name}: x".encode()) for name in FIELDS},
    **{f"{name} added": MESSAGE.replace(b"\nX-Other", f"\n{name}: x\nX-Other".encode()) for name in ADDED},
    "another parameter": MESSAGE.replace(b"flowed", b"flowed; delsp=yes"),
    "the type of a parameter's value": MESSAGE.replace(b"=utf-8", b"*=utf-8"),
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
    "a bare CR": MESSAGE.replace(b"Body\n", b"Body\r"),
    "a field moved into the body": MESSAGE.replace(b"X-Other: x\n\n", b"\nX-Other: x\n\n"),
    "a second Message-ID": MESSAGE.replace(b"\nDate:", b"\nMessage-ID: <2@example.org>\nDate:"),
    "no Message-ID": NAMELESS,
    "no header": b"\n" + MESSAGE,
    "nothing": b"",
}


@pytest.mark.parametrize("raw", SAME.values(), ids=SAME)
def test_same(raw: bytes) -> None:
    """Changes by a second transmission, another mail host or a delivery agent do not change the fingerprint."""
    assert fingerprint(raw) == fingerprint(MESSAGE)


@pytest.mark.parametrize("raw", OTHER.values(), ids=OTHER)
def test_other(raw: bytes) -> None:
    """A change by the sender makes another message."""
    assert raw != MESSAGE
    assert fingerprint(raw) != fingerprint(MESSAGE)


DECIDED_BY_LINE_ENDS = {
    "UTF-16 by its mark": b"\xff\xfehello\nworld\nand\n",
    "UTF-16 by its label": b"Content-Type: text/plain; charset=utf-16le\n\n" + "ab\ncd\n".encode("utf-16le"),
    "escape of ISO-2022-JP": b"\x1b$Bhello\nworld\n",
    "control characters": b"\x01" * 10 + b"abcdefghi\n" * 10,
    "quoted-printable": b"Content-Transfer-Encoding: quoted-printable\n\n=1B$Bhello\nworld\n",
    "one part of several": b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\n\xff\xfehello\nworld\nand\n--b--\n",
}
"""Bodies, perhaps below further fields, that would be read in another way if the octets of a line end counted."""


@pytest.mark.parametrize("body", DECIDED_BY_LINE_ENDS.values(), ids=DECIDED_BY_LINE_ENDS)
def test_no_line_end_decides_how_a_body_is_read(body: bytes) -> None:
    """The fingerprint does not count the octets of line ends, so neither does what a reader sees."""
    raw = b"Message-ID: <1@example.org>\n" + (body if body.startswith(b"Content") else b"\n" + body)
    head, _, text = raw.rpartition(b"\n\n")
    for copy in (raw.replace(b"\n", b"\r\n"), head + b"\n\n" + text.replace(b"\n", b"\r\n", 1)):
        assert fingerprint(copy) == fingerprint(raw)
        one, other = parse(raw), parse(copy)
        assert (other.text, other.html, len(other.attachments)) == (one.text, one.html, len(one.attachments))


def test_all_others_differ_from_each_other() -> None:
    """No two of these messages count as the same."""
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
    """Two transmissions without exactly one Message-ID are two messages: they differ in the Received field of our
    host."""
    assert fingerprint(raw) != fingerprint(raw.replace(b"10:00:00", b"10:05:00"))
    assert fingerprint(raw) == fingerprint(b"Return-Path: <x>\n" + raw.replace(b"\n", b"\r\n") + b"\r\n")


@pytest.mark.parametrize("message", [MESSAGE, NAMELESS], ids=["named", "nameless"])
def test_cut_copy_is_another(message: bytes) -> None:
    """A truncated message never counts as the whole one, unless only empty lines are missing."""
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
def test_id_is_a_uuid_of_version_8(raw: bytes) -> None:
    """The message id is a UUID of version 8 and the variant of RFC 9562, made from SHA-256 of the content."""
    identity = identify(raw)
    name = uuid.UUID(identity.id)
    assert str(name) == identity.id
    assert (name.version, name.variant) == (8, uuid.RFC_4122)
    assert name.bytes[:6] == hashlib.sha256(raw[identity.prepended :]).digest()[:6]


# What equal fingerprints have to mean.

LONG = b"X-" + b"l" * 250
LINES = [
    *(b"Message-ID: <1@example.org>", b"message-id : <1@example.org>", b"Message-ID: <2@example.org>", b"Message-ID:"),
    *(
        b"Subject: one two",
        b"SUBJECT:one two",
        b"Subject: one\n two",
        b"Subject: caf\xe9",
        b"Subject: \xc4\xe3\xba\xc3",
    ),
    *(b"From: A <a@example.org>", b"From: b@example.org", b"From :x", b"From x", b">From x", b"Sender: s@example.org"),
    *(b"To: b@example.com", b"To: b@example.com, c@example.com", b"Cc: c@example.com", b"Reply-To: r@example.org"),
    *(
        b"Date: Mon, 7 Sep 2026 09:59:59 +0900",
        b"Date: x",
        b"References: <x@y>",
        b"List-Id: <l.example.org>",
        b"Precedence: bulk",
        b"Auto-Submitted: x",
    ),
    *(b"X-Other: x", b"X-Other: \xc4\xe3\xba\xc3", b"X-Other: \xf0\xd2\xc9\xd7\xc5\xd4", b"X-Other: y;", b"X-Other:"),
    *(
        LONG + b": x",
        LONG + b"; x",
        b"Received: from x by y",
        b"Received: by y;",
        b"Return-Path: <x>",
        b"Delivered-To: x",
    ),
    *(
        b"Content-Type: text/plain; charset=utf-8",
        b'content-type: TEXT/plain;\n charset="utf-8"',
        b"Content-Type: text/html",
    ),
    *(b"Content-Type: text/plain; charset=koi8-r; format=flowed", b"Content-Type: text/plain;", b"charset=koi8-r"),
    *(b"Content-Type: multipart/mixed; boundary=b", b'Content-Type: multipart/mixed; boundary="b"', b"--b", b"--b--"),
    *(b"Content-Type: multipart/mixed; boundary=c", b"Content-Type: application/pdf; name=a", b"--b: x", b"--c"),
    *(b"Content-Disposition: attachment; filename=a", b"Content-Disposition: attachment; filename*0=a; filename*1=b"),
    *(b"Content-Transfer-Encoding: base64", b"Content-Transfer-Encoding: BASE64 ", b"Content-Transfer-Encoding: 8bit"),
    *(b"Content-Transfer-Encoding: quoted-printable", b"aGVsbG8=", b"Content-ID: <c@d>", b"Content-Description: d"),
    *(
        b"",
        b"",
        b"",
        b"\xef\xbb\xbf",
        b"text caf\xe9",
        b"text \xc4\xe3\xba\xc3",
        b"=C4=E3",
        b"Pay: to account 666",
        b" ",
        b"\t",
        b"\0",
    ),
    *(
        b"begin 644 a",
        b"-- ",
        b"\r",
        b"a\rb",
        b"a\r",
        b" folded",
        b"\tfolded",
        b"\xef\xbb\xbfSubject: one two",
        b"  To: x@example.org",
    ),
]
BASES = [
    b"Message-ID: <1@example.org>\nSubject: one two\nFrom: A <a@example.org>\n\ntext",
    b"Received: from x by y\nMessage-ID: <1@example.org>\nSubject: caf\xe9\nX-Other: x\n\ntext caf\xe9",
    b"Message-ID: <1@example.org>\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64\n\naGVsbG8=",
    (
        b"Message-ID: <1@example.org>\nContent-Type: multipart/mixed; boundary=b\nX-Other: x\n\n--b\n\ntext\n--b\n"
        b"Content-Type: application/pdf; name=a\n\n%PDF\n--b--"
    ),
    b"Received: from x by y\n\n\xef\xbb\xbfMessage-ID: <1@example.org>\nSubject: one two\n\ntext",
    b"Message-ID: <1@example.org>\nContent-Disposition: attachment; filename=a\nTo: b@example.com\n\ntext",
]
changes = st.tuples(
    st.integers(0, 12),
    st.integers(0, 2),
    st.lists(st.sampled_from(LINES), max_size=2),
    st.sampled_from([b"\n", b"\n", b"\r\n"]),
)


def seen(raw: bytes) -> dict[str, object]:
    """What a reader sees of a message; line ends are LF, and line ends at the end do not count."""
    parsed = dataclasses.asdict(parse(raw[identify(raw).prepended :]))
    lists = ("list_id", "list_unsubscribe", "list_unsubscribe_post", "precedence", "auto_submitted")
    for name in ("header", "authentication", "defects", *lists):
        del parsed[name]
    for name in ("text", "html"):
        parsed[name] = parsed[name] and parsed[name].rstrip("\n")
    for attachment in parsed["attachments"]:
        attachment["content"] = attachment["content"].replace(b"\r\n", b"\n").rstrip(b"\n")
    return parsed


@settings(max_examples=400)
@given(
    st.sampled_from(BASES) | st.lists(st.sampled_from(LINES), max_size=9).map(b"\n".join),
    st.lists(changes, max_size=25),
)
def test_equal_fingerprints_show_the_same(base: bytes, mutations: list[tuple[int, int, list[bytes], bytes]]) -> None:
    """Among all similar messages, those with the same fingerprint look the same to a reader."""
    lines = base.split(b"\n")
    shown: dict[bytes, tuple[bytes, dict[str, object]]] = {}
    for place, removed, added, line_end in [(0, 0, [], b"\n"), *mutations]:
        changed = line_end.join([*lines[:place], *added, *lines[place + removed :]])
        raw, view = shown.setdefault(fingerprint(changed), (changed, seen(changed)))
        assert seen(changed) == view, (raw, changed)


@pytest.mark.parametrize("base", BASES)
def test_one_line_more_shows_the_same_or_is_another(base: bytes) -> None:
    """The same for each message that differs in one line, at each place; and some of them do have the same fingerprint."""
    lines, view, same = base.split(b"\n"), seen(base), 0
    for place in range(len(lines) + 1):
        for line in LINES:
            for removed in (0, 1):
                changed = b"\n".join([*lines[:place], line, *lines[place + removed :]])
                if changed != base and fingerprint(changed) == fingerprint(base):
                    assert seen(changed) == view, changed
                    same += 1
    assert same > 5


GENUINE = b"Message-ID: <1@example.org>\nSubject: one\nContent-Type: text/plain\n\nPay to account 1\n"
FORGED = {
    "a field with a long name": GENUINE.replace(b"\n\n", b"\n" + LONG + b": x\nPay: to account 666\n\n"),
    "base64": GENUINE.replace(b"\n\n", b"\nContent-Transfer-Encoding: base64\n\n"),
    "another boundary": GENUINE.replace(b"text/plain", b"multipart/mixed; boundary=x"),
    "another charset": GENUINE.replace(b"text/plain", b"text/plain; charset=utf-7"),
    "a second type": GENUINE.replace(b"Content-Type", b"Content-Type: text/html\nContent-Type"),
    "an attachment": GENUINE.replace(b"\n\n", b"\nContent-Disposition: attachment\n\n"),
    "another answer address": GENUINE.replace(b"Subject", b"Reply-To: forger@example.org\nSubject"),
    "a thousand fields": b"X: x\n" * 1_500 + GENUINE,
    "a thousand fields that decide": b"To: x\n" * 1_500 + GENUINE,
    "octets of another charset": GENUINE.replace(b"Subject", b"X-Other: \xf0\xd2\xc9\xd7\xc5\xd4\nSubject"),
    "a long field": GENUINE.replace(b"Subject: one", b"Subject:" + b" " * 140_000 + b"one"),
    "a folded long field": GENUINE.replace(b"Subject: one", b"Subject:" + b"\n " * 70_000 + b"one"),
    "a byte order mark": b"\xef\xbb\xbf" + GENUINE,
    "an mbox line": b">From x\n" + GENUINE,
    "a field that looks like an mbox line": b"From : x\n" + GENUINE,
}


@pytest.mark.parametrize("raw", FORGED.values(), ids=FORGED)
def test_forged(raw: bytes) -> None:
    """A copy that shows something else is another message, so the genuine one is stored whichever comes first."""
    assert (fingerprint(raw) == fingerprint(GENUINE)) <= (seen(raw) == seen(GENUINE))


# What our own Postfix adds when it requeues a message (postsuper -r), and what only looks like it.

TAKEN_UP = b"Received: by mx.example.net (Postfix, from userid 0)\n\tid 4Abc; Mon, 7 Sep 2026 10:09:00 +0900 (JST)\n"
BY_SMTP = b"Received: from a (b [192.0.2.1])\n\tby mx.example.net (Postfix) with ESMTP id 4Abb; Mon, 7 Sep 2026 10:00:00 +0900\n"
REST = b"Subject: one\n\nbody\n"


@pytest.mark.parametrize("first", [BY_SMTP, TAKEN_UP.replace(b"userid 0", b"userid 1000")])
def test_taken_up_again(first: bytes) -> None:
    """However often; the lines above them, and line ends, make no difference."""
    message = first + REST
    for changed in (TAKEN_UP + message, TAKEN_UP * 3 + message, b"Return-Path: <x>\n" + TAKEN_UP + message):
        assert fingerprint(changed) == fingerprint(message)
        assert fingerprint(changed.replace(b"\n", b"\r\n")) == fingerprint(message)


@pytest.mark.parametrize(
    "raw",
    [
        TAKEN_UP + REST,
        TAKEN_UP.replace(b"mx.", b"other.") + BY_SMTP + REST,
        TAKEN_UP.replace(b"10:09", b"10:10") + b"X: x\n" + BY_SMTP + REST,
        BY_SMTP + TAKEN_UP + REST,
        TAKEN_UP.replace(b"Postfix,", b"Exim,") + BY_SMTP + REST,
    ],
    ids=["alone", "another host", "above another field", "below", "another program"],
)
def test_not_taken_up_again(raw: bytes) -> None:
    """The report of a cron job is another message every day, although only this field differs."""
    assert fingerprint(raw) not in (fingerprint(REST), fingerprint(BY_SMTP + REST))
    assert fingerprint(raw) != fingerprint(raw.replace(b"4Abc", b"4Abd"))


HUGE = {
    "fields": (b"", b"To:\n", 2_000_000),
    "other fields": (b"", b"a:\n", 2_000_000),
    "one folded field": (b"Message-ID: a", b"\n ", 2_000_000),
    "prepended fields": (b"", b"Delivered-To: x\n", 500_000),
    "one prepended field": (b"Delivered-To: x", b"\n ", 2_000_000),
    "one line": (b"", b"a", 8_000_000),
    "spaces before a colon": (b"a", b" ", 8_000_000),
    "empty lines": (b"", b"\n", 8_000_000),
}
"""How a huge message begins, and what is repeated how often. It is made where it is used: each is megabytes."""


@pytest.mark.parametrize("kind", HUGE)
def test_hostile_messages_cost_little(kind: str) -> None:
    """No header makes identity cost more than a few times the message in memory, or time that grows faster than its size: it runs for every
    message, before anything is parsed."""
    program = (
        "import resource, sys; from pipehandler.mail.identity import identify; raw = sys.stdin.buffer.read()\n"
        "resource.setrlimit(resource.RLIMIT_CPU, (60, 60)); resource.setrlimit(resource.RLIMIT_AS, (120 << 20,) * 2)\n"
        "print(identify(raw).id)"
    )
    begin, repeated, count = HUGE[kind]
    raw = begin + repeated * count
    done = subprocess.run([sys.executable, "-c", program], input=raw, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().strip() == identify(raw).id
