"""Decode octets to text: by their charset label if the result is plausible, else by detection.

The same rule serves bodies, header fields, encoded-words and file names. The readings are tried in this order, and the
first plausible one is used (docs/design/charsets.md gives the reasons and the figures).

1. A byte order mark, or escape sequences that announce a stateful charset.
2. UTF-8 if the octets are valid in it, whatever the label, unless that reading is the odder one.
3. UTF-8 with U+FFFD for a few octets that are not valid.
4. The label, or the charset that is often meant by it, unless that reading is odd and a detector finds one that is not.
5. The detector's likeliest reading, given what the rest of the message uses; windows-1252 as a last resort.

Most text is ASCII or UTF-8 and labelled as such. That case is decided here, all others in undecided.py.
"""

import codecs
from collections.abc import Sequence

from .charset import EBCDIC, SEVEN_BIT, VISCII, Decoded, codec, strictly


def decode(octets: bytes, label: str | None = None, hints: Sequence[str] = (), html: bool = False) -> Decoded:
    """Decode `octets`, labelled with the charset `label`. Never raises; takes time linear in their number.

    `hints` are charsets used elsewhere in the message, likeliest first, for a `label` that is missing or wrong; pass
    Hints to bound the cost of all guesses together. With `html` the document's own <meta charset> is used if there is
    no other label.
    """
    name = codec(label)
    if octets.isascii():
        followed = name not in SEVEN_BIT and name not in EBCDIC and (name is not None or not label)
        if followed and name != VISCII and b"\x1b" not in octets and b"~{" not in octets and b"\0" not in octets:
            return Decoded(octets.decode("ascii"), "ascii")
    elif name == "utf_8" and b"\x1b" not in octets and not octets.startswith(codecs.BOM_UTF8):
        text = strictly(octets, "utf_8")
        if text is not None:
            return Decoded(text, "utf_8")
    from . import undecided  # loads the modules for other charsets, which few messages need

    return undecided.decode(octets, name, label, hints, html)
