"""How an operator selects rows: numbers, and patterns."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipehandler.store.bigint import bigint
from pipehandler.store.like import escaped, like, whole, words


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        ("007", 7),
        ("9223372036854775807", (1 << 63) - 1),
        ("9223372036854775808", None),
        ("9" * 30, None),
        ("9" * 5000, None),
        ("", None),
        ("-1", None),
        ("1 ", None),
        ("٣", None),
        ("x", None),
    ],
)
def test_bigint(text: str, number: int | None) -> None:
    """Digits that fit into a bigint are a number; everything else is not."""
    assert bigint(text) == number


def test_like() -> None:
    """Only * is a wildcard."""
    assert escaped("50%_\\*") == "50\\%\\_\\\\*"
    assert like("*@example.com") == "%@example.com"
    assert like("a_b*") == "a\\_b%"


def test_words_in_any_case() -> None:
    """Letters beyond ASCII are in each of their cases; those of ASCII are left to ~*."""
    assert words("Ab 1") == r"Ab\ 1"
    assert words("über") == "[Üü]ber"
    assert words("Σ") == words("ς") == "[Σςσ]"
    assert words("ß文—") == "[ßẞ]文—"
    assert words("ŉ") == "ŉ"  # its capital is of two letters
    assert words("a.*[b]_%\\") == r"a\.\*\[b\]\_\%\\"
    assert whole("*Ü_b") == r"^.*[Üü]\_b$"


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20))
def test_words_match_themselves(text: str) -> None:
    """A text matches itself, in the other cases that its letters have one by one, and no longer text as a whole."""
    cases = [text, *("".join(c if len(other(c)) > 1 else other(c) for c in text) for other in (str.upper, str.lower))]
    for case in cases:
        assert re.search(words(text), f"x{case}x", re.IGNORECASE | re.ASCII | re.DOTALL) or "İ" in text
    star = text.replace("*", "x")
    assert re.fullmatch(whole(f"{star}*"), f"{star}more", re.IGNORECASE | re.ASCII | re.DOTALL)
