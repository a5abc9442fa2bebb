"""One address (addr-spec, RFC 5322 3.4.1), without what senders put around it."""

import re
from collections.abc import Sequence

_ROUTE = re.compile(r"(?:@[^@,:]*(?:,\s*)?)+:")  # RFC 5322 4.4
_COMMENT = re.compile(r"\([^()]*\)")
_SCHEME = re.compile(r"(?:mailto|smtp):", re.IGNORECASE)  # Exchange writes "SMTP:"
_WORD_IN_COMMENT = re.compile(r"[^\s<>()]+")


def in_comments(comments: Sequence[str]) -> str | None:
    """Return the first word of the comments that looks like an address."""
    words = (word for comment in comments for word in _WORD_IN_COMMENT.findall(comment))
    return next((word for word in words if "@" in word[1:-1]), None)


def in_angle_brackets(angle: str) -> str:
    """Return the address in angle brackets without an obsolete route (RFC 5322 4.4) or quotes around the whole."""
    address = angle.strip()
    if address.startswith("@"):
        route = _ROUTE.match(address)
        address = address[route.end() :] if route else address
    if '"' not in address:
        address = without_blanks(_COMMENT.sub("", address))
    if len(address) > 1 and address[0] == address[-1] == '"':
        address = address[1:-1].strip()
    return address


def plain(address: str) -> str:
    """Return an address without a scheme before it, and without single quotes around it, as Outlook writes them."""
    if len(address) > 2 and address[0] == address[-1] == "'":
        address = address[1:-1]
    scheme = _SCHEME.match(address)
    return address[scheme.end() :] if scheme and "@" in address else address


def without_blanks(address: str) -> str:
    """Return an address without the blanks around it, its dots and its @ (RFC 5322 4.4).

    Linear in its length; a regular expression that begins with blanks would not be.
    """
    for mark in "@.":
        address = mark.join(piece.strip() for piece in address.split(mark))
    return address
