"""What the pages share: the visitor's inboxes, the context of templates, refusals, and answers to what was done."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.responses import Response

from pipehandler.mail.outcome import STORE_UNAVAILABLE
from pipehandler.store.errors import INSUFFICIENT_PRIVILEGE
from pipehandler.store.inbox_errors import KeyRefused
from pipehandler.store.inbox_values import Inbox

from . import keys
from .answers import answer, document, problem, see_other
from .notices import failure_text, notice_text
from .rows import inbox_json, name_of
from .site import Site
from .visit import BadForm, Visit


@dataclass(frozen=True, slots=True)
class Opened:
    """The inboxes that a visitor's keys open. inboxes: by their keys, in the order of the cookie. key: of the one that this
    request is about, None if it opens none. kept: the keys that open something, or may: their shard is away."""

    inboxes: Mapping[bytes, Inbox]
    key: bytes | None
    kept: tuple[bytes, ...] = ()

    @property
    def current(self) -> Inbox | None:
        """The inbox that the request is about."""
        return self.inboxes[self.key] if self.key else None

    @property
    def others(self) -> list[Inbox]:
        """The visitor's other inboxes."""
        return [inbox for key, inbox in self.inboxes.items() if key != self.key]


async def opened(site: Site, visit: Visit, anyway: bool = False) -> Opened:
    """Look at all keys of the visitor. Raises StoreError while the database of the inbox is away that the request may be about,
    unless it is to be answered anyway; KeyRefused for a program's key.

    A page says in its links and forms which inbox it shows (`inbox`), because in another tab the visitor may have chosen or opened
    another one since.
    """
    if not visit.keys:
        return Opened({}, None)
    found, away = await site.inboxes.inboxes(visit.keys)
    kept = tuple(key for key in visit.keys if key in found or key in away)
    inboxes = {key: found[key] for key in kept if key in found}
    if visit.bearer and not kept:
        raise KeyRefused(STORE_UNAVAILABLE, "this key opens no inbox", INSUFFICIENT_PRIVILEGE)
    if visit.wanted is None:
        key = next(iter(kept), None)
    else:
        named = (key for key, inbox in inboxes.items() if visit.wanted == name_of(inbox))
        key = next(named, next(iter(away), None))
    if key is not None and key in away:
        if not anyway:
            raise away[key]
        key = None
    return Opened(inboxes, key, kept)


async def current_key(site: Site, visit: Visit) -> bytes | None:
    """The key of the inbox that a request is about; None if the visitor has none. Raises what `opened` raises."""
    return visit.key if visit.wanted is None else (await opened(site, visit)).key


def page(
    site: Site,
    visit: Visit,
    template: str,
    own: Mapping[str, Any],
    mine: Opened | None = None,
    status: int = 200,
    compress: bool = True,
) -> Response:
    """Return a page for this visitor, and keep only the keys that open something."""
    context = site.templates.common(visit.lang)
    if mine is not None:
        context |= {"inbox": mine.current, "inboxes": mine.others}
        if mine.current is not None:
            context["url"] = partial(_url_within, context["url"], name_of(mine.current))
    context["now"] = datetime.now(UTC)
    context["notice"] = notice_text(visit.request.query_params.get("notice", ""), visit.lang)
    context["here"] = _here(visit) if visit.request.method in ("GET", "HEAD") else "/"
    response = document(visit, site.templates.render(template, {**context, **own}), status=status, compress=compress)
    if mine is not None and mine.kept != visit.keys and not visit.bearer:
        set_keys(site, visit, response, mine.kept)
    return response


_OF_INBOX = frozenset({"inbox", "rows", "events", "key", "extend", "end", "remove_mail", "share", "unshare"})
"""The paths that say which inbox they are about. Those of a message do not need it: the keys are tried."""


def _url_within(url: Callable[..., str], inbox: str, name: str, /, **parameters: object) -> str:
    return url(name, **({"inbox": inbox} if name in _OF_INBOX else {}), **parameters)


def _here(visit: Visit) -> str:
    """Where the choice of another language leads: the same page, without what was said about the last request."""
    url = visit.request.url
    query = urlencode([(name, value) for name, value in parse_qsl(url.query) if name != "notice"])
    return f"{url.path.partition(f'/{visit.lang}')[2]}{'?' if query else ''}{query}"


def set_keys(site: Site, visit: Visit, response: Response, kept: tuple[bytes, ...]) -> None:
    """Keep these keys in the browser: as long as an inbox can last and be brought back, or a team's keys for as long as possible."""
    settings = site.settings
    age = settings.max_life + settings.grace if settings.public else keys.VIEWER_AGE
    response.headers.append("Set-Cookie", keys.keys_cookie(kept, visit.secure, age))


def no_inbox(visit: Visit) -> Response:
    """Answer a visitor whose key opens nothing."""
    if visit.as_json:
        return problem(
            401 if not visit.keys else 403, "key_refused", "this key opens no inbox", {"WWW-Authenticate": "Bearer"}
        )
    return see_other(visit, "home", "gone" if visit.keys else "")


def refused(
    site: Site, visit: Visit, status: int, code: str, text: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer what cannot be done, as a page or as JSON."""
    if visit.as_json:
        return problem(status, code, text, headers)
    failure = failure_text(code, visit.lang)
    seconds = int((headers or {}).get("Retry-After", "0"))
    own = {"status": status, "heading": failure.heading, "text": failure.text, "seconds": rounded(seconds)}
    response = page(site, visit, "error.html", own, None, status)
    response.headers.update(headers or {})
    return response


def done(visit: Visit, notice: str, current: Inbox | None = None, to: str = "inbox") -> Response:
    """Answer a POST that succeeded: the inbox as JSON, or a redirect to a page."""
    if visit.as_json:
        return answer(inbox_json(current) if current else {"done": notice})
    return see_other(visit, to, notice)


def seconds_of(name: str, text: str) -> int:
    """Return a number of seconds in a form or a query; 0 where it was left out. Raises BadForm."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise BadForm(f"{name} is {text[:50]!r}; expected a whole number of seconds")
    return int(text)


def rounded(seconds: int) -> int:
    """Return seconds that people can read: above a minute and a half whole minutes, above 90 minutes whole hours, rounded up."""
    for unit in (3600, 60):
        if seconds > 1.5 * unit:
            return -(-seconds // unit) * unit
    return seconds
