"""The scrape endpoint: an HTTP server that collects the metrics for each GET /metrics.

At most a few scrapes run at the same time; further ones get a 503, so that scraping cannot use up the connections of the
database. A scrape that fails gets a 500, and the next one is tried again.

Why not prometheus_client.start_http_server, with a lock in the collector: its requests would queue for the lock past the ten
seconds that Prometheus waits, it keeps a silent client's thread forever, answers on every path, looks up the name of its address
in the DNS before it listens, and drops the scrapes in progress on SIGTERM.
"""

import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer

from ..runtime import systemd

_MAX_SCRAPES = 4
_CLIENT_TIMEOUT = 10  # seconds for a client to send its request, or to take the answer
_TEXT = "text/plain; version=0.0.4; charset=utf-8"


_PAGE = b"""<!DOCTYPE html>
<html lang="en"><title>pipehandler</title><h1>pipehandler</h1><p><a href="/metrics">Metrics</a></p></html>
"""


class ListenError(Exception):
    """The address cannot be listened on; the text says why and what to do."""


class Endpoint(ThreadingHTTPServer):
    """An endpoint that listens on `host` (a name, an IPv4 or an IPv6 address) and `port` as soon as it is created.

    collect: returns the whole answer to a scrape. Raises ListenError.
    """

    daemon_threads = True  # a client that has not sent a request does not delay the end

    def __init__(self, host: str, port: int, collect: Callable[[], bytes]) -> None:
        self.collect = collect
        self.slots = threading.BoundedSemaphore(_MAX_SCRAPES)
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            self.address_family, _, _, _, address = addresses[0]
            super().__init__(address[:2], _Scrape)  # type: ignore[arg-type] # typeshed has no flow labels
        except (OSError, UnicodeError) as error:  # the latter for a host that cannot be a name
            reason = getattr(error, "strerror", "not a host name")
            raise ListenError(f"{host}, port {port}: {reason}; --listen needs a free port of this host") from error

    def server_bind(self) -> None:
        """Bind the socket, without looking up our name in the DNS."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment] # as HTTPServer has it

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then finish the scrapes in progress."""

        def stop(*_: object) -> None:
            threading.Thread(target=self.shutdown).start()  # shutdown waits for the loop that the signal interrupted

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        systemd.notify("READY=1")
        with self:
            self.serve_forever(poll_interval=0.2)
        for _ in range(_MAX_SCRAPES):
            self.slots.acquire(timeout=_CLIENT_TIMEOUT)

    def handle_error(self, request: object, client_address: object) -> None:
        """Log an error, unless it is a client that left before the answer."""
        if not isinstance(sys.exception(), OSError):
            traceback.print_exc()


class _Scrape(BaseHTTPRequestHandler):
    """One request."""

    server: Endpoint
    timeout = _CLIENT_TIMEOUT

    def do_HEAD(self) -> None:
        """Answer as for GET, without the contents."""
        self.do_GET()

    def do_GET(self) -> None:
        """Answer with the metrics, or on / with a page that leads to them."""
        path = self.path.partition("?")[0]
        if path == "/":
            self._send(_PAGE, "text/html; charset=utf-8")
            return
        if path != "/metrics":
            self.send_error(404, "The paths are / and /metrics")
            return
        if not self.server.slots.acquire(blocking=False):
            self.send_error(503, "Too many scrapes at the same time")
            return
        try:
            self._answer()
        finally:
            self.server.slots.release()

    def _answer(self) -> None:
        try:
            answer = self.server.collect()
        except Exception:  # noqa: BLE001 # one failed scrape must not end the endpoint
            traceback.print_exc()
            self.send_error(500, "The metrics could not be collected; the log says why")
            return
        self._send(answer, _TEXT)

    def _send(self, answer: bytes, content_type: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # as the base class has it
        """Do not log requests."""

    def version_string(self) -> str:
        """Return the Server field, without the version of Python."""
        return "pipehandler"
