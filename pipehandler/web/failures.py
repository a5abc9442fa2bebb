"""The answer to each error that a request raises, as a page or as JSON."""

import logging
from contextlib import suppress

from starlette.responses import Response

from pipehandler.store.errors import StoreError, concerns_data
from pipehandler.store.inbox_errors import BadCursor, InboxExpired, KeyRefused, NoSuchMail, NotKept

from .answers import problem, see_other
from .limits import TooMany
from .pages import Opened, no_inbox, opened, refused, set_keys
from .site import Site
from .visit import BadForm, Visit

_log = logging.getLogger(__name__)


async def failed(site: Site, visit: Visit, error: Exception) -> Response:
    """Return the answer to a request that raised an error."""
    match error:
        case KeyRefused():
            return await _key_refused(site, visit)
        case InboxExpired():
            return _notice(visit, 410, "expired", "this inbox has ended; extend it", "")
        case NoSuchMail():
            return _notice(visit, 404, "not_found", "there is no such message in this inbox", "not_found")
        case NotKept():
            return _notice(visit, 410, "not_kept", "the content was not kept", "not_kept")
        case BadCursor():
            return problem(400, "bad_cursor", "the cursor is of another cluster, or none; begin with that of the inbox")
        case TooMany():
            site.counts["refused_streams"] += 1
            headers = {"Retry-After": str(error.seconds)}
            return refused(site, visit, 429, "too_many", f"the limit web.{error} is reached", headers)
        case BadForm():
            return refused(site, visit, 400, "bad_request", str(error))
        case StoreError() if concerns_data(error.sqlstate):
            return refused(site, visit, 400, "bad_request", "a value cannot be used")
        case StoreError():
            _log.warning("%s: %s", visit.request.url.path, error)
            return await _unavailable(site, visit)
    _log.error("%s %s", visit.request.method, visit.request.url.path, exc_info=error)
    site.counts["faults"] += 1
    return refused(site, visit, 500, "fault", "an internal fault, which was logged")


def _notice(visit: Visit, status: int, code: str, text: str, notice: str) -> Response:
    """An error of one message: for a person, the list with a notice."""
    if visit.as_json or visit.request.headers.get("sec-fetch-dest") in ("iframe", "image", "empty"):
        return problem(status, code, text)
    return see_other(visit, "inbox", notice)


async def _key_refused(site: Site, visit: Visit) -> Response:
    """Answer a key that opens nothing, or not as much as this."""
    mine = Opened({}, None)
    with suppress(KeyRefused):
        mine = await opened(site, visit, anyway=True)
    if mine.current is None:
        response = no_inbox(visit)
        if not visit.bearer and not visit.as_json:
            set_keys(site, visit, response, mine.kept)
        return response
    if visit.as_json:
        return problem(403, "key_refused", "this key opens no inbox, or not as much as this")
    used = visit.key if visit.wanted is None else mine.key
    return see_other(visit, "inbox", "owner" if used == mine.key else "gone")


async def _unavailable(site: Site, visit: Visit) -> Response:
    """Answer while the database is away."""
    site.counts["unavailable"] += 1
    return refused(site, visit, 503, "unavailable", "the database does not answer", {"Retry-After": "5"})
