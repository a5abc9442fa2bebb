"""`pipehandler follow`, run as a person or a program runs it, and its output line by line."""

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Queue
from typing import Any, NamedTuple

from .console import Console
from .database import Database
from .service import bounded, wait_until


class Line(NamedTuple):
    """A line of output."""

    text: str

    @property
    def json(self) -> dict[str, Any]:
        """The parsed line, with --json."""
        said: dict[str, Any] = json.loads(self.text)
        return said


class Following:
    """`pipehandler follow` with these arguments."""

    def __init__(self, console: Console, *arguments: str) -> None:
        self.running = console.start("follow", *arguments)
        self._lines: Queue[Line] = Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.running.stdout
        for line in self.running.stdout:
            self._lines.put(Line(line.decode()))

    def line(self) -> Line:
        """The next line; wait for it."""
        return self._lines.get(timeout=60)

    def error(self) -> str:
        """The next line of stderr; wait for it."""
        assert self.running.stderr
        with bounded(self.running):
            return self.running.stderr.readline().decode()

    def end(self, how: signal.Signals = signal.SIGINT) -> tuple[int, str]:
        """End it; returns its status, and its stderr."""
        self.running.send_signal(how)
        status = self.running.wait(60)
        self._thread.join(60)
        assert self.running.stdout
        assert self.running.stderr
        with self.running.stdout, self.running.stderr:
            return status, self.running.stderr.read().decode()


@contextmanager
def following(console: Console, *arguments: str) -> Iterator[Following]:
    """A follower that has printed everything stored, and waits."""
    before = waiting(console.database)
    one = Following(console, *arguments)
    try:
        wait_until(lambda: waiting(console.database) > before, "the start of follow")
        yield one
    finally:
        if one.running.returncode is None:
            one.end(signal.SIGKILL)


def waiting(database: Database) -> int:
    """The number of streams that have queried, and now wait."""
    return int(
        database.value(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle'"
            "   AND query LIKE '%%deliveries_after%%'"
            "   AND query NOT LIKE '%%pg_stat_activity%%'"  # the session of an earlier call may still be ending
        )
    )
