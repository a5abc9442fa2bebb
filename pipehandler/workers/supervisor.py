"""The supervisor of the resident workers.

It accepts the entrypoints' connections, reads the first packet of each, and passes it, with the connection, to a free
worker. So a connection that sends nothing occupies no worker. The supervisor never reads a message. It forks the
workers with all modules loaded. It has no connection to the database and holds no mail: without it, every entrypoint
delivers cold.
"""

import errno
import gc
import json
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from selectors import EVENT_READ, DefaultSelector

from ..handover import INSTALLATION, LARGEST, option
from ..mail import outcome
from ..runtime import systemd
from ..runtime.deadline import GRACE
from ..runtime.installation import code_digest, configuration_digest
from ..settings.config import DEFAULT_PATH, Config, ConfigError, load
from .connection_holder import hold_connections, take_over
from .connections import MOST, Connection, Connections, has_ended, is_authorised, is_visible
from .listener import ServeError
from .pool import WorkerPool, log_event, record_lost
from .reception import Reception
from .renewal import Renewal
from .succession import SIGNALS, Inheritance, become
from .worker import Task

_FIRST_PACKET_SECONDS = 2.0
_NOTIFY_SECONDS = 1.0
"""The minimum time between two STATUS= lines to systemd: a person cannot read them faster."""


