"""flowed: paragraphs are restored from format=flowed (RFC 3676)."""

import pytest

from pipehandler.parse.flowed import unflow


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("\n", "\n"),
        ("a \nb\n", "a b\n"),
        ("a \nb", "a b"),
        ("a \nb \n", "a b \n"),
        ("a\nb \n\nc\n", "a\nb \nc\n"),
        # Space-stuffing (4.4).
        ("a \n From b\n", "a From b\n"),
        (" > no quote\n", "> no quote\n"),
        ("  two\n", " two\n"),
        # Signature (4.3).
        ("a \n-- \nAnn \nB\n", "a \n-- \nAnn B\n"),
        ("> a\n> -- \n> Ann\n", "> a\n> -- \n> Ann\n"),
        # Quotes (4.5): a paragraph ends with its quote depth.
        ("> a \n> b\n", "> a b\n"),
        (">a \n>b\n", "> a b\n"),
        (">> a \n> b\nc\n", ">> a \n> b\nc\n"),
        (">\n>\n", ">\n>\n"),
        ("> a \nb\n", "> a \nb\n"),
    ],
)
def test_unflow(text: str, expected: str) -> None:
    """RFC 3676 4.1 to 4.5."""
    assert unflow(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("abc \ndef\n", "abcdef\n"),
        ("a  \nb\n", "a b\n"),
        ("日本 \n語\n", "日本語\n"),
        ("> a  \n> b\n", "> a b\n"),
        ("a \n-- \nb\n", "a\n-- \nb\n"),
    ],
)
def test_delsp(text: str, expected: str) -> None:
    """DelSp=yes: the space before the break is not part of the text."""
    assert unflow(text, delete_space=True) == expected
