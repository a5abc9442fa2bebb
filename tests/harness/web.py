"""The inbox page, run as an operator runs it, and browsers without a browser: HTTP as it is on the wire."""

import http.client
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

from . import account
from .database import Database
from .handler import ENVIRONMENT, _toml
from .service import wait_until

SAME_SITE = {"Sec-Fetch-Site": "same-origin"}
"""What a browser says of a form of the page itself."""

JSON = {"Accept": "application/json"}


class Answer(NamedTuple):
    """An answer. headers: in lower case; several of one name are joined by a line break."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


class WebServer:
    """`pipehandler web` with a configuration of its own, as the account of the tests; a context manager.

    settings: of [web]. port: of its HTTP.
    """

    def __init__(self, folder: Path, conninfo: str, **settings: Any) -> None:
        folder.mkdir(mode=0o755, exist_ok=True)
        self.folder = folder
        self.config = folder / "web.toml"
        self.port = account.free_port()
        self.log = folder / "web.log"
        self.status_socket = folder / "web-status"
        self.conninfo = conninfo
        self._running: subprocess.Popen[bytes] | None = None
        self.configure(**settings)

    def configure(self, **settings: Any) -> None:
        """Write the configuration."""
        web = {
            "listen": f"127.0.0.1:{self.port}",
            "conninfo": self.conninfo,
            "status_socket": str(self.status_socket),
            "public": True,
            "hosts": ["inbox.example"],
            "domains": ["tmp.example"],
            "trusted_proxies": ["127.0.0.1"],
            "opened_per_hour": 100_000,
            "streams_per_network": 100_000,
        } | settings
        lines = [
            'database.conninfo = ""',
            'recipients.policy = "known"',
            "log.syslog = false",
            "[web]",
            *(f"{name} = {_toml(value)}" for name, value in web.items()),
        ]
        self.config.write_text("\n".join(lines) + "\n")
        self.config.chmod(0o644)

    def __enter__(self) -> "WebServer":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process."""
        assert self._running
        return self._running.pid

    def start(self, waits: bool = True) -> "WebServer":
        """Start it, and wait until it answers."""
        account.give(self.folder)
        program = Path(sys.executable).with_name("pipehandler")
        with self.log.open("ab") as log:
            self._running = subprocess.Popen(
                account.command([str(program), "--config", str(self.config), "web"]),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=ENVIRONMENT,
                cwd="/",
            )
        if not waits:
            return self
        try:
            wait_until(self._answers, "the start of the page")
        except BaseException:
            self.kill()
            raise
        return self

    def _answers(self) -> bool:
        assert self._running
        if self._running.poll() is not None:
            raise RuntimeError(f"the page ended with {self._running.returncode}: {self.log.read_text()}")
        with suppress(OSError, http.client.HTTPException):
            return bool(self.get("/healthz").status == 200)
        return False

    def kill(self) -> None:
        """Kill it."""
        assert self._running
        self._running.kill()
        self._running.wait(60)

    def stop(self) -> int:
        """Stop it with SIGTERM; returns its status."""
        assert self._running
        if self._running.poll() is None:
            self._running.send_signal(signal.SIGTERM)
            try:
                self._running.wait(60)
            except subprocess.TimeoutExpired:
                os.kill(self._running.pid, signal.SIGKILL)
                self._running.wait(60)
                raise
        return self._running.returncode

    def counts(self) -> dict[str, int]:
        """What it reports about itself."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(self.status_socket))
            return dict(json.loads(b"".join(iter(lambda: connection.recv(65536), b""))))

    def request(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None, port: int = 0
    ) -> Answer:
        """Send one request."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=90)
        try:
            given = {"Host": "inbox.example", "X-Forwarded-Proto": "https"} | dict(headers or {})
            connection.request(method, path, body, {name: value for name, value in given.items() if value})
            response = connection.getresponse()
            found: dict[str, str] = {}
            for name, value in response.getheaders():
                found[name.lower()] = f"{found[name.lower()]}\n{value}" if name.lower() in found else value
            return Answer(response.status, found, response.read())
        finally:
            connection.close()

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """GET."""
        return self.request("GET", path, headers)


