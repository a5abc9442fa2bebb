"""The scrape endpoint: an HTTP server that gathers the metrics anew for each GET /metrics.

A few scrapes may be going on at the same time; what is more is sent away, so that nobody can make many connections to the
database. One that fails is a 500, and the next one is tried as if nothing had been.
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

_AT_ONCE = 4
_PATIENCE = 10  # seconds for a visitor who says nothing, or does not take the answer
_TEXT = "text/plain; version=0.0.4; charset=utf-8"


class ListenError(Exception):
    """Nobody can listen at the address; the text says why and what to do."""


class Endpoint(ThreadingHTTPServer):
    """An endpoint that listens at `host` (a name or an address of either kind) and `port` from now on.

    Raises ListenError. gather: makes the whole answer to a scrape.
    """

    daemon_threads = True  # a visitor who has not asked yet does not keep it from ending

    def __init__(self, host: str, port: int, gather: Callable[[], bytes]) -> None:
        self.gather = gather
        self.room = threading.BoundedSemaphore(_AT_ONCE)
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            self.address_family, _, _, _, address = found[0]
            super().__init__(address[:2], _Scrape)  # type: ignore[arg-type] # typeshed knows no flow labels
        except (OSError, UnicodeError) as error:  # the latter for a host that can be no name
            reason = getattr(error, "strerror", "no host name")
            raise ListenError(f"{host}, port {port}: {reason}; --listen needs a free port of this host") from error

    def server_bind(self) -> None:
        """Bind the socket, without asking the DNS for our name."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment] # as HTTPServer has it

    def run(self) -> None:
        """Answer until SIGTERM or SIGINT, and until what is then under way is answered."""

        def stop(*_: object) -> None:
            threading.Thread(target=self.shutdown).start()  # it waits for the loop that was interrupted here

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        systemd.notify("READY=1")
        with self:
            self.serve_forever(poll_interval=0.2)
        for _ in range(_AT_ONCE):
            self.room.acquire(timeout=_PATIENCE)

    def handle_error(self, request: object, client_address: object) -> None:
        """A visitor who left before the answer is nobody's trouble."""
        if not isinstance(sys.exception(), OSError):
            traceback.print_exc()


class _Scrape(BaseHTTPRequestHandler):
    """One visit."""

    server: Endpoint
    timeout = _PATIENCE

    def do_GET(self) -> None:
        """The metrics."""
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, "Only /metrics is here")
            return
        if not self.server.room.acquire(blocking=False):
            self.send_error(503, "Too many scrapes at once")
            return
        try:
            self._answer()
        finally:
            self.server.room.release()

    def _answer(self) -> None:
        try:
            answer = self.server.gather()
        except Exception:  # noqa: BLE001 # one failed scrape must not end the endpoint
            traceback.print_exc()
            self.send_error(500, "The metrics could not be gathered; the log says why")
            return
        self.send_response(200)
        self.send_header("Content-Type", _TEXT)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # as the base class has it
        """A visit is not worth a line."""

    def version_string(self) -> str:
        """What the field Server says; which Python this is concerns nobody."""
        return "pipehandler"
