"""Repair text that is almost UTF-8 (RFC 3629)."""

import re

_SURROGATES = re.compile(rb"(?:\xed[\xa0-\xbf][\x80-\xbf])+")
_JOINED_OCTETS = 1_000_000  # at most, if surrogates are joined one by one, at a microsecond each
_CUT = re.compile(
    rb"(?:\xe0[\xa0-\xbf]|[\xe1-\xef][\x80-\xbf]|\xf0[\x90-\xbf][\x80-\xbf]?|[\xf1-\xf4][\x80-\xbf]{1,2})\Z"
)


def is_cut(octets: bytes) -> bool:
    """Whether `octets`, apart from trailing white space, end inside a character, after its second octet or later."""
    return _CUT.search(octets.rstrip()[-4:]) is not None


def without_surrogates(octets: bytes) -> bytes:
    """Replace surrogates that were encoded one by one (CESU-8, UTR 26) by the character of each pair.

    A surrogate without its pair becomes U+FFFD.
    """
    try:
        return _paired(octets)
    except ValueError:  # other octets are not UTF-8
        few = len(octets) <= _JOINED_OCTETS
        return _SURROGATES.sub(lambda found: _paired(found[0]), octets) if few else octets


def _paired(octets: bytes) -> bytes:
    text = octets.decode("utf-8", "surrogatepass")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
