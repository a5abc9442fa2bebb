"""The text of a message comes out as it went in, wherever the octets are cut."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipehandler.lmtp.unstuffing import Unstuffer

PIECES = st.lists(st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\0", b"a", b"\xff", b"From "]), max_size=40)


def stuffed(message: bytes) -> bytes:
    """A message with LF line ends, as lmtp(8) sends it (smtp_proto.c): a dot more, CRLF, and a final line end."""
    lines = message.removesuffix(b"\n").split(b"\n") if message else []
    return b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines) + b".\r\n"


def unstuffed(octets: bytes, cuts: list[int]) -> tuple[bytes, bytes | None]:
    """What comes out of octets that are cut at these places, and what follows the end."""
    text, found = Unstuffer(), b""
    places = sorted({0, len(octets), *(cut % (len(octets) + 1) for cut in cuts)})
    for begin, end in pairwise(places):
        content, rest = text.feed(octets[begin:end])
        found += content
        if rest is not None:
            return found, rest + octets[end:]
    return found, None


@given(pieces=PIECES, cuts=st.lists(st.integers(0, 1000), max_size=10))
def test_every_cut(pieces: list[bytes], cuts: list[int]) -> None:
    """A message comes out as it went in, with the line end that lmtp(8) adds, and what follows it is left alone.

    A CR before a line end is not the message's: Postfix has none in its queue."""
    message = b"".join(pieces).replace(b"\r\n", b"\n").replace(b"\r\n", b"\n")
    while b"\r\n" in message:
        message = message.replace(b"\r\n", b"\n")
    message = message.removesuffix(b"\r")
    whole = message if message.endswith(b"\n") or not message else message + b"\n"
    assert unstuffed(stuffed(message) + b"QUIT\r\n", cuts) == (whole, b"QUIT\r\n")


@given(octets=PIECES.map(b"".join))
def test_octet_by_octet(octets: bytes) -> None:
    """Any octets at all mean the same at once and one by one."""
    at_once, one_by_one = unstuffed(octets, []), unstuffed(octets, list(range(len(octets))))
    assert at_once == one_by_one


def test_no_other_line_end_ends_the_message() -> None:
    """A dot between bare LFs or bare CRs is content (RFC 5321 4.1.1.4): no second message is smuggled in."""
    for smuggled in (b"a\n.\n", b"a\n.\r\n", b"a\r.\r", b"a\r\n.\n", b"a\r\n.\r", b"a\r.\r\n"):
        content, rest = unstuffed(smuggled + b"MAIL FROM:<b@example.org>\r\n.\r\n", [])
        assert content.endswith(b"MAIL FROM:<b@example.org>\n"), smuggled
        assert rest == b""


def test_every_octet_survives() -> None:
    """All 256 octets, and a line of a megabyte."""
    message = bytes(range(14, 256)) + b"\0\t\x0b\x0c\n" + b"." * 1_000_000 + b"\n..\n.\n"
    assert unstuffed(stuffed(message), [7, 65_536, 700_000]) == (message, b"")
