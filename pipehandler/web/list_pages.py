"""The list of an inbox: as a page, as JSON, and as rows after a cursor, for which a program may wait."""

from typing import Any

from starlette.responses import Response

from pipehandler.store.inbox_errors import BadCursor, InboxExpired, SearchTooSlow
from pipehandler.store.inbox_values import InboxPage, InboxRow

from .answers import answer, problem, see_other
from .notices import notice_text
from .pages import Opened, current_key, no_inbox, opened, page, seconds_of, set_keys
from .rows import arrivals_text, inbox_json, row_json
from .site import Site
from .stream import wait_for_rows
from .visit import Visit

ROWS = 50
"""Rows of one page of the list."""


async def inbox(site: Site, visit: Visit) -> Response:
    """The list of mail, the newest first; with `q`, what a search finds; with `before`, the next page."""
    if not visit.keys:
        # Directly after it was given a key: the browser has not kept it.
        given = visit.request.query_params.get("notice") in ("opened", "added")
        return see_other(visit, "home", "no_cookies") if given and not visit.as_json else no_inbox(visit)
    mine = await opened(site, visit)
    if mine.current is None:
        response = no_inbox(visit)
        set_keys(site, visit, response, mine.kept)
        return response
    listed, notice = await list_of(site, visit, mine)
    if visit.as_json:
        if notice:
            return problem(400, notice, "the search or the cursor cannot be used")
        return answer(inbox_json(mine.current) | _page_json(listed, visit.lang))
    own = listing(visit, listed)
    if notice:
        own["notice"] = notice_text(notice, visit.lang)
    elif listed.partial:
        own["notice"] = notice_text("partial", visit.lang)
    return page(site, visit, "inbox.html", own, mine)


async def list_of(site: Site, visit: Visit, mine: Opened) -> tuple[InboxPage, str]:
    """Return the page of the list that is asked for, and a notice; an empty one for an inbox that has ended."""
    assert mine.key  # noqa: S101 # the caller has looked at mine.current
    key, current, (before, wanted) = mine.key, mine.inboxes[mine.key], _asked(visit)
    try:
        return await site.inboxes.page(key, current, before, ROWS, wanted or None), ""
    except InboxExpired:
        return InboxPage((), None, current.cursor), ""
    except BadCursor:
        return await site.inboxes.page(key, current, None, ROWS, None), "bad_search"
    except SearchTooSlow:
        return InboxPage((), None, current.cursor), "slow_search"


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
    after, limit = query["after"], seconds_of("wait", query.get("wait", ""))
    key = await current_key(site, visit)
    if key is None:
        return problem(403, "key_refused", "this key opens no inbox")
    if not limit:
        return _after(visit, await site.inboxes.after(key, after), after)
    return await wait(site, visit, key, after, min(limit, 60))


async def wait(site: Site, visit: Visit, key: bytes, after: str, seconds: int) -> Response:
    """Rows after a cursor, as soon as there are any."""
    current = await site.inboxes.inbox(key, in_turn=True)
    with site.streams.counted(key, current.owner, visit.network), site.inboxes.waiting(key, current) as waiter:
        receive = visit.request.receive
        return _after(visit, await wait_for_rows(site.inboxes, waiter, after, seconds, receive), after)


def _after(visit: Visit, found: list[InboxRow], after: str) -> Response:
    rows = [row_json(row, visit.lang) for row in found]
    text = arrivals_text(len(rows), visit.lang) if rows else ""
    return answer({"rows": rows, "text": text, "cursor": found[-1].cursor if found else after})


def _page_json(listed: InboxPage, lang: str) -> dict[str, Any]:
    return {
        "rows": [row_json(row, lang) for row in listed.rows],
        "older": listed.older,
        "newest": listed.newest,
        "partial": listed.partial,
    }
