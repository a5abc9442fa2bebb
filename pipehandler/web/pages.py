"""What the pages share: the visitor's inboxes, the context of templates, and the pages of an inbox."""

import gzip
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from starlette.responses import Response

from pipehandler.mail.outcome import STORE_UNAVAILABLE
from pipehandler.store.errors import INSUFFICIENT_PRIVILEGE
from pipehandler.store.inbox_errors import (
    BadCursor,
    InboxExpired,
    KeyRefused,
    LifetimeReached,
    NameRefused,
    NameTaken,
    NetworkClosed,
    SearchTooSlow,
)
from pipehandler.store.inbox_values import Inbox, InboxPage

from . import keys
from .answers import accepts_gzip, answer, document, problem, see_other
from .headers import response_headers
from .languages import LANGUAGES
from .limits import TooMany
from .notices import failure_text, notice_text
from .rows import inbox_json, row_json
from .site import Site
from .static_pages import alternates
from .visit import Visit

ROWS = 50
"""Rows of one page of the list."""


@dataclass(slots=True)
class Opened:
    """The inboxes that a visitor's keys open. current: that of the first key; others: those of the rest.

    kept: the keys that open something, the current one first.
    """

    current: Inbox | None
    others: list[Inbox]
    kept: tuple[bytes, ...]


async def opened(site: Site, visit: Visit) -> Opened:
    """Look at all keys of the visitor. Raises StoreError while the database is away, KeyRefused for a program's key."""
    if not visit.keys:
        return Opened(None, [], ())
    found = await site.inboxes.inboxes(visit.keys)
    kept = tuple(key for key in visit.keys if key in found)
    if visit.bearer and not kept:
        raise KeyRefused(STORE_UNAVAILABLE, "this key opens no inbox", INSUFFICIENT_PRIVILEGE)
    inboxes = [found[key] for key in kept]
    return Opened(inboxes[0] if inboxes else None, inboxes[1:], kept)


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
    context["now"] = datetime.now(UTC)
    context["notice"] = notice_text(visit.request.query_params.get("notice", ""), visit.lang)
    # Where the choice of another language leads: the same page, without what was said about the last request.
    context["here"] = (
        visit.request.url.path.partition(f"/{visit.lang}")[2] if visit.request.method in ("GET", "HEAD") else "/"
    )
    response = document(visit, site.templates.render(template, {**context, **own}), status=status, compress=compress)
    if mine is not None and mine.kept != visit.keys and not visit.bearer:
        set_keys(site, visit, response, mine.kept)
    return response


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


async def home(site: Site, visit: Visit) -> Response:
    """The first page: get an address."""
    mine = await opened(site, visit)
    return _home(site, visit, mine)


def _home(site: Site, visit: Visit, mine: Opened, notice: str = "", status: int = 200) -> Response:
    own: dict[str, Any] = {
        "name": visit.field("name")[:64],
        "domain": visit.field("domain"),
        "problem": notice_text(notice, visit.lang),
        "alternates": alternates(site.origin, ""),
        "indexed": site.settings.public,
    }
    return page(site, visit, "home.html", own, mine, status)


async def create(site: Site, visit: Visit) -> Response:
    """Open an inbox; only a POST does."""
    if not site.settings.public:
        return refused(site, visit, 403, "not_public", "this page gives out no addresses; it opens with a key")
    domain = visit.field("domain") or site.settings.domains[0]
    name = visit.field("name") or None
    ttl = seconds_of(visit.field("ttl")) or site.settings.ttl
    key = keys.new_key()
    client = str(visit.network.network_address) if visit.network else None
    try:
        site.opened.take(visit.network)
        inbox = await site.inboxes.open(key, domain, name, timedelta(seconds=ttl), client=client)
    except TooMany as error:
        site.counts["refused_opened"] += 1
        return await _not_opened(site, visit, 429, "too_many", str(error), {"Retry-After": str(error.seconds)})
    except NetworkClosed:
        return await _not_opened(site, visit, 403, "network_closed", "this network may not open inboxes")
    except NameTaken:
        return await _not_opened(site, visit, 409, "name_taken", "this address is in use, or was until recently")
    except NameRefused:
        return await _not_opened(site, visit, 422, "name_refused", "this name or domain cannot be chosen")
    site.counts["opened"] += 1
    if visit.as_json:
        return answer({"key": keys.text_of(key), **inbox_json(inbox)}, 201)
    response = see_other(visit, "inbox", "opened")
    set_keys(site, visit, response, keys.with_current(visit.keys, key))
    return response


def seconds_of(text: str) -> int:
    """Return a number of seconds in a form or a query; 0 if it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0


async def _not_opened(
    site: Site, visit: Visit, status: int, code: str, text: str, headers: Mapping[str, str] | None = None
) -> Response:
    if visit.as_json:
        return problem(status, code, text, headers)
    if code == "too_many":
        return refused(site, visit, status, code, text, headers)
    mine = await opened(site, visit)
    return _home(site, visit, mine, code, status)


def refused(
    site: Site, visit: Visit, status: int, code: str, text: str, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer what cannot be done, as a page or as JSON."""
    if visit.as_json:
        return problem(status, code, text, headers)
    failure = failure_text(code, visit.lang)
    seconds = int((headers or {}).get("Retry-After", "0"))
    own = {"status": status, "heading": failure.heading, "text": failure.text, "seconds": seconds}
    response = page(site, visit, "error.html", own, None, status)
    response.headers.update(headers or {})
    return response


