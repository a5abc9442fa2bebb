"""The resident workers of a handler: `pipehandler serve`, run by the handler's account."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import psycopg

from pipehandler.monitor.service_status import ask
from pipehandler.workers.listener import ServeError

from . import account
from .database import Database
from .handler import ENVIRONMENT, Ended, Handler

PATIENCE = 60  # seconds


def wait_until(done: Callable[[], object], what: str = "it") -> None:
    """Wait until the condition is true."""
    until = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > until:
            raise TimeoutError(f"{what} did not happen within {PATIENCE} s")
        time.sleep(0.01)


@contextmanager
def bounded(running: "subprocess.Popen[Any]") -> Iterator[None]:
    """Kill `running` after a while, so that reading its output ends."""
    timer = threading.Timer(PATIENCE, running.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


class Service:
    """`pipehandler serve` with the configuration of `handler`; a context manager. `under`: a command that starts it;
    `program`: another console script than that of this environment."""

    def __init__(
        self,
        handler: Handler,
        under: Sequence[str] = (),
        program: Path | None = None,
        stdout: Any = None,
        **environment: str,
    ) -> None:
        self._stdout = stdout or subprocess.DEVNULL
        self._program = program or Path(sys.executable).with_name("pipehandler")
        self.handler = handler
        self._under = under
        self._environment = environment
        self._running: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Service":
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._running and self._running.poll() is None:
            self.stop()

    @property
    def pid(self) -> int:
        """The supervisor."""
        assert self._running
        return self._running.pid

    def start(self) -> "Service":
        """Start it, and wait until its workers are ready."""
        running = self._running = subprocess.Popen(
            account.command([*self._under, str(self._program), "--config", str(self.handler.config), "serve"]),
            stdin=subprocess.DEVNULL,
            stdout=self._stdout,
            stderr=subprocess.PIPE,
            env={**ENVIRONMENT, **self._environment},
            cwd="/",
        )
        wait_until(lambda: running.poll() is not None or self.ready(), "the start of the service")
        if running.poll() is not None:
            _, reported = running.communicate()
            raise RuntimeError(f"pipehandler serve left with {running.returncode}: {reported.decode()}")
        return self

    def has_ended(self) -> bool:
        """Whether the supervisor has ended."""
        assert self._running
        return self._running.poll() is not None

    def answers(self) -> bool:
        """Whether it answers."""
        try:
            self.status()
        except ServeError:
            return False
        return True

    def ready(self) -> bool:
        """Whether it answers, and all workers are ready for a message, or have one."""
        if not self.answers():
            return False
        shown = self.status()
        return shown["free"] + shown["busy"] >= shown["workers"] > 0

    def status(self) -> dict[str, int]:
        """Its answer to a status request."""
        return ask(str(self.handler.socket))

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor."""
        assert self._running
        self._running.send_signal(number)

    def stop(self) -> int:
        """Let it finish; returns its status."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; returns its status."""
        assert self._running
        try:
            return self._running.wait(120)
        finally:
            assert self._running.stderr
            self._running.stderr.close()

    def events(self) -> list[str]:
        """Its own log lines."""
        return [
            line for line in Handler.log_lines(self.handler) if line.startswith(("outcome=serve ", "outcome=worker "))
        ]


class ResidentHandler(Handler):
    """A handler whose messages go through the service, which is started at the first message, and restarted when the
    configuration has changed."""

    service: Service | None = None
    _served = ""

    def start(
        self, command: list[str], stdin: int | IO[bytes] = subprocess.PIPE, output: int = subprocess.PIPE
    ) -> subprocess.Popen[bytes]:
        """Start `command` while the service runs."""
        wanted = self.config.read_text()
        if wanted != self._served:
            self.stop()
            self.service, self._served = Service(self), wanted
            with suppress(RuntimeError):  # an invalid configuration
                self.service.start()
        return super().start(command, stdin, output)

    def stop(self) -> None:
        """End the service."""
        if self.service:
            self.service.__exit__()

    def log_lines(self) -> list[str]:
        """The log lines of the messages. A worker writes them after it has answered the entrypoint."""
        if self.service and self.service.answers():
            wait_until(lambda: not self.service or not self.service.status()["busy"], "the end of the work")
        return [line for line in super().log_lines() if not line.startswith(("outcome=serve ", "outcome=worker "))]


def configure(handler: Handler, deadline: int = 10, **serve: object) -> None:
    """Settings with one worker by default, and short timeouts."""
    handler.configure(
        handler.conninfo,
        serve={"workers": 1, "queue_timeout": 2, **serve},
        limits={"deadline": deadline, "parse_timeout": 4},
    )


@contextmanager
def held(database: Database) -> Iterator[None]:
    """Block all storing meanwhile: a session that tries has to wait."""
    with psycopg.connect(database.admin) as other:
        other.execute("LOCK TABLE pipehandler.delivery")
        yield


def begin(handler: Handler, service: Service, raw: bytes) -> subprocess.Popen[bytes]:
    """A delivery that a worker has begun; `ended` waits for its end."""
    running = handler.start(handler.command())
    assert running.stdin
    running.stdin.write(raw)
    running.stdin.close()
    running.stdin = None
    wait_until(lambda: service.status()["busy"], "the hand-over")
    return running


def stuck(database: Database) -> None:
    """Wait until a delivery waits for a lock, as it does while the database is `held`."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
    wait_until(lambda: database.value(waiting), "the wait for the lock")


def ended(running: subprocess.Popen[bytes]) -> Ended:
    """Wait for its end; returns how it ended."""
    output, _ = running.communicate(timeout=60)
    return Ended(running.returncode, output.decode())
