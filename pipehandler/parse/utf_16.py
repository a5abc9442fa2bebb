"""UTF-16 and UTF-32 (RFC 2781), with and without a byte order mark."""

import codecs

from .charset import WIDE, codec, strictly
from .plausibility import ODD, oddness

_BEGINNING = 4_096  # octets in which zeros are counted


def is_wide(octets: bytes, label: str | None) -> bool:
    """Whether `octets` are text in UTF-16 or UTF-32, where a zero octet is not a control character."""
    if codec(label) in WIDE or octets.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return True
    return has_zeros(octets) and read(octets, "utf_16") is not None


def read(octets: bytes, name: str) -> str | None:
    """Decode `octets`, which have no byte order mark, in a charset of WIDE; None if they cannot be in it.

    The zeros of ASCII characters show the byte order; without zeros it is big-endian (RFC 2781 4.3).
    """
    if name.startswith("utf_32"):
        orders: tuple[str, ...] = ("utf_32_be", "utf_32_le") if name == "utf_32" else (name,)
    else:
        even, odd = _zeros(octets)
        orders = ("utf_16_le",) if odd > even or (name == "utf_16_le" and even == odd) else ("utf_16_be",)
    for order in orders:
        text = strictly(octets, order)
        if text is not None and "\0" not in text and oddness(text) <= ODD:
            return text
    return None


def has_zeros(octets: bytes) -> bool:
    """Whether there are several zeros, all at even positions or all at odd ones. 8-bit text has none."""
    if b"\0" not in octets:
        return False
    even, odd = _zeros(octets)
    return even + odd > 1 and not (even and odd)


def _zeros(octets: bytes) -> tuple[int, int]:
    return octets[:_BEGINNING:2].count(0), octets[1:_BEGINNING:2].count(0)