async def inbox(site: Site, visit: Visit) -> Response:
    """The list of mail, the newest first; with `q`, what a search finds; with `before`, the next page."""
    if not visit.keys:
        return no_inbox(visit)
    mine = await opened(site, visit)
    if mine.current is None:
        response = no_inbox(visit)
        set_keys(site, visit, response, ())
        return response
    listed, notice = await list_of(site, visit, mine)
    if visit.as_json:
        if notice:
            return problem(400, notice, "the search or the cursor cannot be used")
        return answer(inbox_json(mine.current) | _page_json(listed, visit.lang))
    own = listing(visit, listed)
    if notice:
        own["notice"] = notice_text(notice, visit.lang)
    return page(site, visit, "inbox.html", own, mine)


async def list_of(site: Site, visit: Visit, mine: Opened) -> tuple[InboxPage, str]:
    """Return the page of the list that is asked for, and a notice; an empty one for an inbox that has ended."""
    key, (before, wanted) = mine.kept[0], _asked(visit)
    try:
        return await site.inboxes.page(key, before, ROWS, wanted or None), ""
    except InboxExpired:
        return InboxPage((), None, mine.current.cursor if mine.current else ""), ""
    except BadCursor:
        return await site.inboxes.page(key, None, ROWS, None), "bad_search"
    except SearchTooSlow:
        return await site.inboxes.page(key, None, 1, None), "slow_search"


def listing(visit: Visit, listed: InboxPage) -> dict[str, Any]:
    """The context of a list. rows: what is shown; older: the cursor of the next page, None on the last; before: the cursor of this
    one, None on the first; cursor: where the stream goes on; wanted: what was searched for."""
    before, wanted = _asked(visit)
    return {"rows": listed.rows, "older": listed.older, "before": before, "cursor": listed.newest, "wanted": wanted}


def _asked(visit: Visit) -> tuple[str | None, str]:
    """The cursor and the search of a list."""
    query = visit.request.query_params
    return query.get("before") or None, query.get("q", "").strip()[:500]


async def rows(site: Site, visit: Visit) -> Response:
    """Rows as JSON: those after a cursor, in the order of the stream, or a page of the list."""
    if visit.key is None:
        return problem(401, "key_refused", "a key is needed", {"WWW-Authenticate": "Bearer"})
    query = visit.request.query_params
    if "after" not in query:
        mine = await opened(site, visit)
        if mine.current is None:
            return problem(403, "key_refused", "this key opens no inbox")
        listed, notice = await list_of(site, visit, mine)
        return (
            problem(400, notice, "the search or the cursor cannot be used")
            if notice
            else answer(_page_json(listed, visit.lang))
        )
    after, limit = query["after"], seconds_of(query.get("wait", ""))
    if not limit:
        return _after(visit, await site.reader.after(visit.key, after), after)
    return await wait(site, visit, visit.key, after, min(limit, 60))


async def wait(site: Site, visit: Visit, key: bytes, after: str, seconds: int) -> Response:
    """Rows after a cursor, as soon as there are any."""
    from .stream import wait_for_rows

    current = await site.reader.inbox(key)
    with site.streams.counted(key, current.owner, visit.network), site.hub.waiting(key, current) as waiter:
        receive = visit.request.receive
        return _after(visit, await wait_for_rows(site.hub, site.reader, waiter, after, seconds, receive), after)


def _after(visit: Visit, found: Any, after: str) -> Response:
    return answer(
        {"rows": [row_json(row, visit.lang) for row in found], "cursor": found[-1].cursor if found else after}
    )


def _page_json(listed: InboxPage, lang: str) -> dict[str, Any]:
    return {"rows": [row_json(row, lang) for row in listed.rows], "older": listed.older, "newest": listed.newest}


def done(visit: Visit, notice: str, current: Inbox | None = None, to: str = "inbox") -> Response:
    """Answer a POST that succeeded: the inbox as JSON, or a redirect to a page."""
    if visit.as_json:
        return answer(inbox_json(current) if current else {"done": notice})
    return see_other(visit, to, notice)


async def extend(site: Site, visit: Visit) -> Response:
    """Add time, also within the grace of an inbox that has ended."""
    if visit.key is None:
        return no_inbox(visit)
    before = await site.inboxes.inbox(visit.key)
    seconds = seconds_of(visit.field("ttl")) or site.settings.extension
    try:
        after = await site.inboxes.extend(visit.key, timedelta(seconds=seconds))
    except LifetimeReached:
        after = before
    return done(visit, "extended" if after.expires_at != before.expires_at else "longest", after)


