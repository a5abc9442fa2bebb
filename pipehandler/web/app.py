"""The application: its routes, and what every request passes before and after its page."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pipehandler.store.errors import StoreError, concerns_data
from pipehandler.store.inbox_errors import BadCursor, InboxExpired, KeyRefused, NoSuchMail, NotKept

from . import key_pages, mail_pages, pages
from .answers import accepts_gzip, problem, see_other
from .guard import is_ours
from .headers import response_headers
from .hub import cancelled
from .languages import LANGUAGES
from .limits import TooMany
from .links_to import PATHS
from .openapi import openapi
from .site import Site
from .stream import Stream
from .visit import BadForm, Visit

_log = logging.getLogger(__name__)

Page = Callable[[Site, Visit], Awaitable[Response]]

_NUMBERS = {"{delivery}": "{delivery:int}", "{ordinal}": "{ordinal:int}"}

GET: dict[str, Page] = {
    "home": pages.home,
    "inbox": pages.inbox,
    "rows": pages.rows,
    "key": key_pages.key_page,
    "open": key_pages.open_form,
    "abuse": pages.abuse,
    "manifest": pages.manifest,
    "eml": mail_pages.eml,
    "zip": mail_pages.archive,
    "message": mail_pages.message,
    "mail_html": mail_pages.mail_html,
    "print": mail_pages.print_page,
    "headers": mail_pages.headers,
    "raw": mail_pages.raw,
    "attachment": mail_pages.attachment,
}
"""The pages that are read, in the order in which their paths are compared."""

POST: dict[str, Page] = {
    "create": pages.create,
    "remove_mail": pages.remove_mail,
    "extend": pages.extend,
    "end": pages.end,
    "switch": pages.switch,
    "share": key_pages.share,
    "unshare": key_pages.unshare,
    "open": key_pages.open_key,
    "language": pages.language,
}
"""What changes something."""


def application(site: Site) -> ASGIApp:
    """Return the application for a site."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await site.mail_views.sanitiser.start()
        await site.inboxes.open_pool()
        running = asyncio.create_task(site.hub.run())
        try:
            yield
        finally:
            await cancelled(running)
            await site.wakeups.close()
            await site.inboxes.close()
            await site.mail_views.sanitiser.close()

    routes = [
        Route("/", _endpoint(site, pages.root), methods=["GET"]),
        Route("/openapi.json", _endpoint(site, openapi), methods=["GET"]),
        Route("/healthz", _endpoint(site, pages.health), methods=["GET"]),
        *(Route(_route(name), _endpoint(site, page), methods=["GET"]) for name, page in GET.items()),
        *(Route(PATHS[name], _endpoint(site, page), methods=["POST"]) for name, page in POST.items()),
        Route("/{path:path}", _endpoint(site, pages.fixed), methods=["GET"]),
    ]
    handlers: Any = {HTTPException: _handler(site), Exception: _handler(site)}
    return _Door(site, Starlette(routes=routes, lifespan=lifespan, exception_handlers=handlers))


def _route(name: str) -> str:
    path = PATHS[name]
    for plain, number in _NUMBERS.items():
        path = path.replace(plain, number)
    return path


