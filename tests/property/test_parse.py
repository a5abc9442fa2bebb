"""Parsing is total and deterministic, and its result can be stored, whatever the octets."""

import base64
import json
from dataclasses import asdict
from email.header import Header

from golden.write import FOLDER
from hypothesis import given, settings
from hypothesis import strategies as st

from pipehandler.mail.parsed import Attachment, ParsedMessage
from pipehandler.parse.message import DEFECTS, parse

GOLDEN = [path.read_bytes() for path in sorted(FOLDER.glob("*.eml"))]

# The pieces of messages, so that random ones reach every branch.
PIECES = st.sampled_from(
    [b"\n", b"\r\n", b"\r", b"\n\n", b"--b", b"--b--", b"--c", b" ", b"\t", b";", b":", b",", b'"', b"<", b">", b"(", b")",
     b"\\", b"=", b"?", b"=?utf-8?q?", b"=?iso-2022-jp?B?", b"=?utf-7?Q?", b"=?idna?B?", b"?=", b"From: ", b"To: ", b"Cc: ",
     b"Subject: ", b"Date: ", b"Message-ID: ", b"References: ", b"Content-Type: ", b"Content-Disposition: ",
     b"Content-Transfer-Encoding: ", b"Content-ID: ", b"Authentication-Results: mx;", b"X-Rspamd-Server: mx",
     b"X-Spam-Status: Yes, score=", b"multipart/mixed", b"multipart/alternative", b"multipart/digest", b"message/rfc822",
     b"text/plain", b"text/html", b"image/png", b"; boundary=b", b"; boundary=c", b'; boundary="', b"; charset=", b"utf-16",
     b"utf-7", b"iso-2022-jp", b"hz", b"gb2312", b"punycode", b"; name*0*=utf-8''%e4", b"; name*1=", b"; filename=",
     b"attachment", b"inline", b"base64", b"quoted-printable", b"x-uuencode", b"begin 644 x\n", b"end\n", b"=C3=A4", b"w6Q=",
     b"\x1b$B", b"\x1b(B", b"~{", b"+AAA-", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\xe4\xf6", b"a@b.example",
     b"Tue, 14 Mar 2023 09:26:53 +0100", b"spf=pass", b"9" * 400, b"<meta charset=koi8-r>", b"; format=flowed", b"; delsp=yes",
     b"; start=<a@b>", b"multipart/related", b"application/pkcs7-mime", b"application/ms-tnef", b"text/x-amp-html", b"x \n",
     b"> x \n", b"-- \n", b"#0V%T\n", b"`\n", b"begin-base64 644 x\nw6Q=\n====\n", b"\x78\x9f\x3e\x22", b"\x30\x80", b"\x24\x80",
     b"\x04\x01a", b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x02", b"\xa0\x80", b"\x0c\x80", b"\x0f\x80", b"\x02\x90", b"\x03\x90",
     b"2026-11-26T09:00:00+01:00", b"9:00 PM", b" -9959", b"<>", b"<a@<b@c>", b"Content-Location: "]
)  # fmt: skip
MESSAGES = st.lists(PIECES | st.binary(max_size=12), max_size=60).map(b"".join)


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A golden message in which something was removed, repeated, moved or inserted."""
    raw = draw(st.sampled_from(GOLDEN))
    for _ in range(draw(st.integers(1, 4))):
        start, end = sorted((draw(st.integers(0, len(raw))), draw(st.integers(0, len(raw)))))
        middle = draw(st.sampled_from([b"", raw[start:end] * 2, raw[start:end][::-1]]) | PIECES | st.binary(max_size=8))
        raw = raw[:start] + middle + raw[end:]
    return raw


def check(raw: bytes) -> None:
    """What must hold for any message."""
    parsed = parse(raw, trusted_authserv_ids=("mx", "mx.example.org"))
    assert parsed == parse(raw, trusted_authserv_ids=("mx", "mx.example.org"))
    text = json.dumps(asdict(parsed), ensure_ascii=False, default=str)
    text.encode("utf-8")  # no lone surrogate
    assert "\\u0000" not in text
    assert all(defect.code in DEFECTS for defect in parsed.defects)
    assert all(address.name or address.address for address in parsed.from_ + parsed.to + parsed.cc)
    assert parsed.date is None or parsed.date.utcoffset() is not None
    _check_shapes(parsed)


def _check_shapes(parsed: ParsedMessage) -> None:
    assert all(isinstance(attachment, Attachment) and attachment.part for attachment in parsed.attachments)
    assert len({attachment.part for attachment in parsed.attachments}) == len(parsed.attachments)
    assert all(name.isascii() and name.isprintable() and name for name, _ in parsed.header)
    assert parsed.text is None or parsed.text.strip()
    assert not any("\n" in body or body != body.strip(" \t\r\n") for _, body in parsed.header)


@given(st.binary(max_size=2_000))
def test_any_octets(raw: bytes) -> None:
    """Random octets are a message like any other."""
    check(raw)


@given(MESSAGES)
@settings(max_examples=500)
def test_anything_made_of_mail(raw: bytes) -> None:
    """The pieces of mail, in any order."""
    check(raw)


@given(mutations())
@settings(max_examples=500)
def test_mutations_of_real_structure(raw: bytes) -> None:
    """A good message, damaged."""
    check(raw)


def quoted_printable(content: bytes) -> bytes:
    """Each octet escaped, in lines as short as RFC 2045 6.7 requires."""
    escaped = b"".join(b"=%02X" % octet for octet in content)
    return b"=\n".join(escaped[start : start + 72] for start in range(0, len(escaped), 72))


@given(st.binary(max_size=500), st.sampled_from(["base64", "quoted-printable"]))
def test_attachments_come_back(content: bytes, encoding: str) -> None:
    """Correctly encoded content is stored octet by octet."""
    encoded = base64.encodebytes(content) if encoding == "base64" else quoted_printable(content)
    raw = b"Content-Type: multipart/mixed; boundary=boundary\n\n--boundary\nContent-Type: application/x\n"
    raw += b"Content-Transfer-Encoding: " + encoding.encode() + b"\n\n" + encoded + b"\n--boundary--\n"
    (attachment,) = parse(raw).attachments
    assert attachment.content == content


SUBJECTS = st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=100)


@given(SUBJECTS.map(lambda text: " ".join(text.split())))
def test_subjects_come_back(subject: str) -> None:
    """What the standard library encodes, this decodes; a byte order mark is not text."""
    raw = b"Subject: " + Header(subject, "utf-8").encode().encode("ascii") + b"\n\n"
    assert (parse(raw).subject or "") == subject.removeprefix("\ufeff").strip()


WORDS = st.text(alphabet="aé日😀 .=-", min_size=1, max_size=30)
LINES = st.lists(WORDS, min_size=1, max_size=8).map("\n".join)
ENCODINGS = {
    "8bit": lambda content: content,
    "base64": base64.encodebytes,
    "quoted-printable": quoted_printable,
}
KINDS = {
    "plain": "text/plain; charset=utf-8",
    "flowed": "text/plain; charset=utf-8; format=flowed",
    "delsp": "text/plain; charset=utf-8; format=flowed; delsp=yes",
}


def bare(text: str | None) -> str:
    """A text without its white space, and without the replacement of a split character."""
    return "".join((text or "").rstrip("\ufffd").split())


@given(WORDS, LINES, st.binary(max_size=200), st.sampled_from(list(ENCODINGS)), st.sampled_from(list(KINDS)), st.data())
@settings(max_examples=300)
def test_a_cut_changes_nothing_before_it(
    subject: str, text: str, file: bytes, encoding: str, kind: str, data: st.DataObject
) -> None:
    """Truncating a message anywhere changes at most the last character of the text before the cut."""
    head = b"Subject: " + Header(subject, "utf-8").encode().encode() + b"\nDate: Tue, 14 Mar 2023 09:26:53 +0100\n"
    head += b"Content-Type: multipart/mixed; boundary=boundary\n\n--boundary\nContent-Type: " + KINDS[kind].encode()
    head += b"\nContent-Transfer-Encoding: " + encoding.encode() + b"\n\n"
    beginning = "ä" * 45  # enough for the charset not to be doubted because of a cut
    body = ENCODINGS[encoding]((beginning + text).encode())
    rest = b"\n--boundary\nContent-Type: application/x; name=x\nContent-Transfer-Encoding: base64\n\n"
    attached = len(head + body + rest)
    raw = head + body + rest + base64.encodebytes(file)
    whole = parse(raw + b"\n--boundary--\n")
    end = data.draw(
        st.integers(len(head + ENCODINGS[encoding](beginning.encode())), len(head + body))
        | st.integers(attached, len(raw))
    )
    cut = parse(raw[:end])
    assert (cut.subject, cut.date, cut.header) == (whole.subject, whole.date, whole.header)
    if end >= attached:
        assert cut.text == whole.text
        assert file.startswith(cut.attachments[0].content)
        assert len(cut.attachments[0].content) >= (end - attached) * 45 // 61 - 3
    else:
        left = bare(cut.text)
        # A few octets of an escape may be left.
        assert any(bare(whole.text).startswith(left[: len(left) - more]) for more in range(4))
        assert len(left.encode()) >= (len(bare(whole.text).encode()) if end == len(head + body) else 0)
