"""Which parts are read as the text of a message, and how they become one text and one HTML body (RFC 8621 4.1.4).

Differences from RFC 8621, each for readers who have these two bodies and a list of files:

- The text body is made of text/plain only. The HTML body exists where there is a text/html part.
- Inside multipart/alternative a name does not make a part a file: each part is a version of the body (RFC 2046 5.1.4).
- The root of multipart/related is the one that `start` names (RFC 2387 3.2), or the first that can be shown.
- Blank parts say nothing, and an AMP version is not shown.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from .part import Part

SEPARATOR = "\n"  # between the parts of one body
_BODY_TYPES = frozenset({"text/plain", "text/html"})
_SAVED_TEXT = frozenset({"text/calendar", "text/x-vcalendar", "text/vcard", "text/x-vcard", "text/directory"})
# White space (str.isspace), and what has no look. An expression with these takes as long to compile as all of this module.
_BLANKS = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029"
    "\u202f\u205f\u3000\u00ad\u200b\u200c\u200d\u2060\ufeff"
)


class Place(NamedTuple):
    """Where a part stands: the media type of the multipart around it, "" for none; whether it is the first there; whether
    it is what is shown of a multipart/related."""

    around: str = ""
    first: bool = True
    root: bool = False


ALONE = Place()
"""Where the message itself stands."""


class Text(NamedTuple):
    """The decoded text of one part."""

    text: str
    html: bool


def places(part: Part, place: Place = ALONE) -> Iterator[tuple[Part, Place]]:
    """Each part with content in its order, and where it stands; what came out of a part stands where that part stood."""
    if not part.divided:
        yield part, place
        if part.inside is not None:
            yield from places(part.inside, place)
        return
    root = _root(part) if part.content_type == "multipart/related" else None
    for child in part.children:
        yield from places(child, Place(part.content_type, child is part.children[0], child is root))


def is_body(part: Part, place: Place, named: bool, disposition: str) -> bool:
    """Whether a part is read in place: RFC 2183 2.1. `named`: it has a file name; `disposition`: what its
    Content-Disposition says. A multipart that could not be divided is shown as text.
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
    """Whether a part is a version of the body that is not shown, and no file either."""
    return part.content_type == "text/x-amp-html" and place.around == "multipart/alternative"


def is_blank(text: str) -> bool:
    """Whether nothing of a text is to be seen."""
    return not text.lstrip(_BLANKS)


def join(root: Part, found: Mapping[str, Text]) -> tuple[str | None, str | None]:
    """The text and the HTML body of a message; `found` are the texts of its body parts by part number."""
    plain, rich = _versions(root, found)
    html = None
    if any(text.html for text in rich):
        html = SEPARATOR.join(text.text if text.html else _as_html(text.text) for text in rich)
    return SEPARATOR.join(text.text for text in plain) or None, html or None


def _versions(part: Part, found: Mapping[str, Text]) -> tuple[list[Text], list[Text]]:
    """What is read of a part by those who want plain text, and by those who want HTML."""
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
