"""mime: the structure of messages, and the bounded cost of any structure."""

import pytest
from harness.cpu import cost

from pipehandler.parse.defect import Notebook
from pipehandler.parse.limits import Limits
from pipehandler.parse.mime import scan
from pipehandler.parse.part import Part

HEADER = b'Content-Type: multipart/mixed; boundary="b"\n\n'


def scanned(raw: bytes, limits: Limits | None = None) -> tuple[Part, list[str]]:
    """The root part, and the codes of the defects."""
    notebook = Notebook()
    root = scan(raw, limits or Limits(), notebook)
    return root, [defect.code for defect in notebook.close()]


def bodies(raw: bytes) -> dict[str, bytes]:
    """The body of each leaf by its part number."""
    return {part.number: raw[part.start : part.end] for part in scanned(raw)[0].leaves()}


def test_fields_in_order_with_their_bodies() -> None:
    """Every field of the message is there, in order, with repeats, its body unfolded and still encoded."""
    root, defects = scanned(b"B: 1\nA:2\n\t3\nB : 4\r\n\r\nbody")
    assert [(field.name, field.body) for field in root.fields] == [("B", b"1"), ("A", b"2\t3"), ("B", b"4")]
    assert (root.start, root.end, root.number, defects) == (21, 25, "1", [])


@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
def test_line_break_before_a_delimiter_belongs_to_it(newline: bytes) -> None:
    """RFC 2046 5.1.1, with either line end."""
    raw = (HEADER + b"preamble\n--b\n\none\n\n--b\nX: y\n\ntwo\n--b--\n").replace(b"\n", newline)
    assert bodies(raw) == {"1": b"one" + newline, "2": b"two"}


def test_parts_are_numbered_as_imap_numbers_them() -> None:
    """RFC 3501 6.4.5: nested parts with dots, a message without parts is part 1."""
    raw = HEADER + b"--b\nContent-Type: multipart/mixed; boundary=c\n\n--c\n\nx\n--c\n\ny\n--c--\n--b\n\nz\n--b--\n"
    assert bodies(raw) == {"1.1": b"x", "1.2": b"y", "2": b"z"}
    assert bodies(b"A: b\n\nbody") == {"1": b"body"}


def test_outer_boundary_ends_inner_parts() -> None:
    """RFC 2046 5.1.2: an unclosed multipart ends with the enclosing one."""
    raw = HEADER + b"--b\nContent-Type: multipart/mixed; boundary=c\n\n--c\n\nx\n--b\n\nz\n--b--\n"
    assert bodies(raw) == {"1.1": b"x", "2": b"z"}
    assert scanned(raw)[1] == ["boundary-not-closed"]


def test_same_boundary_belongs_to_the_innermost() -> None:
    """A boundary that is used again inside is the inner one's until that is closed."""
    raw = HEADER + b"--b\n" + HEADER + b"--b\n\nx\n--b--\n--b\n\ny\n--b--\n"
    assert bodies(raw) == {"1.1": b"x", "2": b"y"}


def test_boundary_that_begins_like_another() -> None:
    """The boundary `b` does not end at a line with `bc`."""
    raw = HEADER + b"--b\n\nx\n--bc\n--b--c\n--b--\n"
    assert bodies(raw) == {"1": b"x\n--bc\n--b--c"}


def test_attached_message_is_not_divided() -> None:
    """message/rfc822 keeps its exact octets, multiparts inside included."""
    inner = b"Content-Type: multipart/mixed; boundary=i\n\n--i\n\nx\n--i--"
    raw = HEADER + b"--b\nContent-Type: message/rfc822\n\n" + inner + b"\n--b--\n"
    assert bodies(raw) == {"1": inner}


def test_header_of_a_part_ends_at_a_delimiter() -> None:
    """A part without an empty line has no body."""
    assert bodies(HEADER + b"--b\nContent-Type: text/plain\n--b\n--b--") == {"1": b"", "2": b""}


