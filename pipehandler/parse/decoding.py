"""Octets to text: by their charset label where its reading is plausible, else by what they look like.

One rule serves bodies, header fields, encoded-words and file names. The readings are tried in this order; the first
that holds is the text (docs/design/charsets.md gives the reasons and the figures).

1. A byte order mark, or escape sequences that announce a stateful charset.
2. UTF-8 where the octets are valid in it, whatever the label; unless that reading is the odder one.
3. UTF-8 with U+FFFD for the few octets that are not.
4. The label, unless its reading is odd and a detector finds one that is not.
5. The likeliest reading of a detector, given what the rest of the message uses; at last windows-1252.

Most text is ASCII or UTF-8 and its label says so. That is decided here, all else in undecided.py.
"""

import codecs
from collections.abc import Sequence

from .charset import EBCDIC, SEVEN_BIT, Decoded, codec, strictly


def decode(octets: bytes, label: str | None = None, hints: Sequence[str] = (), html: bool = False) -> Decoded:
    """Decode `octets`, whose charset is named `label`. Never raises; takes time linear in their number.

    `hints` are labels that the rest of the message makes likely where `label` is missing or wrong, the likeliest
    first, as Hints with a bound on the cost of all guesses; with `html` the document's own <meta charset> counts as the
    label where there is no other.
    """
    name = codec(label)
    if octets.isascii():
        followed = name not in SEVEN_BIT and name not in EBCDIC and (name is not None or not label)
        if followed and b"\x1b" not in octets and b"~{" not in octets and b"\0" not in octets:
            return Decoded(octets.decode("ascii"), "ascii")
    elif name == "utf_8" and b"\x1b" not in octets and not octets.startswith(codecs.BOM_UTF8):
        text = strictly(octets, "utf_8")
        if text is not None:
            return Decoded(text, "utf_8")
    from . import undecided  # with the modules for other charsets, which few messages need

    return undecided.decode(octets, name, label, hints, html)