async def end(site: Site, visit: Visit) -> Response:
    """Delete the inbox with its mail and its keys; with `keep`, only end it, so that it can be brought back."""
    if visit.key is None:
        return no_inbox(visit)
    if visit.field("keep"):
        return done(visit, "ended", await site.inboxes.expire(visit.key))
    await site.inboxes.remove(visit.key)
    response = done(visit, "deleted", to="home")
    if not visit.bearer:
        set_keys(site, visit, response, keys.without(visit.keys, visit.key))
    return response


async def remove_mail(site: Site, visit: Visit) -> Response:
    """Delete messages: `delivery`, as often as there are messages."""
    if visit.key is None:
        return no_inbox(visit)
    wanted = [
        int(each) for each in visit.form.get("delivery", []) if each.isascii() and each.isdigit() and len(each) < 19
    ]
    removed = await site.inboxes.remove_mail(visit.key, wanted) if wanted else 0
    site.hub.look_again()
    return answer({"removed": removed}) if visit.as_json else see_other(visit, "inbox", "removed")


async def switch(site: Site, visit: Visit) -> Response:
    """Make another of the browser's inboxes the current one: `lease`."""
    found = await site.inboxes.inboxes(visit.keys)
    for key, inbox in found.items():
        if ("" if inbox.lease is None else str(inbox.lease)) == visit.field("lease"):
            response = done(visit, "switched", inbox)
            set_keys(site, visit, response, keys.with_current([each for each in visit.keys if each in found], key))
            return response
    return no_inbox(visit)


async def language(site: Site, visit: Visit) -> Response:
    """Keep the visitor's language, and show the same page in it."""
    chosen = visit.field("language")
    if chosen not in LANGUAGES:
        return refused(
            site, visit, 400, "bad_request", f"language is {chosen[:40]!r}; expected one of {' '.join(LANGUAGES)}"
        )
    rest = visit.field("path")
    if not rest.startswith("/") or rest.startswith("//") or not rest.isprintable() or "\\" in rest:
        rest = "/"
    response = Response(status_code=303, headers={"Location": f"/{chosen}{rest}", "Cache-Control": "no-store"})
    response.headers.append("Set-Cookie", keys.language_cookie(chosen, visit.secure))
    return response


async def abuse(site: Site, visit: Visit) -> Response:
    """Where to report an address that was used to harm someone."""
    return page(site, visit, "abuse.html", {})


async def key_refused(site: Site, visit: Visit) -> Response:
    """Answer a key that opens nothing, or not as much as this."""
    mine = Opened(None, [], ())
    with suppress(KeyRefused):
        mine = await opened(site, visit)
    if mine.current is None:
        response = no_inbox(visit)
        if not visit.bearer and not visit.as_json:
            set_keys(site, visit, response, mine.kept)
        return response
    if visit.as_json:
        return problem(403, "key_refused", "this key opens no inbox, or not as much as this")
    return see_other(visit, "inbox", "owner" if mine.kept[0] == visit.key else "gone")


async def unavailable(site: Site, visit: Visit) -> Response:
    """Answer while the database is away."""
    site.counts["unavailable"] += 1
    return refused(site, visit, 503, "unavailable", "the database does not answer", {"Retry-After": "5"})


async def root(site: Site, visit: Visit) -> Response:
    """Lead to the first page in the visitor's language."""
    headers = {"Location": f"/{visit.preferred}/", "Vary": "Accept-Language, Cookie", "Cache-Control": "no-store"}
    return Response(status_code=302, headers=headers)


async def health(site: Site, visit: Visit) -> Response:
    """Whether mail can be shown, for a load balancer: 200 or 503."""
    return answer({"database": site.hub.up, "listening": site.hub.listening}, 200 if site.hub.up else 503)


async def manifest(site: Site, visit: Visit) -> Response:
    """The web app manifest in the visitor's language."""
    text = site.templates.render("manifest.webmanifest", site.templates.common(visit.lang))
    headers = response_headers("json") | {"Content-Type": "application/manifest+json", "Cache-Control": "max-age=86400"}
    return Response(text.encode(), headers=headers)


async def fixed(site: Site, visit: Visit) -> Response:
    """A page that is the same for everyone, with its ETag."""
    path = visit.request.url.path
    found = site.fixed.get(path) or site.fixed.get(path.rstrip("/"))
    if found is None:
        return refused(site, visit, 404, "not_found", "there is nothing under this path")
    headers = response_headers("page") | {
        "Content-Type": found.media_type,
        "Cache-Control": "public, max-age=300",
        "ETag": found.etag,
        "Vary": "Accept-Encoding",
    }
    if found.is_unchanged(visit.request.headers.get("if-none-match")):
        return Response(status_code=304, headers=headers)
    body = found.body
    if accepts_gzip(visit.request.headers.get("accept-encoding", "")):
        # The same content, so the tag stays valid for comparisons, but it is not octet for octet the same (RFC 9110 8.8.1).
        headers |= {"Content-Encoding": "gzip", "ETag": f"W/{found.etag}"}
        body = gzip.compress(body, 6, mtime=0)
    return Response(body, headers=headers)
