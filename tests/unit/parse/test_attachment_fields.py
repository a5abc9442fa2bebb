"""The fields of an attachment besides its name and type."""

import pytest

from pipehandler.parse.message import parse


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (b"Content-Type: text/calendar; METHOD=Request; charset=UTF-8", {"method": "Request", "charset": "UTF-8"}),
        (b"Content-Type: a/b; x*=utf-8''%C3%BC; y*0=1; y*1=2", {"x": "ü", "y": "12"}),
        (b"Content-Type: a/b; x=; =y; z", {}),
        (b"Content-Type: a/b; x=1; x=2", {"x": "1"}),
        (b"Content-Type: a/b; x=" + b"y" * 3_000, {}),
        (b"Content-Type: a/b", {}),
    ],
)
def test_parameters(fields: bytes, expected: dict[str, str]) -> None:
    """Those of the media type, their names in lower case (RFC 2045 5.1), sections joined (RFC 2231)."""
    (attachment,) = parse(fields + b"\n\nx").attachments
    assert attachment.parameters == expected


def test_parameters_are_bounded() -> None:
    """A defect records that the rest was left out."""
    many = b"".join(b"; x%d=y" % number for number in range(100))
    parsed = parse(b"Content-Type: a/b" + many + b"\n\nx")
    assert len(parsed.attachments[0].parameters) == 30
    assert [(defect.code, defect.where) for defect in parsed.defects] == [("parameters-left-out", "1")]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"a picture", "a picture"),
        (b"=?utf-8?q?=C3=BC?=", "ü"),
        ("ü".encode(), "ü"),
        (b"folded\n twice", "folded twice"),
        (b"folded\n\ttwice", "folded twice"),
        (b"", None),
        (b" \x07 ", None),
    ],
)
def test_description(body: bytes, expected: str | None) -> None:
    """Free text on one line (RFC 2045 8), decoded like a subject."""
    (attachment,) = parse(b"Content-Type: a/b\nContent-Description: " + body + b"\n\nx").attachments
    assert attachment.content_description == expected
