"""What the commands write: `say` writes one line, and every value in it is foreign until it has passed `safe`.

Mail, the database, the journal and file names may hold anything: escape sequences, line breaks that would forge a line of ours,
characters that change the direction of a line, hide text or take no room. None of them reaches the terminal. The library wcwidth
differs from `width` only for emoji sequences, about which terminals do not agree either.
"""

import json
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import click

_LINE = 4_000  # columns of the longest line
_MARGIN = "| "
_NARROWEST = 8  # columns of a text in a table that has to fit
_CHUNK = 1_000  # characters of a line of foreign text before it continues on the next one

# Control, format (directions, zero width, tags), surrogate, private use, line and paragraph separators.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})

# Default_Ignorable_Code_Point in other categories (Unicode, DerivedCoreProperties.txt), but for the two that choose between the
# forms of an emoji; and what is no character.
_INVISIBLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u3164\ufe00-\ufe0d\uffa0\ufff0-\ufff8\ufffe\uffff"
    "\U000e0000-\U000e0fff]"
)
_UNUSUAL = re.compile(r"[^\n\x20-\x7e]")  # what needs a closer look
_SPACE = re.compile(r"[\t\n\r]+")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_REPLACEMENTS = re.compile(f"{_REPLACEMENT}{{2,}}")


def say(line: str, err: bool = False, colour: str | None = None) -> None:
    """Print one line, on stderr if `err`. Whatever values it holds, it stays one line, and the terminal obeys none of them.

    colour: of the whole line on a terminal, unless NO_COLOR is set (no-color.org).
    """
    text = shorten(line, _LINE, folded=False)
    if colour and not os.environ.get("NO_COLOR"):
        text = click.style(text, fg=colour)
    click.echo(text, err=err)


def say_all(lines: Iterable[str]) -> None:
    """Print each of `lines`."""
    for line in lines:
        say(line)


def say_json(text: str) -> None:
    """Print JSON, in which what a terminal would interpret is escaped; the values stay the same."""
    click.echo(_UNUSUAL.sub(lambda match: json.dumps(match[0])[1:-1] if is_unsafe(match[0]) else match[0], text))


def is_unsafe(char: str) -> bool:
    """Return whether a terminal would interpret `char`, or not show it."""
    return unicodedata.category(char) in _UNSAFE or _INVISIBLE.match(char) is not None


def safe(text: str) -> str:
    """Return `text` on one line: tabs and line breaks become spaces, other unsafe characters U+FFFD, one for each run."""
    text = _UNUSUAL.sub(lambda match: _REPLACEMENT if is_unsafe(match[0]) else match[0], _SPACE.sub(" ", text))
    return _REPLACEMENTS.sub(_REPLACEMENT, text)


def block(text: str) -> Iterator[str]:
    """Yield foreign text of several lines, each with a margin that no line of ours has; a long line continues on the next."""
    for line in re.split(r"\r\n|[\n\r]", text):
        for begin in range(0, len(line) or 1, _CHUNK):
            yield _MARGIN + safe(line[begin : begin + _CHUNK].expandtabs())


def width(text: str) -> int:
    """Return the number of columns that `text` takes on a terminal."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(char: str) -> int:
    # The vowels and final consonants of decomposed Hangul are part of the syllable before them.
    if "\u1160" <= char <= "\u11ff" or "\ud7b0" <= char <= "\ud7ff":
        return 0
    if unicodedata.category(char) in ("Mn", "Me", "Cf") and char != "\N{SOFT HYPHEN}":
        return 0  # combining or invisible
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def shorten(text: str, columns: int, folded: bool = True) -> str:
    """Return `text` on one line of at most `columns` columns. folded: each white space becomes one space."""
    part = safe(text[: 8 * columns])
    if folded:
        part = " ".join(part.split())
    room = columns - (len(text) > 8 * columns)
    if width(part) <= room:
        return part if room == columns else part + "…"
    used = 0
    for index, char in enumerate(part):
        used += _columns(char)
        if used >= columns:
            return part[:index] + "…"
    return part + "…"


class Size(str):
    """A size as text, which is right-aligned like a number."""


def human_size(octets: int) -> Size:
    """Return a size with a unit: octets below a thousand, else one decimal of kB, MB or GB (powers of 1000)."""
    size = float(octets)
    for unit in ("B", "kB", "MB"):
        if size < 999.95 or (unit == "B" and size < 1_000):
            return Size(f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}")
        size /= 1_000
    return Size(f"{size:.1f} GB")


def terminal_columns() -> int | None:
    """Return the width of the terminal that stdout is; None if it is not one, and nothing has to fit."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


@contextmanager
def working(text: str) -> Iterator[None]:
    """Show on a terminal what takes a while, on stderr, and clear it at the end."""
    if not sys.stderr.isatty():
        yield
        return
    click.echo(f"{text} ...", err=True, nl=False)
    try:
        yield
    finally:
        click.echo("\r\x1b[K", err=True, nl=False)


def page(lines: Iterable[str]) -> None:
    """Print each of `lines`, on a terminal through the pager: PAGER, or less, which ends by itself if all fit."""
    if not sys.stdout.isatty():
        say_all(lines)
        return
    os.environ.setdefault("LESS", "FRX")
    click.echo_via_pager(f"{shorten(line, _LINE, folded=False)}\n" for line in lines)


def table(
    head: Sequence[str], rows: Sequence[Sequence[object]], widest: int = 40, columns: int | None = None
) -> list[str]:
    """Return the lines of a table, a header first; columns of numbers and sizes are right-aligned.

    No column is wider than `widest`; texts are shortened further so that a line fits into `columns`, if that is given.
    """
    by_column = list(zip(*rows, strict=True))
    numeric = [all(isinstance(value, (int, Size)) for value in values) for values in by_column]
    cells = [
        [name, *("" if value is None else shorten(str(value), widest) for value in values)]
        for name, values in zip(head, by_column, strict=True)
    ]
    widths = [max(map(width, column)) for column in cells]
    if columns is not None:
        widths = _fitted(widths, numeric, columns)
    padded = [
        [_padded(cell, room, right) for cell in column]
        for column, room, right in zip(cells, widths, numeric, strict=True)
    ]
    return ["  ".join(line).rstrip() for line in zip(*padded, strict=True)]


def _fitted(widths: list[int], numeric: list[bool], columns: int) -> list[int]:
    """Return narrower widths of texts, the widest first, so that a line has `columns` columns where possible."""
    widths = list(widths)
    while sum(widths) + 2 * (len(widths) - 1) > columns:
        room, index = max(
            (0 if number else room, index) for index, (room, number) in enumerate(zip(widths, numeric, strict=True))
        )
        if room <= _NARROWEST:
            break
        widths[index] -= 1
    return widths


def _padded(cell: str, room: int, right: bool) -> str:
    if width(cell) > room:
        cell = shorten(cell, room)
    padding = " " * (room - width(cell))
    return padding + cell if right else cell + padding
