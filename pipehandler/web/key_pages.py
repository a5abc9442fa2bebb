"""The pages about keys: to return with, to share, and to open an inbox with one."""

from datetime import timedelta

import segno
from starlette.responses import Response

from pipehandler.store.inbox_errors import KeyRefused, QuotaReached

from . import keys
from .answers import answer, problem, see_other
from .links_to import path_of
from .notices import NOTICES, notice_text
from .pages import Opened, current_key, done, no_inbox, opened, page, seconds_of, set_keys
from .rows import inbox_json, name_of
from .site import Site
from .visit import Visit


async def key_page(site: Site, visit: Visit) -> Response:
    """The key, to return with later or on another device."""
    mine = await opened(site, visit)
    if mine.current is None:
        return no_inbox(visit)
    return _key_page(site, visit, mine)


def _key_page(site: Site, visit: Visit, mine: Opened, shared: bytes | None = None) -> Response:
    assert mine.key  # noqa: S101 # the caller has looked at mine.current
    link = _link(visit, mine.key)
    shared_link = _link(visit, shared) if shared else ""
    own = {"link": link, "qr": _qr(link), "shared": shared_link, "shared_qr": _qr(shared_link) if shared else ""}
    return page(site, visit, "key.html", own, mine, compress=False)


def _link(visit: Visit, key: bytes) -> str:
    """A link that opens the inbox elsewhere; no server sees its fragment."""
    return f"{visit.origin}{path_of('open', visit.lang)}#{keys.text_of(key)}"


def _qr(link: str) -> str:
    code: str = segno.make(link, error="m").svg_data_uri(scale=5, border=4)
    return code


async def share(site: Site, visit: Visit) -> Response:
    """Make a key that reads and changes nothing; it is shown once."""
    key = await current_key(site, visit)
    if key is None:
        return no_inbox(visit)
    ttl = seconds_of("ttl", visit.field("ttl"))
    try:
        new = await site.inboxes.share(key, timedelta(seconds=ttl) if ttl else None)
    except QuotaReached:
        return done(visit, "shares", to="key") if not visit.as_json else problem(409, "shares", NOTICES["shares"])
    if visit.as_json:
        return answer({"key": keys.text_of(new)}, 201)
    return _key_page(site, visit, await opened(site, visit), new)


async def unshare(site: Site, visit: Visit) -> Response:
    """Revoke all read-only keys of the inbox."""
    key = await current_key(site, visit)
    if key is None:
        return no_inbox(visit)
    await site.inboxes.home(key).unshare(key)
    return done(visit, "unshared", to="key")


async def open_form(site: Site, visit: Visit) -> Response:
    """A form for a key: pasted, or put there by the script from the fragment of a link."""
    mine = await opened(site, visit, anyway=True)
    return page(site, visit, "open.html", {"candidate": None, "key": "", "problem": ""}, mine)


async def open_key(site: Site, visit: Visit) -> Response:
    """Show which inbox a key opens, and take the key when the visitor confirms: nobody else's link does that (session fixation)."""
    key = keys.key_of(visit.field("key"))
    mine = await opened(site, visit, anyway=True)
    try:
        found = await site.inboxes.inbox(key) if key else None
    except KeyRefused:
        found = None
    if key is None or found is None:
        if visit.as_json:
            return problem(403, "key_refused", "this key opens no inbox")
        return page(
            site,
            visit,
            "open.html",
            {"candidate": None, "key": "", "problem": notice_text("bad_key", visit.lang)},
            mine,
            403,
        )
    if visit.as_json:
        return answer(inbox_json(found))
    if not visit.field("confirm"):
        return page(
            site,
            visit,
            "open.html",
            {"candidate": found, "key": keys.text_of(key), "problem": ""},
            mine,
            compress=False,
        )
    response = see_other(visit, "inbox", "added", inbox=name_of(found))
    set_keys(site, visit, response, keys.with_current(mine.kept, key))
    return response
