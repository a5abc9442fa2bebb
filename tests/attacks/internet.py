"""A server that is both our own origin and the rest of the internet, for http and https on one port of the loopback."""

import datetime
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

Answer = tuple[Mapping[str, str], bytes]

_PIXEL = bytes.fromhex("47494638396101000100800000000000ffffff21f90401000000002c00000000010001000002024401003b")
_CONTENT = {  # by Sec-Fetch-Dest; scripts run where they are let in
    "script": ("text/javascript", b"alert('remote')"),
    "style": ("text/css", b"p{color:red}"),
    "image": ("image/gif", _PIXEL),
}


class Request(NamedTuple):
    """One request to a host that is not ours."""

    secure: bool
    host: str
    path: str
    destination: str  # Sec-Fetch-Dest
    headers: Mapping[str, str]


class Internet(ThreadingHTTPServer):
    """Serve `pages` under 127.0.0.1, and keep every other request in `requests`. A context manager."""

    daemon_threads = True
    request_queue_size = 1000

    def __init__(self, folder: Path, pages: Callable[[str], Answer | None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pages = pages
        self.port = self.server_address[1]
        self.requests: list[Request] = []
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(_certificate(folder))

    def __enter__(self) -> "Internet":
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def finish_request(self, request: object, client_address: object) -> None:
        """Find out whether the client begins with TLS (a record of the type handshake)."""
        assert isinstance(request, socket.socket)
        try:
            request.settimeout(60)
            if request.recv(1, socket.MSG_PEEK) != b"\x16":
                super().finish_request(request, client_address)
                return
            with self._tls.wrap_socket(request, server_side=True) as secured:
                super().finish_request(secured, client_address)
        except OSError:
            pass  # the browser closed the connection


class _Handler(BaseHTTPRequestHandler):
    server: Internet
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer for our own origin, or record the request."""
        own = f"127.0.0.1:{self.server.port}"
        answer = self.server.pages(self.path) if self.headers.get("Host") == own else None
        destination = self.headers.get("Sec-Fetch-Dest", "")
        name = self.headers.get("Host", "")
        host = name.rpartition(":")[0] or name
        if answer is None and self.path != "/favicon.ico" and not _is_of_the_browser(host, destination):
            secure = isinstance(self.connection, ssl.SSLSocket)
            self.server.requests.append(Request(secure, host, self.path, destination, dict(self.headers)))
        if answer is None and name == own:  # what our origin does not have: for an image, an error that a mail handles
            self.send_error(404)
            return
        kind, body = _CONTENT.get(destination, ("text/html", b"<!doctype html><title>elsewhere</title>"))
        headers, body = answer or ({"Content-Type": kind, "Access-Control-Allow-Origin": "*"}, body)
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_HEAD = do_OPTIONS = do_GET

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 # its name
        """Write no log."""


def _is_of_the_browser(host: str, destination: str) -> bool:
    """Whether Chromium asks for itself: its updates and the like, which no mail has caused."""
    return destination in ("", "empty") and host.endswith(
        (".google.com", ".googleapis.com", ".gvt1.com", ".gstatic.com")
    )


def _certificate(folder: Path) -> Path:
    """Return a file with a key and a certificate, which the browser is told to accept."""
    both = folder / f"certificate-{datetime.date.today():%Y%m%d}.pem"  # noqa: DTZ011
    key = folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-keyout", key, "-out", both],
        check=True, capture_output=True,
    )  # fmt: skip
    both.write_bytes(both.read_bytes() + key.read_bytes())
    return both
