"""Header fields of automatic and bulk mail: Auto-Submitted and similar, and List-Unsubscribe (RFC 3834, 2369, 8058)."""

import re

_COMMENT = re.compile(r"\([^()]*\)")
_IN_BRACKETS = re.compile(r"<([^<>]*)(?:>|\Z)")
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S")  # RFC 3986 3.1
_WORD_SIZE = 100  # characters
_URIS = 20


def keyword(body: str | None) -> str | None:
    """Return the first word of a field such as Auto-Submitted (RFC 3834 5), in lower case.

    Comments and parameters are ignored.
    """
    words = _COMMENT.sub(" ", body or "").partition(";")[0].lower().split()
    return words[0].strip(",\"'")[:_WORD_SIZE] or None if words else None


def unsubscribe(body: str | None) -> list[str]:
    """Return the URIs of List-Unsubscribe (RFC 2369 2) in order, without the blanks in them. Skip anything else."""
    body = body or ""
    found = _IN_BRACKETS.findall(body) or body.split(",")  # some senders omit the brackets
    uris = ("".join(each.split()) for each in found)
    return list(dict.fromkeys(uri for uri in uris if _URI.match(uri)))[:_URIS]


def is_one_click(body: str | None, uris: list[str]) -> bool:
    """Whether List-Unsubscribe-Post has its one legal value, and there is a URI to post to (RFC 8058 3.1)."""
    posts = "".join((body or "").split()).lower() == "list-unsubscribe=one-click"
    return posts and any(uri.lower().startswith("https:") for uri in uris)
