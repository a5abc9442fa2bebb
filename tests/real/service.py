"""The resident workers of a handler: `pipehandler serve`, run by the handler's account."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from pipehandler.listening import ServeError, ask

from . import account
from .handler import ENVIRONMENT, Handler

PATIENCE = 30  # seconds


def wait_until(done: Callable[[], object], what: str = "it") -> None:
    """Wait until something is so."""
    until = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > until:
            raise TimeoutError(f"{what} did not happen within {PATIENCE} s")
        time.sleep(0.01)


class Service:
    """`pipehandler serve` with the configuration of `handler`; a context manager."""

    def __init__(self, handler: Handler, **environment: str) -> None:
        self.handler = handler
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
        """Start it, and wait until it answers."""
        program = Path(sys.executable).with_name("pipehandler")
        running = self._running = subprocess.Popen(
            [str(program), "--config", str(self.handler.config), "serve"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**ENVIRONMENT, **self._environment},
            cwd="/",
            **account.identity(),
        )
        wait_until(lambda: running.poll() is not None or self.answers(), "the start of the service")
        if running.poll() is not None:
            _, told = running.communicate()
            raise RuntimeError(f"pipehandler serve left with {running.returncode}: {told.decode()}")
        return self

    def answers(self) -> bool:
        """Whether it does."""
        try:
            self.status()
        except ServeError:
            return False
        return True

    def status(self) -> dict[str, int]:
        """What it says of itself."""
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
        """What it logged about itself."""
        return [line for line in self.handler.log_lines() if line.startswith(("action=serve ", "action=worker "))]
