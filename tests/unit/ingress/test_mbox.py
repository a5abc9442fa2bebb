"""The start and end of each message in an mbox, whatever its writer quoted, and the reported lines."""

import resource
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipehandler.ingress import mbox
from pipehandler.ingress.mbox import Entry

SEPARATOR = b"From ann@sender.example Thu Nov 26 09:00:00 2026\n"
HEADER = b"From: Ann <ann@sender.example>\nSubject: one\n\n"


def read(content: bytes, largest: int = 1 << 20) -> list[Entry]:
    """The messages of an mbox with this content."""
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        assert mbox.is_mbox(file.fileno())
        return list(mbox.read(file.fileno(), largest))


def texts(content: bytes) -> list[bytes]:
    """The most likely readings of the messages."""
    return [entry.readings[0] for entry in read(content)]


def doubts(content: bytes) -> list[str]:
    """The reported lines."""
    return [doubt for entry in read(content) for doubt in entry.doubts]


def with_length(header: bytes, body: bytes, length: int | None = None) -> bytes:
    """A message with Content-Length, as in mboxcl2."""
    field = b"Content-Length: %d\n" % (len(body) if length is None else length)
    return header.replace(b"\n\n", b"\n" + field + b"\n") + body


TEXT = [
    b"Dear all,\n\nFrom next Monday on we open at ten.\n\nAnn\n",
    b"We move house.\nFrom here it is an hour by train.\nAnn\n",
    b"\nFrom Thu Nov 26 on we open at 09:00:00, since 2026\n",
    b"\nFrom: a field that is quoted\n\nFrom : another\nTo: x\n",
    b"\nFrom my friend Ann Thu Nov 26 09:00:00 2026\nTo: x\n",
    b"\nFrom 9:00 to 17:30\n\nFrom\n\n From x Thu Nov 26 09:00:00 2026\n",
    b"no line end at the end of what follows\nFrom",
]


@pytest.mark.parametrize("body", TEXT)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_text_stays_text(body: bytes, line_end: bytes) -> None:
    """A line that only begins like a separator is text: no octet of it is lost, nor of the text around it."""
    content = SEPARATOR + HEADER + body + b"\n" + SEPARATOR + HEADER + b"second\n\n"
    first, second = texts(content.replace(b"\n", line_end))
    if body.endswith(b"\nFrom"):  # without an empty line between the two
        body += b"\n"
    assert first == (HEADER + body).replace(b"\n", line_end)
    assert second == (HEADER + b"second\n").replace(b"\n", line_end)
    if b"\n\nFrom next" in body:
        assert not doubts(content)


@pytest.mark.parametrize(
    "separator",
    [
        b"From - Thu Nov 26 09:00:00 2026",
        b"From MAILER-DAEMON Thu Nov  5 09:00:00 2026",
        b"From  Thu Nov 26 09:00:00 2026",
        b"From root Thu Nov 26 09:00 2026",
        b"From ann@x.example Thu Nov 26 09:00:00 CET 2026",
        b"From ann@x.example Thu Nov 26 09:00:00 2026 +0100",
        b"From 1234567890@xxx Thu Nov 26 09:00:00 +0000 2026",
        b"From ann@x.example Thu, 26 Nov 2026 09:00:00 +0100 (CET)",
        b"From ann at x.example  Thu Nov 26 09:00:00 2026",
        b'From "ann b"@x.example Thu Nov 26 09:00:00 2026',
        b'From "Ann B" <ann@x.example> Thu Nov 26 09:00:00 2026',
        b"From ann Thu Nov 26 09:00:00 2026 remote from host",
        b"From ???@??? Tue Apr 01 00:00:00 1997",
        b"From ann@x.example\tthu nov 26 09:00:00 2026  ",
    ],
)
def test_separators(separator: bytes) -> None:
    """The separators that programs write."""
    content = b"".join(separator + b"\n" + HEADER + body + b"\n" for body in (b"1\n", b"2\n", b"\n"))
    assert texts(content) == [HEADER + b"1\n", HEADER + b"2\n", HEADER + b"\n"]
    assert texts(content.replace(b"\n", b"\r\n"))[1] == (HEADER + b"2\n").replace(b"\n", b"\r\n")
    assert not doubts(content)