class Supervisor:
    """The service, on a listening socket.

    `path`: the configuration file, read again when it has changed and on SIGHUP. `created`: whether the service created
    the socket. `inheritance`: the state left by this process's previous program. `lmtp`: the sockets that were passed to
    this process for LMTP. `lmtp_created`: whether the service opens those itself. Raises ServeError if those in the configuration cannot be opened.
    """

    def __init__(
        self,
        listener: socket.socket,
        path: str,
        config: Config,
        created: bool = False,
        inheritance: Inheritance | None = None,
        lmtp: Sequence[socket.socket] = (),
        lmtp_created: bool = True,
    ) -> None:
        self._listener = listener
        self._path = path
        self._config = config
        self._created = created
        self._inheritance = inheritance
        self._selector = DefaultSelector()
        self._pool = WorkerPool(config, self._selector, self._close_in_child, self._assign)
        self._connections = Connections(self._selector, self._receive)
        self._reception = Reception(
            config,
            path,
            listener.getsockname(),
            lmtp,
            lmtp_created,
            self._selector,
            lambda: (*self._close_in_child(), *self._pool.channels),
        )
        self._counts = dict.fromkeys(("congested", "sent_back", "other_namespace"), 0)
        self._code = code_digest()
        self._installations = {INSTALLATION.decode("ascii")}
        self._renewal = Renewal(path, self._code, self._selector, self._reload, self._become_new, self._stay)
        self._refused = ""  # why the installed program did not replace this one
        self._stopping = False
        self._kill_at = float("inf")
        self._notified = ""
        self._notify_at = 0.0
        self._signals, self._signalled = socket.socketpair()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then finish the deliveries under way. SIGHUP reads the configuration again."""
        gc.collect()
        gc.freeze()  # existing objects are never collected; not scanning them keeps their pages shared with the workers
        for end in (self._listener, self._signals, self._signalled):
            end.setblocking(False)
        self._selector.register(self._listener, EVENT_READ, self._accept)
        self._selector.register(self._signals, EVENT_READ, self._handle_signals)
        signal.set_wakeup_fd(self._signalled.fileno())
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if self._inheritance:
            self._inherit(self._inheritance)
        self._pool.spawn()
        self._reception.spawn()
        log_event(self._config, "started", pid=os.getpid(), workers=self._config.serve.workers)
        systemd.notify("READY=1")
        while self._pool or self._reception or not self._stopping:
            for key, _ in self._selector.select(self._select_timeout()):
                key.data()
            self._expire()
            if not self._stopping:
                self._pool.spawn()
                self._reception.spawn()
            self._notify_status()
        log_event(self._config, "stopped", pid=os.getpid())

    def status(self) -> dict[str, int]:
        """Return the service's status.

        That is the current numbers of workers and waiting messages; deliveries, refusals and lost workers since the
        start; and the digests of the workers' code and configuration.
        """
        pool = self._pool
        return {
            "workers": pool.staying,
            "free": pool.free,
            "busy": pool.busy,
            "waiting": len(self._connections.waiting),
            **pool.counts,
            **self._counts,
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
                    time.sleep(0.01)  # entrypoints wait in the backlog, or deliver cold; do not spin
                return
            if len(self._connections) >= MOST or not is_authorised(accepted):
                accepted.close()
                continue
            self._receive(self._connections.add(accepted, time.monotonic() + _FIRST_PACKET_SECONDS))

    def _receive(self, connection: Connection) -> None:
        if connection not in self._connections:
            return  # closed earlier in the same round of select
        try:
            packet = connection.socket.recv(LARGEST + 1)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if connection.packet or not packet:  # it has closed, or sends data when it should wait
            self._connections.close(connection)
            return
        connection.packet = packet
        self._decide(connection)

    def _decide(self, connection: Connection) -> None:
        """Answer a first packet, or let the entrypoint wait."""
        packet = connection.packet
        if not self._stopping:
            self._renewal.look()
        if packet == b"status":
            self._connections.close(connection, json.dumps(self.status()).encode())
        elif not (task := Task.from_packet(packet)):  # not an entrypoint
            self._connections.close(connection)
        elif self._stopping or len(packet) > LARGEST or not self._same_configuration(task):
            self._send_back(connection)
        elif task.installation not in self._installations:
            # From the program that will soon replace this one, or from an unrelated one.
            if self._renewal.expected:
                self._connections.held[connection] = None
                self._connections.answer_wait(connection, self._longest_wait())
            else:
                self._send_back(connection)
        elif not is_visible(connection.socket):
            if has_ended(connection.socket):  # it delivered cold while the service stood still, or was restarted
                self._connections.close(connection)
            else:
                self._send_back(connection, "other_namespace")
        else:
            self._connections.waiting[connection] = task
            self._assign()
            if connection in self._connections:
                self._connections.answer_wait(connection, self._longest_wait())

    def _send_back(self, connection: Connection, counted: str = "sent_back") -> None:
        self._counts[counted] += 1
        self._connections.close(connection, b"cold")

    def _longest_wait(self) -> int:
        """Return the seconds a message may wait for a worker: at most half its deadline, to leave time to deliver it."""
        return min(self._config.serve.queue_timeout, self._config.limits.deadline // 2)

    def _same_configuration(self, task: Task) -> bool:
        """Whether the entrypoint uses the configuration file of this service."""
        return (option(task.argv, "config") or DEFAULT_PATH) == self._path

    def _assign(self) -> None:
        """Assign waiting messages, oldest first, while a worker is free. A large one does not hold up a small one."""
        for connection, task in list(self._connections.waiting.items()):
            if task.is_large and not self._pool.has_room_for_large:
                continue
            if not self._pool.assign(connection.packet, task, connection.socket):
                return
            self._connections.close(connection)

    def _expire(self) -> None:
        now = time.monotonic()
        for connection in [connection for connection in self._connections if connection.until <= now]:
            if connection in self._connections.held:
                self._send_back(connection)
            elif task := self._connections.waiting.get(connection):
                result = outcome.CONGESTED
                kind = "for a large message " if task.is_large else ""
                self._counts["congested"] += 1
                self._connections.close(connection, f"end {result.status} {result.line()}".encode("ascii"))
                record_lost(self._config, result, task, f"no worker was free {kind}within {self._longest_wait()} s")
            else:
                self._connections.close(connection)
        self._renewal.act(now)
        if now >= self._kill_at:
            self._kill_at = float("inf")
            self._pool.kill()
            self._reception.kill()

    def _close_in_child(self) -> Iterator[socket.socket]:
        """Yield the supervisor's sockets, for a new worker to close."""
        signal.set_wakeup_fd(-1)
        self._selector.close()
        yield from (
            self._listener,
            self._signals,
            self._signalled,
            *(connection.socket for connection in self._connections),
            *self._reception.sockets,
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
        self._renewal.stop()
        self._selector.unregister(self._listener)
        self._listener.close()
        for connection in self._connections:
            self._connections.close(connection, b"cold")
        self._pool.retire_all()
        self._reception.stop()
        self._kill_at = time.monotonic() + self._config.limits.deadline + 2 * GRACE

    def _reload(self) -> None:
        self._renewal.configuration_read()
        systemd.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            config = load(self._path)
            self._reception.configure(config)
        except (ConfigError, ServeError) as error:
            log_event(self._config, "not reloaded", failed=True, reason=str(error))
        else:
            self._config = self._pool.config = config
            self._pool.retire_all()
            log_event(self._config, "reloaded", workers=self._config.serve.workers)
        systemd.notify("READY=1")

    # A new program.

    def _stay(self, reason: str) -> None:
        """Continue with this program. Connections held for another one are sent back to be delivered cold."""
        if reason and reason != self._refused:
            log_event(self._config, "not replaced", failed=True, reason=reason)
        self._refused = reason
        for connection in list(self._connections.held):
            self._send_back(connection)

    def _become_new(self) -> None:
        """Leave the connections to a fork and become the installed program. Returns only if that fails."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            holder = os.fork()
        except OSError as error:
            self._renewal.failed()
            self._stay(str(error))
            return
        if holder == 0:
            for inherited in (ours, *self._pool.channels, *self._reception.sockets):
                inherited.close()
            hold_connections(self._listener, theirs, self._connections.handed_on(), self._longest_wait(), MOST)
        theirs.close()
        log_event(self._config, "replaced", pid=os.getpid())
        self._pool.retire_all()
        self._reception.retire_all()
        lmtp, receivers = self._reception.heirs()
        inheritance = Inheritance(
            listener=self._listener.fileno(),
            channel=ours.fileno(),
            holder=holder,
            workers=self._pool.heirs(),
            counts=self._pool.counts | self._counts,
            installation=INSTALLATION.decode("ascii"),
            created=self._created,
            lmtp=lmtp,
            lmtp_created=self._reception.created,
            receivers=receivers,
        )
        try:
            become(inheritance)
        except OSError as error:
            self._renewal.failed()
            reason = str(error)
        ours.close()  # this makes the fork answer `cold` to all
        os.waitpid(holder, 0)
        for connection in self._connections:
            self._connections.close(connection)
        self._stay(reason)

    def _inherit(self, inheritance: Inheritance) -> None:
        """Take over the workers, the counts and the connections of this process's previous program."""
        self._installations.add(inheritance.installation)
        self._counts |= {name: inheritance.counts.get(name, 0) for name in self._counts}
        self._pool.counts |= {name: inheritance.counts.get(name, 0) for name in self._pool.counts}
        for pid, descriptor, task in inheritance.workers:
            self._pool.adopt(pid, socket.socket(fileno=descriptor), Task(*task) if task else None)
        for pid, descriptor in inheritance.receivers:
            self._reception.adopt(pid, socket.socket(fileno=descriptor))
        for held in take_over(socket.socket(fileno=inheritance.channel)):
            if not is_authorised(held.socket):
                held.socket.close()
                continue
            connection = self._connections.add(held.socket, held.until)
            connection.packet, connection.answered = held.packet, held.answered
            if held.packet:
                self._decide(connection)
        os.waitpid(inheritance.holder, 0)

    def _select_timeout(self) -> float | None:
        """Return the seconds until the next timer is due; None if no timer is set."""
        times = [self._kill_at, self._renewal.at, *(connection.until for connection in self._connections)]
        if not self._stopping:
            times += [self._pool.spawns_at, self._reception.spawns_at]
        if self._text() != self._notified:
            times.append(self._notify_at)
        first = min(times)
        return None if first == float("inf") else max(0.0, first - time.monotonic())

    def _notify_status(self) -> None:
        """Update the status shown by `systemctl status`, at most once a second."""
        text = self._text()
        if text != self._notified and time.monotonic() >= self._notify_at:
            self._notified, self._notify_at = text, time.monotonic() + _NOTIFY_SECONDS
            systemd.notify(text)

    def _text(self) -> str:
        pool = self._pool
        return f"STATUS={pool.busy} of {pool.staying} workers busy, {len(self._connections.waiting)} messages waiting"
