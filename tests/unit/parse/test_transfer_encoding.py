"""transfer_encoding: the octets of a part, and as much as possible of a broken one."""

import base64
import quopri

import pytest
from harness.cpu import cost

from pipehandler.parse.transfer_encoding import decode, named


def decoded(octets: bytes, encoding: str) -> tuple[bytes, list[str]]:
    """The content and the codes of the defects; the message has other text before and after it."""
    defects: list[str] = []
    raw = b"before" + octets + b"after="
    content = decode(raw, 6, 6 + len(octets), named(encoding), lambda code, detail: defects.append(code))
    return content, defects


@pytest.mark.parametrize("size", [0, 1, 2, 3, 100, 1_000])
def test_base64(size: int) -> None:
    """RFC 2045 6.8: exact octets, with either line end."""
    content = bytes(index * 7 % 256 for index in range(size))
    assert decoded(base64.encodebytes(content), "base64") == (content, [])
    assert decoded(base64.encodebytes(content).replace(b"\n", b"\r\n"), "base64") == (content, [])


@pytest.mark.parametrize(
    ("octets", "content", "defects"),
    [
        (b"SGVsbG8", b"Hello", ["base64-broken"]),
        (b"SGVsbG8=\n\n", b"Hello", []),
        (b"SGVsbA=\n=", b"Hell", ["base64-broken"]),
        (b"SGVs*b-G8=", b"Hello", ["base64-broken"]),
        (b"SGVsbG8hA", b"Hello!", ["base64-broken"]),
        (b"SGVsbG8=SGVs", b"HelloHel", ["base64-broken"]),
        (b"SGVsbG8=\nIGFnYWlu\n", b"Hello again", ["base64-broken"]),
        (b"SGVsbG8=\nIGFnYWlu\nIQ==\nIQ==", b"Hello again!!", ["base64-broken"]),
        (b"SGVsbG8=\n____\nthe list\n", b"Hello", ["base64-after-padding"]),
        (b"SGVsbG8=the list\n", b"Hello", ["base64-after-padding"]),
        (b"SGVsbG8h\nthe list\n", b"Hello!", ["base64-after-padding"]),
        (b"SGVsbG8h\n\nSent by\n--\nthe list\n", b"Hello!", ["base64-after-padding"]),
        (b"QUJD" * 19 + b"\nQUJD\nsent by\nthe list", b"ABC" * 20, ["base64-after-padding"]),
        (b"QUJD" * 19 + b"\r\n--\r\nthe list", b"ABC" * 19, ["base64-after-padding"]),
        (b"QUJD" * 19 + b"\nQUJDQ", b"ABC" * 20, ["base64-broken"]),
        (b"QUJD" * 19 + b"\n*QUJ-D\n" + b"QUJD" * 19, b"ABC" * 39, ["base64-broken"]),
        (b"QUJD" * 19 + b"\nQU*JDQQ==", b"ABC" * 20 + b"A", ["base64-broken"]),
        (b"====", b"", []),
        (b"Hello, this is text.\nBye.\n", b"Hello, this is text.\nBye.\n", ["base64-broken"]),
        (b"<html><p>Hello</p></html>\n", b"<html><p>Hello</p></html>\n", ["base64-broken"]),
        (b"Scanned by x.\n\n" + b"QUJD" * 19 + b"\nQUJD", b"ABC" * 20, ["base64-broken"]),
        (
            b"long expressionless words\nwithout anything between\n",
            b"long expressionless words\nwithout anything between\n",
            ["base64-broken"],
        ),
        (b"[EXTERNAL]\n\n" + b"QUJD" * 5, b"ABC" * 5, ["base64-broken"]),
        (b"> QUJDQUJDQUJDQUJDQUJDQUJD\n> QUJD", b"ABC" * 7, ["base64-broken"]),
        (b"A", b"", ["base64-broken"]),
    ],
)
def test_broken_base64(octets: bytes, content: bytes, defects: list[str]) -> None:
    """As much as possible is decoded, and the defects record what was wrong."""
    assert decoded(octets, "base64") == (content, defects)


