"""What the header says of the program that sent a message: that there was one, and how it stops (RFC 3834, 2369, 8058)."""

import re

_COMMENT = re.compile(r"\([^()]*\)")
_IN_BRACKETS = re.compile(r"<([^<>]*)>")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S")  # RFC 3986 3.1
_WORD_SIZE = 100  # characters
_URIS = 20


def keyword(body: str | None) -> str | None:
    """The first word of a field such as Auto-Submitted (RFC 3834 5), in lower case, without comments and parameters."""
    words = _COMMENT.sub(" ", body or "").partition(";")[0].lower().split()
    return words[0][:_WORD_SIZE] if words else None


def unsubscribe(body: str | None) -> list[str]:
    """The URIs of List-Unsubscribe in their order (RFC 2369 2): blanks in them mean nothing, what is no URI is left out."""
    body = body or ""
    found = _IN_BRACKETS.findall(body) or body.split(",")  # without brackets, some send it
    uris = ("".join(each.split()) for each in found)
    return list(dict.fromkeys(uri for uri in uris if _URI.match(uri)))[:_URIS]


def is_one_click(body: str | None, uris: list[str]) -> bool:
    """Whether List-Unsubscribe-Post has the one value that it may have, and there is a URI to post it to (RFC 8058 3.1)."""
    posts = "".join((body or "").split()).lower() == "list-unsubscribe=one-click"
    return posts and any(uri.lower().startswith("https:") for uri in uris)
