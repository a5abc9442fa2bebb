"""One request: who asks, with which keys, in which language, for HTML or JSON."""

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request

from .guard import is_loopback
from .keys import bearer_key, keys_of_cookie, language_of_cookie
from .languages import LANGUAGES, negotiate
from .limits import Network, TrustedProxies, network_of

_LONGEST_FORM = 65_536
_JSON = "application/json"


class BadForm(Exception):  # the visitor's, not ours
    """The body of a request is too long, or not what its type says; the text says what is expected."""


class Visit:
    """What a request says about its visitor.

    lang: that of the path, else of the cookie, else of Accept-Language. client: the address of the browser, behind trusted
    proxies; network: its network. secure: the browser uses HTTPS. bearer: the key is in Authorization, so no other site can
    have caused the request. keys: the current one first. wanted: the inbox that the request names (rows.name_of), None if it
    names none. form: the fields of a POST.
    """

    def __init__(self, request: Request, proxies: TrustedProxies, public: bool) -> None:
        self.request = request
        headers = request.headers
        peer = request.client.host if request.client else None
        self.client = proxies.client(peer, headers)
        self.network: Network | None = network_of(self.client)
        # A public page is behind a proxy with TLS; only this machine calls it directly.
        self.secure = proxies.is_secure(peer, headers) or (public and not is_loopback(headers))
        token = bearer_key(headers)
        self.bearer = "authorization" in headers
        self.keys = ((token,) if token else ()) if self.bearer else keys_of_cookie(headers, self.secure)
        self.as_json = self.bearer or _prefers_json(headers.get("accept", ""))
        chosen = language_of_cookie(headers)
        self.preferred = chosen if chosen in LANGUAGES else negotiate(headers.get("accept-language"))
        written = request.path_params.get("lang", "")
        self.lang: str = written if written in LANGUAGES else self.preferred
        self.wanted = request.query_params.get("inbox") or None
        self.form: Mapping[str, list[str]] = {}

    @property
    def key(self) -> bytes | None:
        """The current key."""
        return self.keys[0] if self.keys else None

    @property
    def origin(self) -> str:
        """Scheme and host, as the browser has them."""
        return f"{'https' if self.secure else 'http'}://{self.request.headers.get('host', '')}"

    def field(self, name: str) -> str:
        """The first value of a field of the form, without blanks around it; "" if there is none."""
        values = self.form.get(name)
        return values[0].strip() if values else ""

    async def read_form(self) -> None:
        """Read the body: a form, or a JSON object with strings, numbers and lists of them. Raises BadForm."""
        body = bytearray()
        async for piece in self.request.stream():
            body += piece
            if len(body) > _LONGEST_FORM:
                raise BadForm(f"the body has more than {_LONGEST_FORM} octets")
        media_type = self.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            text = body.decode("utf-8")
            if media_type == _JSON:
                self.form = _of_object(json.loads(text or "{}"))
            elif media_type in ("application/x-www-form-urlencoded", ""):
                self.form = parse_qs(text, keep_blank_values=True, max_num_fields=1000)
            else:
                raise BadForm(f"the body is {media_type!r}; expected application/x-www-form-urlencoded or {_JSON}")
        except (ValueError, RecursionError) as error:
            raise BadForm(f"the body is not {media_type or 'a form'} in UTF-8") from error


def _prefers_json(accept: str) -> bool:
    """Whether JSON is asked for, and HTML is not."""
    types = [each.partition(";")[0].strip().lower() for each in accept.split(",")]
    return _JSON in types and "text/html" not in types


def _of_object(value: Any) -> dict[str, list[str]]:
    if not isinstance(value, dict):
        raise BadForm("the body is not a JSON object")
    found = {}
    for name, each in value.items():
        values = each if isinstance(each, list) else [] if each is None else [each]
        if not all(isinstance(one, str | int | float) for one in values):
            raise BadForm(f"{name} is neither a text nor a number, nor a list of them")
        found[name] = [str(one).lower() if isinstance(one, bool) else str(one) for one in values]
    return found