def test_quoted_printable() -> None:
    """RFC 2045 6.7: encoded text is decoded exactly."""
    content = "Grüße = \t\nlong line ".encode() * 20
    assert decoded(quopri.encodestring(content), "quoted-printable") == (content, [])


@pytest.mark.parametrize(
    ("octets", "content", "defects"),
    [
        (b"a=  \nb", b"ab", []),
        (b"a=\r\nb", b"ab", []),
        (b"a=\rb\nc", b"a=\rb\nc", ["quoted-printable-broken"]),
        (b"=ZZ =c3=bc", b"=ZZ \xc3\xbc", ["quoted-printable-broken"]),
        (b"a=", b"a", []),
        (b"=", b"", []),
        (b"token=3DYWJjZA==\nnext", b"token=YWJjZA==\nnext", ["quoted-printable-broken"]),
        (b"======\na=3D=3Db: a==b", b"======\na==b: a==b", ["quoted-printable-broken"]),
        (b"===3D==3D", b"===" + b"==3D", ["quoted-printable-broken"]),
        (b"x===\nb", b"x==b", ["quoted-printable-broken"]),
        (b"Title\n=====\r\nb", b"Title\n=====\r\nb", ["quoted-printable-broken"]),
        (b"=3D=3D=\nb", b"==b", []),
        (b"a \t\nb=20\r\nc \r\nd ", b"a\nb \r\nc\r\nd", []),
    ],
)
def test_broken_quoted_printable(octets: bytes, content: bytes, defects: list[str]) -> None:
    """A sequence that is not an escape is kept, and nothing is lost."""
    assert decoded(octets, "quoted-printable") == (content, defects)


def test_uuencode() -> None:
    """The lines between begin and end; a broken one does not affect the others."""
    octets = b"some text\nbegin 644 x\n%:&5L;&\\\n`\nend\nrest"
    assert decoded(octets, "x-uuencode") == (b"hello", [])
    assert decoded(b"begin 644 x\n%:&5L;&\\\n\xff\xff\n%:&5L;&\\\n", "x-uuencode") == (
        b"hellohello",
        ["uuencode-broken", "uuencode-broken"],
    )
    assert decoded(b"nothing", "x-uuencode") == (b"nothing", ["uuencode-broken"])


@pytest.mark.parametrize(
    ("name", "content"),
    [("x-base64", b"A="), ("base-64", b"A="), ("b", b"A="), ("quotedprintable", b"QT0="), ("x-quoted-printable", b"QT0="),
     ("quoted", b"QT0="), ("base65", b"QT0=")],
)  # fmt: skip
def test_names(name: str, content: bytes) -> None:
    """Two encodings are recognised by any spelling of their names."""
    assert decoded(b"QT0=", name)[0] == (b"QT0" if "quoted" in name else content)


@pytest.mark.parametrize(("encoding", "defects"), [("", []), ("8bit", []), ("x-secret", ["transfer-encoding-unknown"])])
def test_octets_as_they_are(encoding: str, defects: list[str]) -> None:
    """RFC 2045 6.4: without a known encoding the octets are the content."""
    assert decoded(b"\0\xff=41\r\n", encoding) == (b"\0\xff=41\r\n", defects)


@pytest.mark.parametrize("encoding", ["base64", "quoted-printable", "x-uuencode"])
@pytest.mark.parametrize("piece", [b"=*A\n", b"*A\n", b"=G", b"=  ", b"=\r", b"begin \n", b"M\xff\n", b"!\n"])
def test_rubbish_is_cheap(encoding: str, piece: bytes) -> None:
    """A megabyte of garbage costs no more than a few million steps of Python."""
    octets = b"begin 644 x\n" + piece * (1_000_000 // len(piece))
    assert cost(lambda: decoded(octets, encoding)) < 40
