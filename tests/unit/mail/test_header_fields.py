"""The end of a header and its fields, octet by octet: both the fingerprint and the parser depend on it."""

import pytest

from pipehandler.mail.header_fields import BOM, Header, next_line, top, unfolded


def read(raw: bytes) -> tuple[dict[bytes, bytes], bytes]:
    """The fields, unfolded, and the text below them."""
    header = Header(raw, top(raw), others=100)
    fields = {place.name: unfolded(raw[place.start : place.end]) for place in header}
    return fields, raw[header.end :]


@pytest.mark.parametrize(
    ("raw", "fields"),
    [
        (b"Subject: one\nTo: a@b\n\nbody", {b"Subject": b"one", b"To": b"a@b"}),
        (b"Subject: one\r\nTo: a@b\r\n\r\nbody", {b"Subject": b"one", b"To": b"a@b"}),
        (b"Subject : one\nX:y\n\nbody", {b"Subject": b"one", b"X": b"y"}),
        # Blanks before the first field, and an empty line of blanks.
        (b"  Subject: one\nX: y\n\nbody", {b"Subject": b"one", b"X": b"y"}),
        (b"\tSubject: one\n\nbody", {b"Subject": b"one"}),
        (b" \nSubject: one\n\nbody", {b"Subject": b"one"}),
        (b" \t\r\nSubject: one\r\n\r\nbody", {b"Subject": b"one"}),
        # The line of an mbox, which is not a field named From.
        (b"From a@b Thu Jan  1\nSubject: one\n\nbody", {b"Subject": b"one"}),
        (b">From a@b Thu Jan  1\nSubject: one\n\nbody", {b"Subject": b"one"}),
        (b"From : a@b\nSubject: one\n\nbody", {b"From": b"a@b", b"Subject": b"one"}),
        # A byte order mark.
        (BOM + b"Subject: one\n\nbody", {b"Subject": b"one"}),
        (b"From a@b Thu Jan  1\n" + BOM + b"Subject: one\n\nbody", {b"Subject": b"one"}),
        (b"Received: x\n" + BOM + b"Subject: one\n\nbody", {b"Received": b"x", b"Subject": b"one"}),
        (b"Received: x\n y\n\n" + BOM + b"Subject: one\n\nbody", {b"Received": b"x y", b"Subject": b"one"}),
        # A line that continues a field but does not begin with a blank.
        (b"X: a;\nb=c\nTo: d\n\nbody", {b"X": b"a; b=c", b"To": b"d"}),
        (b"X: a; \t\r\nb=c\r\n\r\nbody", {b"X": b"a; \t b=c"}),
        (b"X: a;\nb;\nc\n\nbody", {b"X": b"a; b; c"}),
    ],
)
def test_fields(raw: bytes, fields: dict[bytes, bytes]) -> None:
    """Each field with its name as written and its body; below them is the body of the message."""
    assert read(raw) == (fields, b"body")


@pytest.mark.parametrize(
    ("raw", "fields", "below"),
    [
        (b"Subject: one\nno field\nX: y\n", {b"Subject": b"one"}, b"no field\nX: y\n"),
        (b"X: a; b\nc\n\nbody", {b"X": b"a; b"}, b"c\n\nbody"),
        (b"X: a;b \nc\n\nbody", {b"X": b"a;b"}, b"c\n\nbody"),
        (b"X: a;\n\nbody", {b"X": b"a;"}, b"body"),
        (b"no field", {}, b"no field"),
        (b"Subject: one", {b"Subject": b"one"}, b""),
        (b"\nbody", {}, b"body"),
        (b"", {}, b""),
        # Below a field that no mail host added, a byte order mark belongs to the body.
        (b"Subject: one\n\n" + BOM + b"To: a@b\n\n", {b"Subject": b"one"}, BOM + b"To: a@b\n\n"),
        (
            b"Received: x\nSubject: one\n\n" + BOM + b"To: a\n",
            {b"Received": b"x", b"Subject": b"one"},
            BOM + b"To: a\n",
        ),
        (b"Received: x\n\n" + BOM + b"text\n", {b"Received": b"x"}, BOM + b"text\n"),
    ],
)
def test_end(raw: bytes, fields: dict[bytes, bytes], below: bytes) -> None:
    """A line that is not a field already belongs to the body, an empty line does not."""
    assert read(raw) == (fields, below)


def test_fields_that_decide_come_first() -> None:
    """A header with more fields than the limit loses none of the decisive ones, and is marked as incomplete."""
    header = Header(b"A: 1\nB: 2\nSubject: one\nC: 3\nTo: a\n\nbody", 0, others=1)
    assert [place.name for place in header] == [b"A", b"Subject", b"To"]
    assert not header.complete
    whole = Header(b"A: 1\nB: 2\nSubject: one\n\nbody", 0, others=2)
    assert [place.name for place in whole] == [b"A", b"B", b"Subject"]
    assert whole.complete


@pytest.mark.parametrize(
    ("body", "line"),
    [
        (b" a\n b", b"a b"),
        (b"a\r\n b", b"a b"),
        (b"a\n\tb", b"a\tb"),
        (b"a\r\n\tb", b"a\tb"),
        (b"a\nb", b"a b"),
        (b"a\r\nb", b"a b"),
        (b"a\n  b\r\n", b"a  b"),
        (b"\ta b\t", b"a b"),
    ],
)
def test_unfolded(body: bytes, line: bytes) -> None:
    """A line end is removed and the blank after it is kept; without one a blank is added."""
    assert unfolded(body) == line


def test_next_line() -> None:
    """After the line end, or at the end."""
    assert [next_line(b"\na\nb", position) for position in range(4)] == [1, 3, 3, 4]
