"""Error reporting: Sentry receives unforeseen faults, at a limited rate, and no content of messages."""

import gzip
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_server
from typing import Any

import pytest
from harness import account
from harness.database import Database
from harness.handler import Ended, Handler
from harness.service import ResidentHandler, Service, begin, configure, ended, held, stuck, wait_until

from pipehandler.record.journal import NAME

MESSAGE = b"From: secret@example.org\nMessage-ID: <secret-id@example.org>\nSubject: secret subject\n\nsecret body\n"
PASSWORD = "secret-password"
TO = "secret-recipient@example.com"


class Collector:
    """An HTTP server that accepts what sentry-sdk sends; `events` are the events, `text` everything received, including
    headers."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.text = b""
        collector = self

        class Request(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.text += str(self.headers).encode() + body
                _, *items = body.splitlines()
                for head, item in zip(items[::2], items[1::2], strict=True):
                    if json.loads(head)["type"] == "event":
                        collector.events.append(json.loads(item))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Not on stderr."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Request)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        self.dsn = f"http://key@127.0.0.1:{self._server.server_port}/1"

    def event(self, count: int = 1) -> dict[str, Any]:
        """The newest of `count` events."""
        wait_until(lambda: len(self.events) >= count, f"event {count}")
        return self.events[count - 1]

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector on loopback."""
    server = Collector()
    yield server
    server.close()


def telling(handler: Handler, database: Database, dsn: str, **values: object) -> None:
    """Configure the handler to report to Sentry."""
    handler.configure(f"{database.conninfo} password={PASSWORD}", sentry={"dsn": dsn, **values})


def fault(handler: Handler) -> Ended:
    """A delivery with an internal fault: its stdin cannot be read (EBADF), which is unforeseen."""
    with open(os.devnull, "wb") as only_writable:
        return ended(handler.start(handler.command(TO, sender="secret-sender@example.org"), stdin=only_writable))


def test_internal_fault(either: Handler, database: Database, collector: Collector) -> None:
    """An internal fault is reported with its stack, the outcome and versions, and without any value, address or
    credential."""
    telling(either, database, collector.dsn)
    assert fault(either) == (75, "4.3.0 internal fault\n")
    event = collector.event()
    (exception,) = event["exception"]["values"]
    assert exception["type"] == "OSError"
    assert "value" not in exception
    assert exception["stacktrace"]["frames"][-1]["function"] == "read_message"
    assert "reader.read(" in exception["stacktrace"]["frames"][-1]["context_line"]
    assert event["message"].startswith("fault: OSError (EBADF) at pipehandler.ingress.single:")
    assert event["extra"]["outcome"] == "fault"
    assert event["extra"]["status"] == 75
    assert set(event["extra"]["versions"]) == {"python", "mail-parser", "psycopg", "sentry-sdk"}
    assert event["release"].startswith("pipehandler@")
    assert b"secret" not in collector.text
    assert "vars" not in json.dumps(event)


def test_once_in_a_while(either: Handler, database: Database, collector: Collector) -> None:
    """The same fault is reported once in `sentry.min_interval` seconds, whichever process meets it; then it is reported
    again."""
    telling(either, database, collector.dsn, min_interval=3_600)
    assert {fault(either).status for _ in range(4)} == {75}
    collector.event()
    wait_until(lambda: not reporters(either), "the end of who tells")
    assert len(collector.events) == 1
    with closing(sqlite3.connect(either.state / NAME)) as journal, journal:
        journal.execute("UPDATE told SET at = at - 3600")
    fault(either)
    collector.event(2)


def test_quarantined(either: Handler, database: Database, collector: Collector) -> None:
    """A message that could not be parsed is reported if that is enabled: the reason and the size, none of its
    content."""
    database.execute("ALTER TABLE pipehandler.message ADD CHECK (state = 'failed') NOT VALID")
    telling(either, database, collector.dsn)
    assert "not parsed" in either.deliver(MESSAGE, TO).output
    telling(either, database, collector.dsn, quarantined=True)
    assert "not parsed" in either.deliver(MESSAGE + b"more", TO).output
    event = collector.event()
    assert event["message"] == "quarantined: the data was refused (CheckViolation) SQLSTATE 23514"
    assert event["extra"]["size"] == len(MESSAGE) + 4
    assert "exception" not in event
    assert len(collector.events) == 1
    assert b"secret" not in collector.text


