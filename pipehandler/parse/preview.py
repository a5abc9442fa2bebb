"""The first words of a message, for a list of mail."""

import re

from .charset import one_line

LENGTH = 200
"""The most characters of a preview."""

_BEGINNING = 500  # characters of text in which as many words are found nearly always
_SIZE = 100_000  # where they are looked for; padding may come before them
_BEGINNING_OF_HTML = 2_000  # of text that was made of HTML, in which targets of links stand between the words
# Characters without any look, of which senders make padding behind a preheader.
_INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200c\u200d\u200e\u200f\u2060\u2800\u3164\ufeff\uffa0"
)
# What html_text.to_text adds to the words of HTML: marks of list items and quoted lines, and targets of links. Compiled
# when it is needed, which is for mail with HTML alone.
_ADDED = r"(?im)^(?:> ?)*(?:- )?| ?<(?:https?://|mailto:)[^<>]*>"


def preview(text: str | None, from_html: str | None = None) -> str:
    """The first words of a message: at most LENGTH characters in one line, of its text or else of `from_html`, what
    html_text.to_text made of its HTML. White space is folded; the invisible characters that senders put behind a preheader
    are left out."""
    words = _words(text or "")
    if not words and from_html:
        beginning = from_html[:_BEGINNING_OF_HTML]
        if beginning.rfind("<") <= beginning.rfind(">"):  # not cut inside of a target
            words = _words(re.sub(_ADDED, "", beginning))
        if len(words) <= LENGTH:
            words = _words(re.sub(_ADDED, "", from_html[:_SIZE]))
    if len(words) <= LENGTH:
        return words
    beginning, space, _ = words[:LENGTH].rpartition(" ")
    return (beginning if space and len(beginning) > LENGTH // 2 else words[: LENGTH - 1]) + "…"


def _words(text: str) -> str:
    """The beginning of `text` in one line without control characters; more than a preview has, where there is more."""
    for size in (_BEGINNING, _SIZE):
        words = one_line(" ".join(visible for word in text[:size].split() if (visible := word.strip(_INVISIBLE))))
        if len(words) > LENGTH or size >= len(text):
            break
    return words
