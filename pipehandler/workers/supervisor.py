"""The supervisor of the resident workers.

It accepts the entrypoints' connections, reads the first packet of each, and passes it, with the connection, to a free
worker. It never sees the message itself. A connection that sends nothing therefore occupies no worker. Workers are forked
from the supervisor with all modules loaded. The supervisor has no connection to the database and holds no mail: without
it, every entrypoint delivers cold.
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
from ..runtime.installation import code_digest, configuration_digest
from ..settings.config import DEFAULT_PATH, Config, ConfigError, load
from .pool import WorkerPool, log_event, record_lost
from .worker import Task

_MAX_CONNECTIONS = 512
"""Connections that may wait without a worker; further ones are closed, and their entrypoints deliver cold."""

_FIRST_PACKET_SECONDS = 2.0
_NOTIFY_SECONDS = 1.0
"""Shortest time between two STATUS= lines to systemd: a person cannot read them faster."""


class _Connection:
    """An entrypoint's connection that no worker has yet. `until`: when it is closed at the latest (time.monotonic)."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self.socket = sock
        self.until = until


class Supervisor:
    """The service, on a listening socket. `path`: the configuration file, read again on SIGHUP."""

    def __init__(self, listener: socket.socket, path: str, config: Config) -> None:
        self._listener = listener
        self._path = path
        self._config = config
        self._selector = DefaultSelector()
        self._pool = WorkerPool(config, self._selector, self._close_in_child, self._assign)
        self._connections: dict[_Connection, None] = {}  # in order of arrival
        self._waiting: dict[_Connection, tuple[bytes, Task]] = {}  # in order of arrival
        self._congested = self._sent_back = self._other_namespace = 0
        self._stopping = False
        self._kill_at = float("inf")
        self._notified = ""
        self._notify_at = 0.0
        self._code = code_digest()
        self._signals, self._signalled = socket.socketpair()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then finish the deliveries under way. SIGHUP reads the configuration again."""
        gc.collect()
        gc.freeze()  # what exists now is never collected; not scanning it keeps its pages shared with the workers
        for end in (self._listener, self._signals, self._signalled):
            end.setblocking(False)
        self._selector.register(self._listener, EVENT_READ, self._accept)
        self._selector.register(self._signals, EVENT_READ, self._handle_signals)
        signal.set_wakeup_fd(self._signalled.fileno())
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        self._pool.spawn()
        log_event(self._config, "started", pid=os.getpid(), workers=self._config.serve.workers)
        systemd.notify("READY=1")
        while self._pool or not self._stopping:
            for key, _ in self._selector.select(self._select_timeout()):
                key.data()
            self._expire()
            if not self._stopping:
                self._pool.spawn()
            self._notify_status()
        log_event(self._config, "stopped", pid=os.getpid())

    def status(self) -> dict[str, int]:
        """Workers and waiting messages now; deliveries, refusals and lost workers since the start; which code and which
        configuration the workers have (digests)."""
        pool = self._pool
        return {
            "workers": pool.staying,
            "free": pool.free,
            "busy": pool.busy,
            "waiting": len(self._waiting),
            "delivered": pool.delivered,
            "congested": self._congested,
            "sent_back": self._sent_back,
            "other_namespace": self._other_namespace,
            "replaced": pool.replaced,
            "died": pool.died,
            "code": self._code,
            "configuration": configuration_digest(self._config),
        }

    # Connections.

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                    time.sleep(0.01)  # entrypoints wait in the backlog, or deliver cold
                return
            if len(self._connections) >= _MAX_CONNECTIONS or not _is_authorised(accepted):
                accepted.close()
                continue
            accepted.setblocking(False)
            connection = _Connection(accepted, time.monotonic() + _FIRST_PACKET_SECONDS)
            self._connections[connection] = None
            self._selector.register(accepted, EVENT_READ, lambda connection=connection: self._receive(connection))
            self._receive(connection)

    def _receive(self, connection: _Connection) -> None:
        if connection not in self._connections:
            return  # closed earlier in the same round of select
        try:
            packet = connection.socket.recv(LARGEST + 1)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if connection in self._waiting:  # it has left, or sends something when it should wait
            self._close(connection)
        elif packet == b"status":
            self._close(connection, json.dumps(self.status()).encode())
        elif not (task := Task.from_packet(packet)):  # not an entrypoint
            self._close(connection)
        elif self._stopping or len(packet) > LARGEST or not self._same_installation(task):
            self._sent_back += 1
            self._close(connection, b"cold")
        elif not _is_visible(connection.socket):
            self._other_namespace += 1
            self._close(connection, b"cold")
        else:
            self._queue(connection, packet, task)

    def _queue(self, connection: _Connection, packet: bytes, task: Task) -> None:
        wait = self._longest_wait()
        connection.until = time.monotonic() + wait
        self._waiting[connection] = packet, task
        self._assign()
        if connection in self._connections:
            with suppress(OSError):
                connection.socket.send(b"wait %d" % wait)

    def _longest_wait(self) -> int:
        """Seconds a message may wait for a worker: at most half its deadline, so that time is left to deliver it."""
        return min(self._config.serve.queue_timeout, self._config.limits.deadline // 2)

    def _same_installation(self, task: Task) -> bool:
        """Whether the entrypoint runs the same code with the same configuration file as this service."""
        path = option(task.argv, "config") or DEFAULT_PATH
        return task.installation == INSTALLATION.decode("ascii") and path == self._path

    def _assign(self) -> None:
        """Assign waiting messages, the oldest first, as long as a worker is free; no large one keeps a small one waiting."""
        for connection, (packet, task) in list(self._waiting.items()):
            if task.is_large and not self._pool.has_room_for_large:
                continue
            if not self._pool.assign(packet, task, connection.socket):
                return
            self._close(connection)

    def _close(self, connection: _Connection, last_packet: bytes = b"") -> None:
        """Close our end of a connection, after a last packet if one is given; a worker that has it keeps its own."""
        del self._connections[connection]
        self._waiting.pop(connection, None)
        self._selector.unregister(connection.socket)
        with suppress(OSError), connection.socket as closing:
            if last_packet:
                closing.send(last_packet)

    def _expire(self) -> None:
        now = time.monotonic()
        for connection in [connection for connection in self._connections if connection.until <= now]:
            if connection not in self._waiting:
                self._close(connection)
                continue
            _, task = self._waiting[connection]
            result = outcome.CONGESTED
            kind = "for a large message " if task.is_large else ""
            self._congested += 1
            self._close(connection, f"end {result.status} {result.line()}".encode("ascii"))
            record_lost(self._config, result, task, f"no worker was free {kind}within {self._longest_wait()} s")
        if now >= self._kill_at:
            self._kill_at = float("inf")
            self._pool.kill()

    def _close_in_child(self) -> Iterator[socket.socket]:
        """Yield the supervisor's sockets, for a new worker to close."""
        signal.set_wakeup_fd(-1)
        self._selector.close()
        yield from (
            self._listener,
            self._signals,
            self._signalled,
            *(connection.socket for connection in self._connections),
        )

    # Signals, and the status for systemd.

    def _handle_signals(self) -> None:
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
        for connection in list(self._connections):
            self._close(connection, b"cold")
        self._pool.retire_all()
        self._kill_at = time.monotonic() + self._config.limits.deadline + 2 * GRACE

    def _reload(self) -> None:
        systemd.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            self._config = self._pool.config = load(self._path)
        except ConfigError as error:
            log_event(self._config, "not reloaded", failed=True, reason=str(error))
        else:
            self._pool.retire_all()
            log_event(self._config, "reloaded", workers=self._config.serve.workers)
        systemd.notify("READY=1")

    def _select_timeout(self) -> float | None:
        """Seconds until the next timer is due; None if no timer is set."""
        times = [self._kill_at, *(connection.until for connection in self._connections)]
        if not self._stopping:
            times.append(self._pool.spawns_at)
        if self._text() != self._notified:
            times.append(self._notify_at)
        first = min(times)
        return None if first == float("inf") else max(0.0, first - time.monotonic())

    def _notify_status(self) -> None:
        """Update what `systemctl status` shows, at most once a second."""
        text = self._text()
        if text != self._notified and time.monotonic() >= self._notify_at:
            self._notified, self._notify_at = text, time.monotonic() + _NOTIFY_SECONDS
            systemd.notify(text)

    def _text(self) -> str:
        pool = self._pool
        return f"STATUS={pool.busy} of {pool.staying} workers busy, {len(self._waiting)} messages waiting"


def _is_visible(connection: socket.socket) -> bool:
    """Whether the entrypoint is in our PID namespace, where a worker can see that pipe(8), its parent, has gone.

    From another one SO_PEERCRED reports process 0, or the parent that the entrypoint names means another process here.
    """
    try:
        return os.path.samestat(os.stat(f"/proc/{peer(connection)[0]}/ns/pid"), os.stat("/proc/self/ns/pid"))
    except PermissionError:
        return True  # it is here, and another account's: root's, for one
    except OSError:
        return False


def _is_authorised(connection: socket.socket) -> bool:
    """Only the service's own account and root may hand over messages and ask for the status."""
    return peer(connection)[1] in (0, os.geteuid())
