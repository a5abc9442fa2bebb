"""Select the body parts of a message and join them into one text and one HTML body (RFC 8621 4.1.4).

Differences from RFC 8621, each for readers who get these two bodies and a list of files:

- The text body consists of text/plain parts only. The HTML body exists if there is a text/html part.
- Inside multipart/alternative a name does not make a part a file: each part is a version of the body (RFC 2046 5.1.4).
- The root of multipart/related is the one that `start` names (RFC 2387 3.2), or the first that can be shown.
- Blank parts are dropped, and an AMP version is not shown.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .part import Part

SEPARATOR = "\n"  # between the parts of one body
_BODY_TYPES = frozenset({"text/plain", "text/html"})
_SAVED_TEXT = frozenset({"text/calendar", "text/x-vcalendar", "text/vcard", "text/x-vcard", "text/directory"})
# White space (str.isspace) and invisible characters. A regular expression of them takes as long to compile as this
# module.
_BLANKS = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029"
    "\u202f\u205f\u3000\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b\u200c\u200d\u200e\u200f\u2060\u2800\u3164"
    "\ufeff\uffa0"
)


class Place(NamedTuple):
    """The position of a part in the message.

    around: the media type of the enclosing multipart, "" if there is none. first: whether the part is its first child.
    root: whether it is the root of a multipart/related, the child that is shown.
    """

    around: str = ""
    first: bool = True
    root: bool = False


ALONE = Place()
"""The position of the message itself."""


class Text(NamedTuple):
    """The decoded text of one part."""

    text: str
    html: bool


def places(part: Part, place: Place = ALONE) -> Iterator[tuple[Part, Place]]:
    """Yield each part that has content, in order, with its place. An enclosed entity has the place of its container."""
    if not part.divided:
        yield part, place
        if part.inside is not None:
            yield from places(part.inside, place)
        return
    root = _root(part) if part.content_type == "multipart/related" else None
    for child in part.children:
        yield from places(child, Place(part.content_type, child is part.children[0], child is root))


def is_body(part: Part, place: Place, named: bool, disposition: str) -> bool:
    """Whether a part is shown inline, as text of the body (RFC 2183 2.1).

    `named`: it has a file name. `disposition`: the value of its Content-Disposition. A multipart that could not be
    divided is shown as text.
    """
    kind = part.content_type
    if kind.startswith("multipart/"):
        return True
    if disposition == "attachment":
        return False
    if kind not in _BODY_TYPES:
        return not place.around and not named and kind.startswith("text/") and kind not in _SAVED_TEXT
    if place.around == "multipart/related":
        return place.root
    return not named or place.first or place.around == "multipart/alternative"


def is_other_version(part: Part, place: Place) -> bool:
    """Whether a part is a version of the body that is neither shown nor an attachment."""
    return part.content_type == "text/x-amp-html" and place.around == "multipart/alternative"


def is_blank(text: str) -> bool:
    """Whether a text has no visible character."""
    return not text.lstrip(_BLANKS)


def join(root: Part, found: Mapping[str, Text]) -> tuple[str | None, str | None]:
    """Return the text and the HTML body of a message. `found` are the texts of its body parts by part number."""
    plain, rich = _versions(root, found)
    html = None
    if any(text.html for text in rich):
        html = SEPARATOR.join(text.text if text.html else _as_html(text.text) for text in rich)
    return SEPARATOR.join(text.text for text in plain) or None, html or None


def _versions(part: Part, found: Mapping[str, Text]) -> tuple[list[Text], list[Text]]:
    """Return the texts of a part for a reader of plain text, and those for a reader of HTML."""
    text = found.get(part.number)
    if text is not None and not part.divided:
        return ([] if text.html else [text]), [text]
    parts = part.children if part.divided else [part.inside] if part.inside is not None else []
    versions = [_versions(each, found) for each in parts]
    if part.divided and part.content_type == "multipart/alternative":
        is_rich = [any(text.html for text in rich) for _, rich in versions]
        plain = [own for (own, _), html in zip(versions, is_rich, strict=True) if not html and own]
        rich = [own for (_, own), html in zip(versions, is_rich, strict=True) if html]
    else:
        plain = rich = []
    return (
        [text for texts in plain or [own for own, _ in versions] for text in texts],
        [text for texts in rich or [own for _, own in versions] for text in texts],
    )


def _root(related: Part) -> Part | None:
    start = (related.parameters.octets("start") or b"").strip(b"<> \t")
    for child in related.children if start else ():
        if (child.first("content-id") or b"").strip(b"<> \t\r\n") == start:
            return child
    shown = (each for each in related.children if each.content_type in _BODY_TYPES or each.divided)
    first = related.children[0] if related.children else None
    return first if first is None or first.divided or first.content_type in _BODY_TYPES else next(shown, first)


def _as_html(text: str) -> str:
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(character, entity)
    return f'<pre style="white-space: pre-wrap">{text}</pre>'