class Visitor:
    """A browser without a browser: it keeps cookies, says where its forms come from, and runs no script."""

    def __init__(self, server: WebServer, lang: str = "en", **headers: str) -> None:
        self.server = server
        self.lang = lang
        self.cookies: dict[str, str] = {}
        self.headers = {"Accept": "text/html", **{name.replace("_", "-"): value for name, value in headers.items()}}

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """Load a page; a path without a leading / is below that of the language."""
        return self._send("GET", path, headers)

    def post(
        self, path: str, fields: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a form."""
        own = {"Content-Type": "application/x-www-form-urlencoded", **SAME_SITE} | dict(headers or {})
        return self._send("POST", path, own, urlencode(fields or {}, doseq=True).encode())

    def follow(self, answer: Answer) -> Answer:
        """Load the page that a redirect names."""
        assert answer.status == 303, answer
        return self.get(answer.headers["location"])

    def open(self, **fields: Any) -> Answer:
        """Get an address; returns the page of the inbox."""
        return self.follow(self.post("inbox", fields))

    @property
    def key(self) -> str:
        """The current key, as text."""
        return self.cookies["__Host-inbox"].partition(".")[0]

    def inbox(self) -> dict[str, Any]:
        """The inbox and its newest rows."""
        found: dict[str, Any] = self.get("inbox", JSON).json
        return found

    def _send(self, method: str, path: str, headers: Mapping[str, str] | None, body: bytes | None = None) -> Answer:
        path = path if path.startswith("/") else f"/{self.lang}/{path}"
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = self.server.request(method, path, {**self.headers, "Cookie": cookie, **(headers or {})}, body)
        for field in answer.headers.get("set-cookie", "").split("\n"):
            name, _, value = field.partition(";")[0].partition("=")
            if name and value:
                self.cookies[name] = value
            elif name:
                self.cookies.pop(name, None)
        return answer


class Event(NamedTuple):
    """An event of a stream."""

    kind: str
    cursor: str
    data: Any


class EventSource:
    """A stream, read in a thread, as a browser's EventSource does: after the connection was lost it comes back, where it was.

    port: of a proxy, if not the page's own.
    """

    def __init__(
        self, server: WebServer, key: str, after: str = "", port: int = 0, lang: str = "en", reconnects: bool = True
    ) -> None:
        self._server = server
        self._key = key
        self._port = port or server.port
        self._lang = lang
        self._reconnects = reconnects
        self._ended = False
        self.cursor = after
        self.status = 0
        self.connections = 0
        self.events: queue.Queue[Event] = queue.Queue()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended:
            with suppress(OSError, http.client.HTTPException, ValueError):
                self._read()
            if not self._reconnects or self.status not in (0, 200, 502, 503, 504):
                return
            time.sleep(0.05)

    def _read(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            headers = {
                "Host": "inbox.example",
                "X-Forwarded-Proto": "https",
                "Cookie": f"__Host-inbox={self._key}",
                "Accept": "text/event-stream",
            }
            if self.cursor:
                headers["Last-Event-ID"] = self.cursor
            connection.request("GET", f"/{self._lang}/events", None, headers)
            self._socket = connection.sock
            response = connection.getresponse()
            self.status = response.status
            if response.status != 200:
                return
            self.connections += 1
            self._parse(response)
        finally:
            connection.close()

    def _parse(self, response: http.client.HTTPResponse) -> None:
        kind, data, cursor = "", "", ""
        for line in iter(response.readline, b""):
            name, _, value = line.decode().rstrip("\n").partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                data = value
            elif name == "id":
                cursor = value
            elif not name and kind == "beat":
                kind = ""
            elif not name and kind:
                if cursor:
                    self.cursor = cursor
                self.events.put(Event(kind, cursor, json.loads(data)))
                if kind in ("gone", "reset"):
                    self._ended = True
                    return
                kind, data, cursor = "", "", ""

    def next(self, kind: str = "", seconds: float = 60) -> Event:
        """The next event, of this kind if one is given; wait for it."""
        until = time.monotonic() + seconds
        while True:
            event = self.events.get(timeout=max(0.01, until - time.monotonic()))
            if not kind or event.kind == kind:
                return event

    def cut(self) -> None:
        """Cut the connection."""
        if self._socket is not None:
            with suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it."""
        self._ended = True
        self.cut()
        self._thread.join(30)


@contextmanager
def web_server(folder: Path, database: Database, **settings: Any) -> Iterator[WebServer]:
    """A page for one test."""
    conninfo = database.server.conninfo(database.name, user="page")
    with WebServer(folder, conninfo, **settings) as server:
        yield server
