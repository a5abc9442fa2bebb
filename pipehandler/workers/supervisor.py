"""The supervisor of the resident workers.

It accepts the entrypoints' connections, looks at the first packet of each, and gives it, with the connection, to a worker that
has nothing to do; the message itself it never sees. So it knows who waits, and a visitor who says nothing occupies
nobody. Workers are forked from it with all modules loaded. It has no connection to the database and nothing to lose:
without it, every entrypoint delivers cold.
"""

import errno
import gc
import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from selectors import EVENT_READ, DefaultSelector

from ..handover import INSTALLATION, LARGEST, option, peer
from ..mail import outcome
from ..runtime import systemd
from ..runtime.deadline import GRACE
from ..settings.config import DEFAULT_PATH, Config, ConfigError, load
from .pool import Crew, ended, event
from .worker import Task

_ROOM = 512
"""Connections that may be here without a worker; what is more is sent away, and delivers cold."""

_FIRST_PACKET_SECONDS = 2.0
_TELL_SECONDS = 1.0


class _Visitor:
    """A connection that no worker has yet. until: when we have waited long enough (time.monotonic)."""

    def __init__(self, connection: socket.socket, until: float) -> None:
        self.connection = connection
        self.until = until


class Supervisor:
    """The service, on a socket that listens already. path: of the configuration, to read it again on SIGHUP."""

    def __init__(self, listener: socket.socket, path: str, config: Config) -> None:
        self._listener = listener
        self._path = path
        self._config = config
        self._selector = DefaultSelector()
        self._crew = Crew(config, self._selector, self._unshared, self._assign)
        self._visitors: dict[_Visitor, None] = {}  # in the order of their coming
        self._waiting: dict[_Visitor, tuple[bytes, Task]] = {}  # in order
        self._congested = self._sent_back = 0
        self._stopping = False
        self._kill_at = float("inf")
        self._told = ""
        self._tell_at = 0.0
        self._signals, self._signalled = socket.socketpair()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, and until what is then under way is finished. SIGHUP: read the configuration again."""
        gc.collect()
        gc.freeze()  # what is here now is never garbage; not looking at it keeps its pages shared with the workers
        for each in (self._listener, self._signals, self._signalled):
            each.setblocking(False)
        self._selector.register(self._listener, EVENT_READ, self._accept)
        self._selector.register(self._signals, EVENT_READ, self._obey)
        signal.set_wakeup_fd(self._signalled.fileno())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        self._crew.hire()
        event(self._config, "started", pid=os.getpid(), workers=self._config.serve.workers)
        systemd.notify("READY=1")
        while self._crew or not self._stopping:
            for key, _ in self._selector.select(self._patience()):
                key.data()
            self._expire()
            if not self._stopping:
                self._crew.hire()
            self._tell()
        event(self._config, "stopped", pid=os.getpid())

    def status(self) -> dict[str, int]:
        """How many workers there are and work, how many messages wait, and counts since the start."""
        crew = self._crew
        return {
            "workers": crew.staying,
            "free": crew.free,
            "busy": crew.busy,
            "waiting": len(self._waiting),
            "delivered": crew.delivered,
            "congested": self._congested,
            "sent_back": self._sent_back,
            "replaced": crew.replaced,
            "died": crew.died,
        }

    # Visitors.

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                    time.sleep(0.01)  # they wait in the backlog, or deliver cold
                return
            if len(self._visitors) >= _ROOM or not _welcome(connection):
                connection.close()
                continue
            connection.setblocking(False)
            visitor = _Visitor(connection, time.monotonic() + _FIRST_PACKET_SECONDS)
            self._visitors[visitor] = None
            self._selector.register(connection, EVENT_READ, lambda visitor=visitor: self._listen(visitor))
            self._listen(visitor)

    def _listen(self, visitor: _Visitor) -> None:
        if visitor not in self._visitors:
            return  # it was sent away a moment ago
        try:
            packet = visitor.connection.recv(LARGEST + 1)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if visitor in self._waiting:  # it has left, or talks when it should wait
            self._dismiss(visitor)
        elif packet == b"status":
            self._dismiss(visitor, json.dumps(self.status()).encode())
        elif not (task := Task.from_packet(packet)):  # no entrypoint
            self._dismiss(visitor)
        elif self._stopping or len(packet) > LARGEST or not self._ours(task):
            self._sent_back += 1
            self._dismiss(visitor, b"cold")
        else:
            self._queue(visitor, packet, task)

    def _queue(self, visitor: _Visitor, packet: bytes, task: Task) -> None:
        wait = self._longest_wait()
        visitor.until = time.monotonic() + wait
        self._waiting[visitor] = packet, task
        self._assign()
        if visitor in self._visitors:
            with suppress(OSError):
                visitor.connection.send(b"wait %d" % wait)

    def _longest_wait(self) -> int:
        """Seconds; well before the deadline, so that there is time left for the message."""
        return min(self._config.serve.queue_timeout, self._config.limits.deadline // 2)

    def _ours(self, task: Task) -> bool:
        """Whether the entrypoint has our code and our configuration."""
        path = option(task.argv, "config") or DEFAULT_PATH
        return task.installation == INSTALLATION.decode("ascii") and path == self._path

    def _assign(self) -> None:
        """Give away what waits, as long as somebody is free."""
        while self._waiting:
            visitor, (packet, task) = next(iter(self._waiting.items()))
            if not self._crew.give(packet, task, visitor.connection):
                return
            self._dismiss(visitor)

    def _dismiss(self, visitor: _Visitor, last: bytes = b"") -> None:
        """End a visit, with a last packet or without."""
        del self._visitors[visitor]
        self._waiting.pop(visitor, None)
        self._selector.unregister(visitor.connection)
        with suppress(OSError), visitor.connection as connection:
            if last:
                connection.send(last)

    def _expire(self) -> None:
        now = time.monotonic()
        for visitor in [each for each in self._visitors if each.until <= now]:
            if visitor not in self._waiting:
                self._dismiss(visitor)
                continue
            _, task = self._waiting[visitor]
            how = outcome.CONGESTED
            self._congested += 1
            self._dismiss(visitor, f"end {how.status} {how.line()}".encode("ascii"))
            ended(self._config, how, task, f"no worker was free within {self._longest_wait()} s")
        if now >= self._kill_at:
            self._kill_at = float("inf")
            self._crew.kill()

    def _unshared(self) -> Iterator[socket.socket]:
        """What a worker has no business with."""
        signal.set_wakeup_fd(-1)
        self._selector.close()
        yield from (self._listener, self._signals, self._signalled, *(each.connection for each in self._visitors))

    # Orders, and what is told.

    def _obey(self) -> None:
        with suppress(BlockingIOError):
            for number in self._signals.recv(100):
                if number == signal.SIGHUP:
                    self._reload()
                elif not self._stopping:
                    self._stop()

    def _stop(self) -> None:
        self._stopping = True
        systemd.notify("STOPPING=1")
        self._selector.unregister(self._listener)
        self._listener.close()
        for visitor in list(self._visitors):
            self._dismiss(visitor, b"cold")
        self._crew.dismiss()
        self._kill_at = time.monotonic() + self._config.limits.deadline + 2 * GRACE

    def _reload(self) -> None:
        systemd.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            self._config = self._crew.config = load(self._path)
        except ConfigError as error:
            event(self._config, "not reloaded", failed=True, reason=str(error))
        else:
            self._crew.dismiss()
            event(self._config, "reloaded", workers=self._config.serve.workers)
        systemd.notify("READY=1")

    def _patience(self) -> float | None:
        """Seconds until something has to be done without being asked; None: for ever."""
        times = [self._kill_at, *(each.until for each in self._visitors)]
        if not self._stopping:
            times.append(self._crew.hires_at)
        if self._text() != self._told:
            times.append(self._tell_at)
        first = min(times)
        return None if first == float("inf") else max(0.0, first - time.monotonic())

    def _tell(self) -> None:
        """What `systemctl status` shows; not more often than a person can read it."""
        text = self._text()
        if text != self._told and time.monotonic() >= self._tell_at:
            self._told, self._tell_at = text, time.monotonic() + _TELL_SECONDS
            systemd.notify(text)

    def _text(self) -> str:
        crew = self._crew
        return f"STATUS={crew.busy} of {crew.staying} workers busy, {len(self._waiting)} messages waiting"


def _welcome(connection: socket.socket) -> bool:
    """Only our own account and root may hand over messages, and ask how it goes."""
    return peer(connection)[1] in (0, os.geteuid())
