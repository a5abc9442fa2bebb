"""The first page, where a visitor gets an address."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from starlette.responses import Response

from pipehandler.store.inbox_errors import NameRefused, NameTaken, NetworkClosed, TooManyInboxes

from . import keys
from .answers import answer, problem, see_other
from .limits import TooMany
from .notices import notice_text
from .pages import Opened, opened, page, refused, seconds_of, set_keys
from .rows import inbox_json, name_of
from .site import Site
from .static_pages import alternates
from .visit import Visit


async def home(site: Site, visit: Visit) -> Response:
    """The first page: get an address."""
    mine = await opened(site, visit, anyway=True)
    said = visit.request.query_params.get("notice")
    return _home(site, visit, mine, "no_cookies" if said == "no_cookies" and not visit.keys else "")


def _home(site: Site, visit: Visit, mine: Opened, notice: str = "", status: int = 200) -> Response:
    own: dict[str, Any] = {
        "name": visit.field("name")[:64],
        "domain": visit.field("domain"),
        "problem": notice_text(notice, visit.lang),
        "no_cookies": notice_text("no_cookies", visit.lang),
        "alternates": alternates(site.origin, ""),
        "indexed": site.settings.public,
    }
    if notice:
        own["notice"] = ""  # it is said beside the form
    return page(site, visit, "home.html", own, mine, status)


async def create(site: Site, visit: Visit) -> Response:
    """Open an inbox; only a POST does."""
    if not site.settings.public:
        return refused(site, visit, 403, "not_public", "this page gives out no addresses; it opens with a key")
    domain = visit.field("domain") or site.settings.domains[0]
    name = visit.field("name") or None
    ttl = seconds_of("ttl", visit.field("ttl")) or site.settings.ttl
    client = str(visit.network.network_address) if visit.network else None
    try:
        site.opened.take(visit.network)
        key, inbox = await site.inboxes.open(domain, name, timedelta(seconds=ttl), client=client)
    except TooMany as error:
        site.counts["refused_opened"] += 1
        return await _not_opened(site, visit, 429, "too_many", str(error), {"Retry-After": str(error.seconds)})
    except TooManyInboxes as error:
        site.counts["refused_full"] += 1
        text = f"there are as many inboxes as may be (web.{error.limit})"
        return await _not_opened(site, visit, 503, "full", text, {"Retry-After": str(error.seconds)})
    except NetworkClosed:
        return await _not_opened(site, visit, 403, "network_closed", "this network may not open inboxes")
    except NameTaken:
        return await _not_opened(site, visit, 409, "name_taken", "this address is in use, or was until recently")
    except NameRefused:
        return await _not_opened(site, visit, 422, "name_refused", "this name or domain cannot be chosen")
    site.counts["opened"] += 1
    if visit.as_json:
        return answer({"key": keys.text_of(key), **inbox_json(inbox)}, 201)
    response = see_other(visit, "inbox", "opened", inbox=name_of(inbox))
    set_keys(site, visit, response, keys.with_current(visit.keys, key))
    return response


async def _not_opened(
    site: Site, visit: Visit, status: int, code: str, text: str, headers: Mapping[str, str] | None = None
) -> Response:
    if visit.as_json:
        return problem(status, code, text, headers)
    if headers:
        return refused(site, visit, status, code, text, headers)
    mine = await opened(site, visit, anyway=True)
    return _home(site, visit, mine, code, status)