@pytest.mark.parametrize("boundary", [b"b", b"b:", b"b: c"])
@pytest.mark.parametrize("content_type", [b"text/plain", b"text/plain;"])
def test_header_of_a_part_takes_nothing_of_the_next(boundary: bytes, content_type: bytes) -> None:
    """Also where the delimiter looks like a field, and where the last field announces a continuation."""
    raw = (
        b'Content-Type: multipart/mixed; boundary="%b"\n\n--%b\nContent-Type: %b\n--%b\nContent-Type: image/gif\n\nx\n--%b--'
        % (
            *(boundary, boundary, content_type),
            *(boundary, boundary),
        )
    )
    root, defects = scanned(raw)
    assert bodies(raw) == {"1": b"", "2": b"x"}
    assert [[field.body for field in part.fields] for part in root.leaves()] == [[content_type], [b"image/gif"]]
    assert defects == []


def test_divided_only_at_whole_lines() -> None:
    """A delimiter is at the beginning of a line, and the boundary is not taken from the middle of one."""
    assert bodies(HEADER + b"--b\n\nx --b\n--b--") == {"1": b"x --b"}


def test_byte_order_marks() -> None:
    """Before the first field, also below fields that mail hosts added; in a body it is text."""
    bom = b"\xef\xbb\xbf"
    for above in (b"", b"Received: x\n", b"Return-Path: <a>\nReceived: x\n\n", b"From a@b Tue Mar 14 09:26:53 2023\n"):
        root, defects = scanned(above + bom + b"A: b\n\nbody")
        assert (root.fields[-1].name, root.start, defects) == ("A", len(above) + 9, [])
    for above in (b"A: b\n\n", b"\n"):
        root, defects = scanned(above + bom + b"A: c\n\nbody")
        assert (root.start, defects) == (len(above), [])
    assert bodies(HEADER + b"--b\n\n" + bom + b"A: b\n--b--\n") == {"1": bom + b"A: b"}


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (b"Content-Type: application/x\njunk\nContent-ID: <a>\n", b"x"),
        (b"Content-Type: application/x\njunk\njunk\nX: y\n", b"x"),
        (b"Content-Transfer-Encoding: base64\njunk of a gateway\n", b"x"),
        (b"Content-Transfer-Encoding: base64\nQUJD\n", b"QUJD\n\nx"),
        (b"Content-Type: text/plain\nDear all,\n", b"Dear all,\n\nx"),
        (b"Content-Type: text/plain\njunk\nContent-ID: <a>\n", b"x"),
        (b"junk\nContent-ID: <a>\n", b"junk\nContent-ID: <a>\n\nx"),
        (b"junk\nmore\nContent-Type: application/x\n", b"x"),
        (b"1\n2\n3\nContent-Type: application/x\n", b"1\n2\n3\nContent-Type: application/x\n\nx"),
    ],
)
def test_junk_in_the_header_of_a_part(header: bytes, body: bytes) -> None:
    """A line that is not a field is skipped if the header continues after it; if it can be the body, it is."""
    assert bodies(HEADER + b"--b\n" + header + b"\nx\n--b--\n") == {"1": body}


@pytest.mark.parametrize(
    ("types", "expected"),
    [
        ([b"text/plain", b"multipart/mixed; boundary=c"], "multipart/mixed"),
        ([b"multipart/mixed; boundary=no", b"multipart/digest; boundary=c"], "multipart/digest"),
        ([b"multipart/mixed; boundary=no", b"text/plain"], "text/plain"),
        ([b"text/plain", b"text/html"], "text/plain"),
        ([b"image/png", b"text/html"], "image/png"),
        ([b"", b"image/png"], "image/png"),
        ([b"", b""], "text/plain"),
        ([b"text\\html"], "text/html"),
        ([b"text//html"], "text/html"),
        ([b"text/html."], "text/html"),
        ([b"text/html charset:utf-8"], "text/html"),
        ([b"text-html; charset=utf-8"], "text/html"),
        ([b"html"], "text/plain"),
        ([b"application\\pdf"], "application/pdf"),
        ([b"text/htmlx"], "text/htmlx"),
        ([b"nonsense"], "text/plain"),
        ([b"application; name=a.pdf"], "application/octet-stream"),
        ([b'name="a.pdf"'], "application/octet-stream"),
        ([b"name=a.txt"], "text/plain"),
        ([b"text; name=a"], "text/plain"),
    ],
)
def test_the_content_type_that_fits(types: list[bytes], expected: str) -> None:
    """Of several fields the one that fits the body counts, else the first; in the message and in a part."""
    fields = b"".join(b"Content-Type: " + each + b"\n" for each in types)
    root = scanned(fields + b"\n--c\n\nx\n--c--\n")[0]
    part = scanned(HEADER + b"--b\n" + fields + b"\n--c\n\nx\n--c--\n--b--\n")[0].children[0]
    assert (root.content_type, part.content_type) == (expected, expected)


