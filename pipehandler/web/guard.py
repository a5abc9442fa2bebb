"""What every request passes before a page sees it: the name by which the page was called, and where a POST comes from.

Host: another site's name that leads here (DNS rebinding) would make its scripts ours. Origin: another site's form would act with
the visitor's cookie; SameSite=Lax keeps that cookie away already, so these are two layers. A program that sends its key in
Authorization passes, because no browser does that by itself.
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Hosts:
    """The names by which browsers may call the page."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = frozenset(name.lower().rstrip(".") for name in names)

    def admits(self, headers: Headers) -> bool:
        """Whether the field Host names us, or this machine, which no other site's name can."""
        fields = headers.getlist("host")
        if len(fields) != 1:
            return False
        name = _name(fields[0])
        return name in self._names or name in LOOPBACK


def is_loopback(headers: Headers) -> bool:
    """Whether the page was called by a name of this machine."""
    return _name(headers.get("host", "")) in LOOPBACK


def is_ours(method: str, headers: Headers) -> bool:
    """Whether a request may act with the cookie: it reads, or a page of ours has sent it (Fetch 2.2, Fetch Metadata)."""
    if method in _SAFE or "authorization" in headers:
        return True
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        # Every browser since 2023 says it. Origin is "null" then: our pages send no referrer (Fetch 3.2).
        return site in ("same-origin", "none")
    if origin is None:
        return "cookie" not in headers  # a program: browsers name the origin of each POST
    # The host alone: behind a proxy the scheme is what the proxy says, and no other site has our host.
    return _netloc(origin) == headers.get("host", "").lower()


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _name(host: str) -> str:
    """Return the name of a Host field, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")
