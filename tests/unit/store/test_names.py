"""How an operator selects rows: numbers, and patterns."""

import pytest

from pipehandler.store.bigint import bigint
from pipehandler.store.like import escaped, like


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