@pytest.mark.parametrize(
    ("between", "number", "reported"),
    [
        (
            b"\n" + SEPARATOR + b"no field\n",
            1,
            "line 6 looks like a separator, but no field is below it: taken as text",
        ),
        (b"text\n" + SEPARATOR + HEADER, 2, "line 6 is taken as a separator, but no empty line is above it"),
        (
            b"\nFrom here on\nTo: x\n",
            1,
            "line 6 has no address and time stamp, but is above a field: taken as text",
        ),
    ],
)
def test_doubts(between: bytes, number: int, reported: str) -> None:
    """Each ambiguous line is reported with its number; a file of the same form without it reports nothing."""
    content = SEPARATOR + HEADER + between
    assert len(texts(content)) == number
    assert doubts(content) == [reported]
    assert len(texts(content + b"\n" + SEPARATOR + HEADER)) == number + 1


def test_inside_a_header() -> None:
    """A separator among the fields of a header, without an empty line, belongs to that header."""
    broken = b"Received: x\n" + SEPARATOR + HEADER + b"text\n"
    assert texts(SEPARATOR + broken) == [broken]
    assert doubts(SEPARATOR + broken) == ["line 3 looks like a separator, but is inside a header: taken as part of it"]


def test_many_doubts() -> None:
    """A file of ambiguous lines only is read in bounded memory."""
    (entry,) = read(SEPARATOR + HEADER + (b"\n" + SEPARATOR + b"no field\n") * 1000)
    assert len(entry.doubts) == 11
    assert entry.doubts[-1] == "and 990 more lines"


def test_quoting_of_mboxrd() -> None:
    """One > is removed; the mboxo reading, and the lines unchanged, are further readings."""
    body = b"\n>From a\n>>From b\n> From c\n>Fromage\n"
    (entry,) = read(SEPARATOR + HEADER + body)
    assert entry.readings == (
        HEADER + b"\nFrom a\n>From b\n> From c\n>Fromage\n",
        HEADER + b"\nFrom a\n>>From b\n> From c\n>Fromage\n",
        HEADER + body,
    )


def test_quoting_of_mboxo() -> None:
    """If only `>From ` occurs, mboxo and mboxrd are the same; it may also be text."""
    (entry,) = read(SEPARATOR + HEADER + b">From a\n")
    assert entry.readings == (HEADER + b"From a\n", HEADER + b">From a\n")


def test_no_quoting() -> None:
    """A writer that left `From ` unquoted did not add the > elsewhere in the same message either."""
    (entry,) = read(SEPARATOR + HEADER + b"From a\n>From b\n")
    assert entry.readings == (HEADER + b"From a\n>From b\n", HEADER + b"From a\nFrom b\n")


@pytest.mark.parametrize("terminator", [b"", b"\n"])
def test_mboxcl2(terminator: bytes) -> None:
    """A Content-Length that leads to a separator decides, even over a whole message in the text, and > is kept in the
    whole file."""
    bodies = [b"\n" + SEPARATOR + HEADER + b"forwarded\n", b">From a\n", b"\n\n", b""]
    messages = [with_length(HEADER, body) for body in bodies]
    content = b"".join(SEPARATOR + message + terminator for message in messages)
    assert texts(content) == messages
    assert doubts(content) == ["line 7 looks like a separator, but is within Content-Length: taken as text"]


@pytest.mark.parametrize("length", [0, 1, 5, 13, 999_999, 10**17])
def test_content_length_that_is_wrong(length: int) -> None:
    """A Content-Length that does not lead to a separator is a field like any other."""
    messages = [with_length(HEADER, body, length) for body in (b"first one\nFrom here\n", b"second one\n")]
    content = b"".join(SEPARATOR + message + b"\n" for message in messages)
    assert texts(content) == messages


