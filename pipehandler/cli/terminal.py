"""Text for a terminal: tables with aligned columns, free of control sequences.

Widths come from unicodedata. The library wcwidth differs only for emoji sequences, about which terminals do not agree either, and
would be one more compiled dependency.
"""

import re
import unicodedata
from collections.abc import Sequence

# Mail may hold escape sequences, and characters that reverse the direction of a line.
UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def safe(text: str) -> str:
    """Replace every control character except line feed and tab."""
    return UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text)


def width(text: str) -> int:
    """Return the number of columns that `text` takes on a terminal."""
    return sum(
        map(_columns, unicodedata.normalize("NFC", text))
    )  # decomposed Hangul takes the columns of its syllables


def _columns(char: str) -> int:
    if unicodedata.category(char) in ("Mn", "Me", "Cf") and char != "\N{SOFT HYPHEN}":
        return 0  # combining or invisible
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def shorten(text: str, columns: int) -> str:
    """Return `text` on one line of at most `columns` columns."""
    text = " ".join(safe(text[: 8 * columns]).split())
    if width(text) <= columns:
        return text
    while width(text) >= columns:
        text = text[:-1]
    return text + "…"


def table(head: Sequence[str], rows: Sequence[Sequence[object]], widest: int = 40) -> str:
    """Return a table with a header line; no column is wider than `widest`, and columns of numbers are right-aligned."""
    columns = []
    for name, values in zip(head, zip(*rows, strict=True), strict=True):
        cells = [name, *("" if value is None else shorten(str(value), widest) for value in values)]
        widest_cell = max(map(width, cells))
        right = all(isinstance(value, int) for value in values)
        padding = [" " * (widest_cell - width(cell)) for cell in cells]
        columns.append([pad + cell if right else cell + pad for cell, pad in zip(cells, padding, strict=True)])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))
