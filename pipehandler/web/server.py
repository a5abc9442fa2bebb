"""The process of the page: its sockets, its signals, and the socket where it reports its counts."""

import asyncio
import json
import logging
import os
import signal
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import uvicorn

from pipehandler.runtime import systemd
from pipehandler.settings.config import Config

from .app import application
from .site import Site

_BACKLOG = 2048
_GRACE = 5  # seconds for answers in progress when the program stops
_KEEP_ALIVE = 20  # seconds
_HEADER = 65_536  # octets of a request without its body
_OWNER_ONLY, _EVERYONE = 0o660, 0o666


class WebError(Exception):
    """The page cannot be served; the text says why and what to do."""


def serve(config: Config, say: Callable[[str], None]) -> None:
    """Serve the page until SIGTERM or SIGINT; streams are ended, and answers in progress are finished.

    Raises WebError, and what Site raises for a configuration that cannot be used.
    """
    site = Site(config)
    listening = listener(config.web.listen)
    name = config.web.listen
    if listening.family != socket.AF_UNIX:
        host, port = listening.getsockname()[:2]
        name = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    say(f"listening on {name}")
    settings = uvicorn.Config(
        application(site),
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # limits.TrustedProxies does it
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_GRACE,
        h11_max_incomplete_event_size=_HEADER,
    )
    server = _Server(settings, site, config.web.status_socket)
    with listening:
        server.run(sockets=[listening])
    if not server.started:
        raise WebError("the page could not be started; the lines above say why")


class _Server(uvicorn.Server):
    """uvicorn, which ends the streams before it waits for its connections."""

    def __init__(self, settings: uvicorn.Config, site: Site, status_socket: str) -> None:
        super().__init__(settings)
        self._site = site
        self._status_socket = status_socket
        self._status: asyncio.AbstractServer | None = None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGTERM and SIGINT. uvicorn would raise the signal again afterwards, and the status would say that it was killed."""
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so to the service manager."""
        await super().startup(sockets)
        if self.should_exit:
            return
        self._status = await _status_server(self._site, self._status_socket)
        systemd.notify("READY=1")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then everything."""
        systemd.notify("STOPPING=1")
        self._site.databases.end_streams()
        if self._status is not None:
            self._status.close()
            with suppress(OSError):
                os.unlink(self._status_socket)
        await super().shutdown(sockets)


def listener(address: str) -> socket.socket:
    """Listen on HOST:PORT, [IPV6]:PORT or the path of a Unix socket. Raises WebError."""
    try:
        if address.startswith("/"):
            return _unix_listener(address)
        host, _, port = address.rpartition(":")
        found = socket.getaddrinfo(
            host.strip("[]") or "127.0.0.1", int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, _, _, _, where = found[0]
        listening = socket.create_server(where[:2], family=family, backlog=_BACKLOG)
    except (OSError, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", "") or error
        raise WebError(
            f"web.listen = {address!r}: {reason}; it needs a free port of this host, such as 127.0.0.1:8025, or a path"
        ) from error
    # Connections inherit it. asyncio sets it only where the protocol of a socket is named, which is not so here; an
    # answer in two writes then waits 40 ms for the browser's acknowledgement (RFC 1122 4.2.3.2).
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def _unix_listener(path: str) -> socket.socket:
    _remove_socket(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(path)
    os.chmod(path, _OWNER_ONLY)  # the proxy is in the group of the folder or of this account
    listening.listen(_BACKLOG)
    return listening


def _remove_socket(path: str) -> None:
    """Remove what a process that was killed has left; another file stays."""
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)


async def _status_server(site: Site, path: str) -> asyncio.AbstractServer | None:
    """Listen where `metrics` and `check` ask; the page works without it, as on a host where its folder was not made."""

    async def tell(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.write(json.dumps(counts(site)).encode())
            await writer.drain()
            writer.close()
            await writer.wait_closed()

    try:
        if not Path(path).parent.is_dir():
            return None
        _remove_socket(path)
        server = await asyncio.start_unix_server(tell, path)
        os.chmod(path, _EVERYONE)  # counts alone, for the account of `pipehandler metrics`
    except OSError as error:
        logging.getLogger(__name__).warning(
            "web.status_socket = %r: %s; there are no metrics of the page", path, error.strerror
        )
        return None
    return server


COUNTS = (
    "requests",
    "streams",
    "opened",
    "refused_host",
    "refused_origin",
    "refused_opened",
    "refused_full",
    "refused_streams",
    "sanitiser_busy",
    "sanitiser_refused",
    "unavailable",
    "faults",
)
"""What Site.counts counts, since the start of the process."""


def counts(site: Site) -> dict[str, int]:
    """Return the counts of the process, and what it does now."""
    now = {
        "open_streams": site.streams.open,
        "wakes": site.databases.wakes,
        "database_up": int(all(site.databases.up)),
        "listening": int(site.databases.listening),
        "kept_results": site.mail_views.sanitiser.kept,
    }
    return {name: site.counts[name] for name in COUNTS} | now
