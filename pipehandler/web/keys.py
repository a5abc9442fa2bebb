"""The visitor's keys: how they are written, kept in the cookie, and read from a request.

A key is 32 random octets. The database has only its digest. A browser has up to eight keys in one cookie, the current one
first; a program sends one as a bearer token (RFC 6750).
"""

import base64
import binascii
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers

from pipehandler.store.inbox_shards import OCTETS

MAX_KEYS = 8
"""The keys of one browser; a further one replaces the one that was used least recently."""

_SEPARATOR = "."
_SECURE_NAME = "__Host-inbox"  # RFC 6265bis 4.1.3.2: no subdomain can set it
_PLAIN_NAME = "inbox"  # over HTTP on loopback, where browsers refuse the prefix
_LANGUAGE = "language"

VIEWER_AGE = 400 * 86_400
"""The longest life of a cookie that browsers allow (RFC 6265bis 5.5), in seconds."""


def text_of(key: bytes) -> str:
    """Return a key as text: base64url without padding (RFC 4648 5), 43 characters."""
    return base64.urlsafe_b64encode(key).rstrip(b"=").decode("ascii")


def key_of(text: str) -> bytes | None:
    """Return the key that the text is, None if it is not one. A whole link with the key behind `#` is understood, too."""
    written = text.strip().rpartition("#")[2]
    try:
        key = base64.b64decode(f"{written}=".encode("ascii"), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == OCTETS and text_of(key) == written else None


def keys_of_cookie(headers: Headers, secure: bool) -> tuple[bytes, ...]:
    """Return the keys of the browser, the current one first; what is not a key is left out."""
    texts = _cookie(headers, _SECURE_NAME if secure else _PLAIN_NAME).split(_SEPARATOR)
    keys = [key for text in texts[:MAX_KEYS] if (key := key_of(text))]
    return tuple(dict.fromkeys(keys))


def language_of_cookie(headers: Headers) -> str:
    """Return the language that the visitor has chosen, "" if none."""
    return _cookie(headers, _LANGUAGE)


def bearer_key(headers: Headers) -> bytes | None:
    """Return the key of the field Authorization; None if there is none, or it is not a key."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return key_of(token) if scheme.lower() == "bearer" else None


def with_current(keys: Iterable[bytes], key: bytes) -> tuple[bytes, ...]:
    """Return the keys with `key` as the current one, at most MAX_KEYS."""
    return (key, *(each for each in keys if each != key))[:MAX_KEYS]


def without(keys: Iterable[bytes], *gone: bytes) -> tuple[bytes, ...]:
    """Return the keys without those."""
    return tuple(each for each in keys if each not in gone)


def keys_cookie(keys: Iterable[bytes], secure: bool, max_age: int) -> str:
    """Return the field Set-Cookie that keeps the keys, or removes them if there is none."""
    value = _SEPARATOR.join(map(text_of, keys))
    return _set_cookie(_SECURE_NAME if secure else _PLAIN_NAME, value, secure, max_age if value else 0)


def language_cookie(code: str, secure: bool) -> str:
    """Return the field Set-Cookie that keeps the visitor's language."""
    return _set_cookie(_LANGUAGE, code, secure, VIEWER_AGE)


def _set_cookie(name: str, value: str, secure: bool, max_age: int) -> str:
    flags = "; Secure" if secure else ""
    return f"{name}={value}; Path=/; Max-Age={max_age}; HttpOnly; SameSite=Lax{flags}"


def _cookie(headers: Headers, name: str) -> str:
    cookies: SimpleCookie = SimpleCookie()
    for field in headers.getlist("cookie"):
        for pair in field.split(";"):  # one by one: SimpleCookie stops at the first that it does not like
            try:
                cookies.load(pair.strip())
            except CookieError:
                continue
    return cookies[name].value if name in cookies else ""