class _Door:
    """Refuses other names, answers streams and static files itself, and passes on the rest."""

    def __init__(self, site: Site, app: ASGIApp) -> None:
        self._site = site
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive, send)
        self._site.counts["requests"] += 1
        if not self._site.hosts.admits(request.headers):
            self._site.counts["refused_host"] += 1
            refusal = Response("This site has another name.\n", 421, {"Content-Type": "text/plain; charset=utf-8"})
            await refusal(scope, receive, send)
            return
        path = scope["path"]
        if path.startswith("/static/"):
            await _static(self._site, request)(scope, receive, send)
        elif path.endswith("/events") and request.method == "GET" and path.strip("/").count("/") == 1:
            await self._events(request, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _events(self, request: Request, receive: Receive, send: Send) -> None:
        """The stream of an inbox, raw."""
        site = self._site
        lang = request.url.path.strip("/").partition("/")[0]
        request.scope["path_params"] = {"lang": lang}
        visit = _visit(site, request)
        visit.as_json = True  # the refusals of a stream are for a script
        key = visit.key
        refusal: Response | None = None
        if lang not in LANGUAGES or key is None:
            refusal = problem(404 if lang not in LANGUAGES else 401, "key_refused", "a key is needed")
            await refusal(request.scope, receive, send)
            return
        after = request.headers.get("last-event-id") or request.query_params.get("after", "")
        try:
            inbox = await site.reader.inbox(key)
            with site.streams.counted(key, inbox.owner, visit.network), site.hub.waiting(key, inbox) as waiter:
                site.counts["streams"] += 1
                await Stream(site.hub, site.reader, waiter, inbox, lang, after or inbox.cursor).run(receive, send)
        except Exception as error:  # noqa: BLE001 # every error has its answer
            await (await _failed(site, visit, error))(request.scope, receive, send)


def _visit(site: Site, request: Request) -> Visit:
    return Visit(request, site.proxies, site.settings.public)


def _endpoint(site: Site, page: Page) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        visit = _visit(site, request)
        if request.path_params.get("lang", "en") not in LANGUAGES:
            return await pages.fixed(site, visit)
        if not is_ours(request.method, request.headers):
            site.counts["refused_origin"] += 1
            return pages.refused(site, visit, 403, "forbidden", "this request was sent by another site")
        try:
            if request.method == "POST":
                await visit.read_form()
            return await page(site, visit)
        except Exception as error:  # noqa: BLE001 # every error has its answer
            return await _failed(site, visit, error)

    return endpoint


async def _failed(site: Site, visit: Visit, error: Exception) -> Response:
    """Return the answer to a request that raised an error."""
    match error:
        case KeyRefused():
            return await pages.key_refused(site, visit)
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
            return pages.refused(site, visit, 429, "too_many", f"the limit web.{error} is reached", headers)
        case BadForm():
            return pages.refused(site, visit, 400, "bad_request", str(error))
        case StoreError() if concerns_data(error.sqlstate):
            return pages.refused(site, visit, 400, "bad_request", "a value cannot be used")
        case StoreError():
            _log.warning("%s: %s", visit.request.url.path, error)
            return await pages.unavailable(site, visit)
    _log.error("%s %s", visit.request.method, visit.request.url.path, exc_info=error)
    site.counts["faults"] += 1
    return pages.refused(site, visit, 500, "fault", "an internal fault, which was logged")


def _notice(visit: Visit, status: int, code: str, text: str, notice: str) -> Response:
    """An error of one message: for a person, the list with a notice."""
    if visit.as_json or visit.request.headers.get("sec-fetch-dest") in ("iframe", "image", "empty"):
        return problem(status, code, text)
    return see_other(visit, "inbox", notice)


def _handler(site: Site) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handler(request: Request, error: Exception) -> Response:
        visit = _visit(site, request)
        if isinstance(error, HTTPException):
            code = "not_found" if error.status_code == 404 else "bad_request"
            return pages.refused(site, visit, error.status_code, code, error.detail, error.headers)
        return await _failed(site, visit, error)

    return handler


def _static(site: Site, request: Request) -> Response:
    asset = site.assets.at(request.url.path)
    if asset is None or request.method not in ("GET", "HEAD"):
        return problem(404, "not_found", "there is no such file")
    headers = response_headers("static", media_type=asset.media_type) | {"Vary": "Accept-Encoding"}
    body = asset.body
    if asset.compressed is not None and accepts_gzip(request.headers.get("accept-encoding", "")):
        headers["Content-Encoding"] = "gzip"
        body = asset.compressed
    if request.method == "HEAD":
        return Response(headers=headers | {"Content-Length": str(len(body))})
    return Response(body, headers=headers)