@pytest.mark.parametrize(
    ("header", "body", "content_type", "encoding"),
    [
        (b"Content-Type: text/plain\nContent-Type: text/html\n", b"<a href=x>x</a>", "text/html", ""),
        (b"Content-Type: text/plain\nContent-Type: text/html\n", b"PGh0bWw+eDwvaHRtbD4=", "text/html", ""),
        (b"Content-Type: text/html\nContent-Type: text/plain\n", b"pGhObWw+", "text/plain", ""),
        (b"Content-Transfer-Encoding: 7bit\nContent-Transfer-Encoding: base64\n", b"eA==", "text/plain", "base64"),
        (b"Content-Transfer-Encoding:\nContent-Transfer-Encoding: X-BASE64\n", b"eA==", "text/plain", "base64"),
        (b"Content-Transfer-Encoding: 8bit\nContent-Transfer-Encoding: 7bit\n", b"x", "text/plain", "8bit"),
    ],
)
def test_repeated_fields_of_a_part(header: bytes, body: bytes, content_type: str, encoding: str) -> None:
    """The one that fits the body, or that encodes it."""
    part = scanned(HEADER + b"--b\n" + header + b"\n" + body + b"\n--b--\n")[0].children[0]
    assert (part.content_type, part.transfer_encoding) == (content_type, encoding)


def test_charset_of_a_repeated_type() -> None:
    """The field that names a charset says more."""
    root = scanned(b"Content-Type: text/plain\nContent-Type: text/plain; charset=koi8-r\n\nx")[0]
    assert root.parameters.token("charset") == "koi8-r"


def test_too_deep() -> None:
    """Beyond the limit a multipart is not parsed, and a defect records it."""
    raw = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(30)) + b"\nx"
    root, defects = scanned(raw, Limits(depth=10))
    (leaf,) = root.leaves()
    assert (leaf.skipped, leaf.depth, "depth-left-out" in defects) == (True, 10, True)


def test_too_many_parts() -> None:
    """Beyond the limit the rest is counted."""
    notebook = Notebook()
    root = scan(HEADER + b"--b\n\nx\n" * 50 + b"--b--\n", Limits(parts=11), notebook)
    assert len(list(root.leaves())) == 10
    assert ("parts-left-out", "about 41 parts") in [(each.code, each.detail) for each in notebook.close()]


def test_too_many_fields() -> None:
    """Beyond the limit fields are left out, and the start of the body is still found."""
    root, defects = scanned(b"A: b\n" * 30 + b"\nbody", Limits(fields=10))
    assert (len(root.fields), root.start, defects) == (10, 151, ["fields-left-out"])


def test_too_long_field() -> None:
    """Only the beginning of a field beyond the limit is kept."""
    root, defects = scanned(b"A: " + b"b" * 100 + b"\nC: d\n\nbody", Limits(field_size=10))
    assert ([len(field.body) for field in root.fields], defects) == ([10, 1], ["field-too-long"])


def _nested(count: int, lines: bytes) -> bytes:
    return b"".join(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(count)) + lines


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(_nested(95, b"\n" + b"line\n" * 200_000), id="lines"),
        pytest.param(_nested(95, b"\n" + b"--x\n" * 200_000), id="lines-like-delimiters"),
        pytest.param(_nested(10_000, b"\nx"), id="nesting"),
        pytest.param(HEADER + b"--b\n" * 200_000, id="empty-parts"),
        pytest.param(b"a:\n" * 300_000, id="fields"),
        pytest.param(b"a: b" + b"\n c" * 300_000, id="folds"),
        pytest.param(b"a" * 1_000_000, id="no-line-end"),
        pytest.param(HEADER + b"--b\nContent-Type: text/plain" + b";" * 1_000_000, id="semicolons"),
    ],
)
def test_structure_is_read_in_linear_time(raw: bytes) -> None:
    """A megabyte of hostile structure costs little."""
    assert cost(lambda: scanned(raw)) < 40
