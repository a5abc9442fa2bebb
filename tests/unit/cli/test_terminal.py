"""Tables for a terminal: columns line up, and nothing in them is obeyed by the terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipehandler.cli.terminal import safe, shorten, table, width


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("abc", 3),
        ("뉴스레터", 8),
        ("ニュース", 8),
        ("e\u0301", 1),  # a combining accent
        ("한", 2),
        ("\u1112\u1161\u11ab", 2),  # the same, decomposed, as macOS names files
        ("\u200bx\u200c\u034f", 1),  # what newsletters fill their previews with
        ("❤\ufe0f", 1),
        ("a\u00adb", 3),
        ("", 0),
    ],
)
def test_width(text: str, columns: int) -> None:
    """Wide characters (UAX 11) take two columns, combining and invisible ones none."""
    assert width(text) == columns


def test_columns_line_up() -> None:
    """Under each head its column begins, or for numbers ends, at the same place, wide characters or not."""
    text = table(["ID", "SUBJECT", "SIZE"], [[1, "뉴스레터", 7], [20, "plain", 12345], [3, None, 0]])
    assert text.splitlines() == [
        "ID  SUBJECT    SIZE",
        " 1  뉴스레터      7",
        "20  plain     12345",
        " 3                0",
    ]


CONTROLS = ["\x1b[31m", "\x9b31m", "\x07", "\x08", "\r", "\x00", "\x7f", "\x85", "\u202e", "\u2066"]


@pytest.mark.parametrize("control", CONTROLS, ids=ascii)
def test_control_characters_are_not_passed_on(control: str) -> None:
    """Escape sequences (ECMA-48) and characters that turn a line around are replaced, in tables and in text."""
    for text in (safe(f"a{control}b"), shorten(f"a{control}b", 20), table(["X"], [[f"a{control}b"]])):
        assert control[0] not in text
        assert "a" in text
        assert "b" in text


@given(st.text(), st.integers(1, 30))
def test_cut_keeps_its_columns(text: str, columns: int) -> None:
    """A cell is one line and never wider than it may be; a short one is kept, but for its white space."""
    cell = shorten(text, columns)
    assert len(cell.splitlines()) <= 1
    assert width(cell) <= columns
    if width(" ".join(safe(text).split())) <= columns and len(text) <= columns:
        assert cell == " ".join(safe(text).split())


def test_cut_shows_that_something_is_missing() -> None:
    """What was shortened ends in an ellipsis."""
    assert shorten("abcdefgh", 5) == "abcd…"
    assert shorten("뉴스레터", 5) == "뉴스…"
