"""stateful: charsets that hide in 7-bit text."""

import pytest

from pipehandler.parse import stateful


@pytest.mark.parametrize(
    ("octets", "name"),
    [
        ("日本".encode("iso2022_jp"), "iso2022_jp"),
        ("한국".encode("iso2022_kr"), "iso2022_kr"),
        (b"\x1b$)A\x0eDz:C\x0f", "iso2022_cn"),
        ("您好".encode("hz"), "hz"),
        (b"plain", None),
        (b"\x1b[31mred", None),
        (b"~{name~} and ~{x}", None),  # not valid HZ between its marks
        (b"~{foobar~}", None),  # valid in HZ, and no everyday characters
    ],
)
def test_announced(octets: bytes, name: str | None) -> None:
    """A charset is recognised by its escape sequences; other uses of the same octets are text."""
    assert stateful.announced(octets) == name


@pytest.mark.parametrize("name", ["iso2022_jp", "iso2022_kr", "hz"])
def test_lines_in_utf_8(name: str) -> None:
    """A footer in UTF-8 added by a list server does not spoil the text above it."""
    above = {"iso2022_jp": "日本語\n", "iso2022_kr": "한국어\n", "hz": "您好\n"}[name]
    assert stateful.read(above.encode(name) + "-- \nKöln\n".encode(), name) == above + "-- \nKöln\n"
    assert stateful.read(above.encode(name) + b"-- \nK\xf6ln\n", name) is None


def test_iso_2022_kr_without_designation() -> None:
    """RFC 1557 requires the designation at the beginning; SO and SI suffice."""
    assert stateful.read("한국어".encode("iso2022_kr")[4:], "iso2022_kr") == "한국어"


def test_hz_with_a_tilde() -> None:
    """A URL with a "~" that is not doubled (RFC 1843) does not make all the rest unreadable."""
    assert stateful.read(b"http://x.example/~ann ~{Dz:C~}", "hz") == "http://x.example/~ann 您好"


@pytest.mark.parametrize(
    ("octets", "label", "shifting"),
    [(b"\x0e0m\x0f", "iso-2022-kr", True), (b"\x1b$)C\x0e0m\x0f", None, True), (b"\x0e\x0f", "utf-8", False)],
)
def test_shifts(octets: bytes, label: str | None, shifting: bool) -> None:
    """SO and SI are not control characters if they switch alphabets."""
    assert stateful.shifts(octets, label) is shifting