def test_without_time_stamps() -> None:
    """If the first line has no time stamp, lines like it above a field also separate, and are reported."""
    content = b"From x\n" + HEADER + b"a\n\nFrom here on\nit goes on\n\nFrom y\n" + HEADER + b"b\n"
    assert texts(content) == [HEADER + b"a\n\nFrom here on\nit goes on\n", HEADER + b"b\n"]
    assert doubts(content) == ["line 10 has no address and time stamp, but is above a field: taken as a separator"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (SEPARATOR, True),
        (b"\n\r\n" + SEPARATOR + HEADER, True),
        (b"From x\nA: b\n", True),
        (b"From here on\nit is text\n", False),
        (b"From : ann@x.example\nTo: x\n\n", False),
        (HEADER + b"\n" + SEPARATOR + HEADER, False),
        (b"\n\n", False),
        (b"From ", False),
    ],
)
def test_is_mbox(content: bytes, expected: bool, tmp_path: Path) -> None:
    """A file is an mbox by its first line that is not empty."""
    path = tmp_path / "file"
    path.write_bytes(content)
    with path.open("rb") as file:
        assert mbox.is_mbox(file.fileno()) is expected


def test_nothing_below() -> None:
    """A separator with nothing below it is an empty entry, even between others and at the end."""
    assert [entry.size for entry in read(SEPARATOR + b"\n" + SEPARATOR + HEADER + b"x\n\n" + SEPARATOR)] == [0, 47, 0]


def test_too_large() -> None:
    """A message that is too large is returned without its octets, and the others unchanged."""
    content = SEPARATOR + HEADER + b"x" * 3000 + b"\n\n" + SEPARATOR + HEADER + b"x"
    first, second = read(content, 2000)
    assert (first.size, first.readings) == (3046, ())
    assert second.readings == (HEADER + b"x",)


@pytest.mark.parametrize("filler", [b"x" * (5 << 20) + b"\n", b"From x\n" * 300_000, b"\n" * (3 << 20)])
def test_huge(filler: bytes) -> None:
    """Lines and messages far longer than one read; the separator after them is at any position in it."""
    for shift in (0, 1, 3, 48):
        content = SEPARATOR + HEADER + b"y" * shift + filler + b"\n" + SEPARATOR + HEADER + b"second\n"
        first, second = read(content)
        assert first.size == len(HEADER) + shift + len(filler)
        assert second.readings == (HEADER + b"second\n",)


def test_memory(tmp_path: Path) -> None:
    """A sparse file of 256 MiB is read in the memory of one block."""
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.write(SEPARATOR + HEADER)
        file.truncate(1 << 28)
        file.seek(0, 2)
        file.write(b"\n\n" + SEPARATOR + HEADER + b"x")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with path.open("rb") as file:
        sizes = [entry.size for entry in mbox.read(file.fileno(), 1 << 20)]
    assert sizes == [(1 << 28) - len(SEPARATOR) + 1, len(HEADER) + 1]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


@pytest.mark.parametrize("above", [b"", b"\r\n"])
def test_byte_order_mark(above: bytes) -> None:
    """An editor's mark before the first line is no part of the file; one inside the text is text."""
    mark = b"\xef\xbb\xbf"
    first, second = texts(
        mark + above + SEPARATOR + HEADER + b"one\n" + mark + b"From here\n\n" + SEPARATOR + HEADER + b"two\n"
    )
    assert first == HEADER + b"one\n" + mark + b"From here\n"
    assert second == HEADER + b"two\n"


def quoted(raw: bytes) -> bytes:
    """As mboxrd writes it."""
    lines = raw.split(b"\n")
    return b"\n".join(b">" + line if line.lstrip(b">").startswith(b"From ") else line for line in lines)


LINES = st.sampled_from(
    [b"", b"text", b"From here", SEPARATOR[:-1], b">From x", b">>From y", b"To: x", b"\r", b"\0\xff"]
)


@given(bodies=st.lists(st.lists(LINES, max_size=8), min_size=1, max_size=4), rd=st.booleans())
def test_round_trip(bodies: list[list[bytes]], rd: bool) -> None:
    """What mboxrd and mboxcl2 write is read again, octet by octet."""
    raws = [HEADER + b"".join(line + b"\n" for line in body) for body in bodies]
    if rd:
        content = b"".join(SEPARATOR + quoted(raw) + b"\n" for raw in raws)
        assert texts(content) == raws
    else:
        raws = [with_length(HEADER, raw[len(HEADER) :]) for raw in raws]
        entries = read(b"".join(SEPARATOR + raw + b"\n" for raw in raws))
        assert len(entries) == len(raws)
        assert all(raw in entry.readings for raw, entry in zip(raws, entries, strict=True))