def test_worker_that_died(handler: Handler, database: Database, collector: Collector) -> None:
    """A worker that dies with a message is reported by its supervisor, which continues at once."""
    configure(handler)
    with handler.config.open("a") as file:
        file.write(f'[sentry]\ndsn = "{collector.dsn}"\n')
    with Service(handler) as service, held(database):
        running = begin(handler, service, MESSAGE)
        stuck(database)
        os.kill(service.workers()[0], 9)
        assert ended(running).status == 75
        assert collector.event()["message"] == "fault: the worker killed by signal 9"
        assert service.answers()


def test_nothing_unforeseen(either: Handler, database: Database, collector: Collector) -> None:
    """Foreseen outcomes are not reported, and sentry-sdk is not loaded for them: a delivery, a database that is
    down."""
    telling(either, database, collector.dsn)
    assert either.deliver(MESSAGE, TO).status == 0
    either.configure("host=127.0.0.1 port=1", sentry={"dsn": collector.dsn})
    assert either.deliver(MESSAGE, TO).status == 75
    wait_until(lambda: not reporters(either), "the end of who tells")
    assert collector.text == b""


@pytest.mark.parametrize("how", ["refused", "deaf", "no address", "no dsn"])
def test_its_failure_changes_nothing(either: Handler, database: Database, how: str) -> None:
    """A silent or missing collector changes neither the status nor the time of a delivery."""
    with create_server(("127.0.0.1", 0)) as deaf:
        port = deaf.getsockname()[1] if how == "deaf" else account.free_port()
        dsn = {"no address": "http://key@nowhere.invalid/1", "no dsn": "rubbish"}.get(
            how, f"http://key@127.0.0.1:{port}/1"
        )
        telling(either, database, dsn)
        assert either.deliver(MESSAGE, TO).status == 0
        assert fault(either) == (75, "4.3.0 internal fault\n")
        if how == "deaf":  # the delivery has ended, and its report waits for an answer that never arrives
            deaf.settimeout(60)
            deaf.accept()[0].close()
        wait_until(lambda: not reporters(either), "the end of who tells")


def read(path: Path) -> bytes:
    """The content of a file, if it still exists."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def reporters(handler: Handler) -> list[Path]:
    """The reporting processes of the handler: those of entrypoints and of workers, whose parent is not the
    supervisor."""
    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(handler.folder).encode() in read(path)]
    service = handler.service if isinstance(handler, ResidentHandler) else None
    known = {service.pid, *service.workers()} if service and service.answers() else set()
    return [path for path in left if int(path.parent.name) not in known]


RAISING = """
import sys, time
from pipehandler.record import sentry
from pipehandler.settings.config import Config, Sentry, State
from pipehandler.record.journal import Journal
from pipehandler.mail.outcome import FAULT, Result

def parse(argument):
    local = argument * 2
    try:
        raise KeyError(local)
    except KeyError as error:
        raise ValueError(argument) from error

folder, dsn, secret = sys.argv[1:]
try:
    parse(secret)
except ValueError as error:
    config = Config(sentry=Sentry(dsn=dsn), state=State(folder))
    sentry.report(config, Journal(folder), Result(FAULT, fault=error), 10.0, size=7)
"""


def test_texts_of_exceptions(folder: Path, collector: Collector) -> None:
    """Neither the texts nor the variables of an exception and of those behind it are sent, and no argument."""
    subprocess.run([sys.executable, "-c", RAISING, str(folder), collector.dsn, "secret-body"], check=True)
    event = collector.event()
    assert [each["type"] for each in event["exception"]["values"]] == ["KeyError", "ValueError"]
    assert event["extra"]["size"] == 7
    assert b"secret-body" not in collector.text
