"""The response headers that keep hostile mail harmless, in one table: one row for each kind of response.

Mail is a document of its own, without scripts and without an origin: the header has a `sandbox`, and the frame around it
has the same tokens. Its policy admits no request at all; after a click on "show images" it admits https images. The
page itself runs scripts and styles of its own files, and may be framed by nobody.
"""

from collections.abc import Mapping
from typing import Literal, get_args
from urllib.parse import quote

Kind = Literal[
    "page", "mail", "mail_with_images", "print", "print_with_images", "attachment", "thumbnail", "static", "json"
]
KINDS: tuple[Kind, ...] = get_args(Kind)

SANDBOX = "allow-popups allow-popups-to-escape-sandbox"
"""The tokens of the frame that shows mail: links open in a new window, and nothing else is allowed. A `sandbox` attribute
without tokens would block every link, whatever the header allows."""

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; frame-src 'self'; "
    "manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


def _mail_policy(images: bool, ancestors: str) -> str:
    sources = "img-src data: https:; upgrade-insecure-requests" if images else "img-src data:"
    return (
        f"sandbox {SANDBOX}; default-src 'none'; {sources}; style-src 'unsafe-inline'; "
        f"form-action 'none'; base-uri 'none'; frame-ancestors {ancestors}"
    )


_NO_FEATURES = (
    "accelerometer=(), autoplay=(), camera=(), display-capture=(), encrypted-media=(), fullscreen=(), geolocation=(), "
    "gyroscope=(), magnetometer=(), microphone=(), midi=(), payment=(), publickey-credentials-get=(), usb=()"
)
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": _NO_FEATURES,
}
_PRIVATE = {"Cache-Control": "no-store"}
_DOCUMENT = {"X-DNS-Prefetch-Control": "off", "Cross-Origin-Opener-Policy": "same-origin"}
_NO_DOCUMENT = {"Content-Security-Policy": "sandbox; default-src 'none'; frame-ancestors 'none'"}


def _mail(images: bool, framed: bool) -> Mapping[str, str]:
    return {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": _mail_policy(images, "'self'" if framed else "'none'"),
        **_ALWAYS,
        **_PRIVATE,
        **_DOCUMENT,
    }


HEADERS: Mapping[Kind, Mapping[str, str]] = {
    "page": {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": PAGE_POLICY,
        "X-Frame-Options": "DENY",
        **_ALWAYS,
        **_PRIVATE,
        **_DOCUMENT,
    },
    "mail": _mail(images=False, framed=True),
    "mail_with_images": _mail(images=True, framed=True),
    "print": _mail(images=False, framed=False),
    "print_with_images": _mail(images=True, framed=False),
    # A file is never shown, whatever it calls itself: a browser that ignores the type would still find no origin.
    "attachment": {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": "attachment",
        **_NO_DOCUMENT,
        **_ALWAYS,
        **_PRIVATE,
    },
    # `Content-Type` is replaced by the type that the first octets show (images.py).
    "thumbnail": {
        "Content-Type": "application/octet-stream",
        "Content-Disposition": "inline",
        **_NO_DOCUMENT,
        **_ALWAYS,
        **_PRIVATE,
    },
    # `Content-Type` is that of the file. Its name contains a digest of its content.
    "static": {**_NO_DOCUMENT, **_ALWAYS, "Cache-Control": "public, max-age=31536000, immutable"},
    "json": {"Content-Type": "application/json", **_NO_DOCUMENT, **_ALWAYS, **_PRIVATE},
}
"""The exact headers of each kind of response. A caller adds to them and changes none, except where a comment says so."""


def response_headers(kind: Kind, *, file_name: str | None = None, media_type: str | None = None) -> dict[str, str]:
    """Return the headers of a response of this kind.

    file_name: the name under which a browser saves an attachment; any text, the sender may have chosen it.
    media_type: replaces the type of a thumbnail or a static file.
    """
    headers = dict(HEADERS[kind])
    if media_type is not None:
        headers["Content-Type"] = media_type
    if file_name is not None:
        headers["Content-Disposition"] = f"{headers['Content-Disposition']}; {_file_name(file_name)}"
    return headers


def _file_name(name: str) -> str:
    """Return the parameters of RFC 6266: the name in ASCII for old clients, and as it is (RFC 8187)."""
    name = safe_file_name(name)
    plain = "".join(letter if " " <= letter <= "~" and letter not in '"\\%' else "_" for letter in name)
    return f"filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"


_LONGEST_NAME = 200  # octets in UTF-8; file systems accept 255, and browsers append " (1)"
_RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))})


def shown_file_name(name: str) -> str:
    """Return a name that a sender has given, as it is safe to read: without what turns, hides or breaks it.

    The joiners of Arabic and Indic letters and of emoji stay. Empty if nothing can be read.
    """
    return "".join(letter for letter in name if letter.isprintable() or letter in "\u200c\u200d").strip()


def safe_file_name(name: str) -> str:
    """Return a name for a file that a sender has named: no folder, no control character, not hidden, not a device.

    The extension stays, also that of a name that is shortened. An empty name becomes "attachment".
    """
    name = "".join(
        "_" if letter in '/\\:*?"<>|' else letter
        for letter in name.encode("utf-8", "replace").decode()
        if letter.isprintable()  # what turns the direction of text is not (UAX 9)
    )
    name = " ".join(name.split()).strip(". ")
    stem, dot, extension = name.rpartition(".")
    if not dot or len(extension.encode()) > 20:
        stem, extension = name, ""
    room = _LONGEST_NAME - len(f"{dot}{extension}".encode()) if extension else _LONGEST_NAME
    stem = stem.encode()[:room].decode("utf-8", "ignore").strip(". ")
    if stem.partition(".")[0].casefold() in _RESERVED:
        stem = f"_{stem}"
    return f"{stem or 'attachment'}.{extension}" if extension else stem or "attachment"
