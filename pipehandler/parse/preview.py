"""The first words of a message, for a list of mail."""

import re

from .charset import one_line

LENGTH = 200
"""The maximum length of a preview, in characters."""

_BEGINNING = 500  # characters of text that nearly always suffice
_SIZE = 100_000  # characters that are searched if they do not: padding may come first
_BEGINNING_OF_HTML = 2_000  # the same for text made from HTML, which has link targets between the words
# Invisible characters, with which senders pad a preheader.
_INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200c\u200d\u200e\u200f\u2060\u2800\u3164\ufeff\uffa0"
)
# What html_text.to_text adds to the words of HTML: marks of list items and quoted lines, and link targets. Compiled on
# first use: only mail with nothing but HTML needs them. Each begins with fixed characters, which `re` finds fast.
_MARKS = r"\n(?:(?:> ?)+(?:- )?|- )"
_TARGETS = r"(?: <|<)(?i:https?://|mailto:)[^<>]*>"


def preview(text: str | None, from_html: str | None = None) -> str:
    """Return the first words of a message, at most LENGTH characters on one line.

    They are those of its text, or else of `from_html`, the result of html_text.to_text. Runs of white space become one
    blank; the invisible characters with which senders pad a preheader are removed.
    """
    words = _words(text or "")
    if not words and from_html:
        beginning = from_html[:_BEGINNING_OF_HTML]
        if beginning.rfind("<") <= beginning.rfind(">"):  # not cut inside a link target
            words = _words(_without_added(beginning))
        if len(words) <= LENGTH:
            words = _words(_without_added(from_html[:_SIZE]))
    if len(words) <= LENGTH:
        return words
    beginning, space, _ = words[:LENGTH].rpartition(" ")
    return (beginning if space and len(beginning) > LENGTH // 2 else words[: LENGTH - 1]) + "…"


def _without_added(text: str) -> str:
    return re.sub(_TARGETS, "", re.sub(_MARKS, "\n", f"\n{text}"))


def _words(text: str) -> str:
    """Return the beginning of `text` on one line without control characters; longer than a preview if `text` is."""
    for size in (_BEGINNING, _SIZE):
        words = one_line(" ".join(visible for word in text[:size].split() if (visible := word.strip(_INVISIBLE))))
        if len(words) > LENGTH or size >= len(text):
            break
    return words
