"""The application: its routes, and what every request passes before and after its page."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from pipehandler.mail.outcome import STORE_UNAVAILABLE
from pipehandler.store.errors import INSUFFICIENT_PRIVILEGE
from pipehandler.store.inbox_errors import KeyRefused

from . import general_pages, home_page, inbox_actions, key_pages, list_pages, mail_pages
from .answers import accepts_gzip, problem
from .failures import failed
from .guard import is_ours
from .headers import response_headers
from .hub import cancelled
from .languages import LANGUAGES
from .links_to import PATHS
from .openapi import openapi
from .pages import current_key, refused
from .rows import name_of
from .site import Site
from .stream import Stream
from .visit import Visit

Page = Callable[[Site, Visit], Awaitable[Response]]

_REST = "/{path:path}"
_NUMBERS = {"{delivery}": "{delivery:number}", "{ordinal}": "{ordinal:number}"}


class _Number(IntegerConvertor):
    """A number in a path. What has more digits than a delivery can have is another path: int() refuses very long ones."""

    regex = "[0-9]{1,18}"


register_url_convertor("number", _Number())

GET: dict[str, Page] = {
    "home": home_page.home,
    "inbox": list_pages.inbox,
    "rows": list_pages.rows,
    "key": key_pages.key_page,
    "open": key_pages.open_form,
    "abuse": general_pages.abuse,
    "manifest": general_pages.manifest,
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
    "create": home_page.create,
    "remove_mail": inbox_actions.remove_mail,
    "extend": inbox_actions.extend,
    "end": inbox_actions.end,
    "switch": inbox_actions.switch,
    "share": key_pages.share,
    "unshare": key_pages.unshare,
    "open": key_pages.open_key,
    "language": general_pages.language,
}
"""What changes something."""


def application(site: Site) -> ASGIApp:
    """Return the application for a site."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await site.mail_views.sanitiser.start()
        running = asyncio.create_task(site.databases.run())
        try:
            yield
        finally:
            await cancelled(running)
            await site.databases.close()
            await site.mail_views.sanitiser.close()

    routes = [
        Route("/", _endpoint(site, general_pages.root), methods=["GET"]),
        Route("/openapi.json", _endpoint(site, openapi), methods=["GET"]),
        Route("/healthz", _endpoint(site, general_pages.health), methods=["GET"]),
        *(Route(_route(name), _endpoint(site, page), methods=["GET"]) for name, page in GET.items()),
        *(Route(PATHS[name], _endpoint(site, page), methods=["POST"]) for name, page in POST.items()),
        Route(_REST, _endpoint(site, general_pages.fixed), methods=["GET"]),
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
            refusal = (
                problem(404, "not_found", "there is no such language")
                if lang not in LANGUAGES
                else problem(401, "key_refused", "a key is needed", {"WWW-Authenticate": "Bearer"})
            )
            await refusal(request.scope, receive, send)
            return
        after = request.headers.get("last-event-id") or request.query_params.get("after", "")
        try:
            inbox = await site.inboxes.inbox(key, in_turn=True)
            if visit.wanted not in (None, name_of(inbox)):
                key = await current_key(site, visit)
                if key is None:
                    raise KeyRefused(STORE_UNAVAILABLE, "this key opens no inbox", INSUFFICIENT_PRIVILEGE)
                inbox = await site.inboxes.inbox(key, in_turn=True)
            with site.streams.counted(key, inbox.owner, visit.network), site.inboxes.waiting(key, inbox) as waiter:
                site.counts["streams"] += 1
                await Stream(site.inboxes, waiter, inbox, lang, after or inbox.cursor).run(receive, send)
        except Exception as error:  # noqa: BLE001 # every error has its answer
            await (await failed(site, visit, error))(request.scope, receive, send)


def _visit(site: Site, request: Request) -> Visit:
    return Visit(request, site.proxies, site.settings.public)


def _endpoint(site: Site, page: Page) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        visit = _visit(site, request)
        if request.path_params.get("lang", "en") not in LANGUAGES:
            return await general_pages.fixed(site, visit)
        if not is_ours(request.method, request.headers):
            site.counts["refused_origin"] += 1
            return refused(site, visit, 403, "forbidden", "this request was sent by another site")
        try:
            if request.method == "POST":
                await visit.read_form()
            return await page(site, visit)
        except Exception as error:  # noqa: BLE001 # every error has its answer
            return await failed(site, visit, error)

    return endpoint


def _handler(site: Site) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handler(request: Request, error: Exception) -> Response:
        visit = _visit(site, request)
        if isinstance(error, HTTPException):
            code = "not_found" if error.status_code == 404 else "bad_request"
            headers = {"Allow": _methods(request)} if error.status_code == 405 else error.headers
            return refused(site, visit, error.status_code, code, error.detail, headers)
        return await failed(site, visit, error)

    return handler


def _methods(request: Request) -> str:
    """What the path of a request admits (RFC 9110 10.2.1): one route knows only its own methods."""
    found: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE and route.path != _REST:
            found |= route.methods
    return ", ".join(sorted(found)) or "GET, HEAD"


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
