"""From an entrypoint's connection to the worker that takes its message: who waits, for how long, and who is sent back.

The dispatcher reads the first packet of each connection and never a message. So a connection that sends nothing occupies
no worker.
"""

import errno
import json
import socket
import time
from collections.abc import Callable, Iterable
from selectors import EVENT_READ, BaseSelector

from ..handover import INSTALLATION, LARGEST, option
from ..mail import outcome
from ..settings.config import Config
from ..settings.config_file import DEFAULT_PATH
from .connection_holder import HeldConnection
from .connections import MOST, Connection, Connections, has_ended, is_authorised, is_visible
from .pool import WorkerPool, record_lost
from .renewal import Renewal
from .worker import Task

_FIRST_PACKET_SECONDS = 2.0


class Dispatcher:
    """The connections on the listening socket.

    path: the configuration file of the service, whose contents are `config`, which may be replaced. status: returns what a
    request for the status is answered with.
    counts: messages that waited too long, that were sent back to be delivered cold, and that came from another PID namespace.
    """

    def __init__(
        self,
        listener: socket.socket,
        path: str,
        config: Config,
        selector: BaseSelector,
        pool: WorkerPool,
        renewal: Renewal,
        status: Callable[[], object],
    ) -> None:
        self.config = config
        self.counts = dict.fromkeys(("congested", "sent_back", "other_namespace"), 0)
        self._listener = listener
        self._path = path
        self._selector = selector
        self._pool = pool
        self._renewal = renewal
        self._status = status
        self._connections = Connections(selector, self._receive)
        self._installations = {INSTALLATION.decode("ascii")}
        self._stopping = False

    def start(self) -> None:
        """Accept connections."""
        self._listener.setblocking(False)
        self._selector.register(self._listener, EVENT_READ, self._accept)

    def stop(self) -> None:
        """Accept nothing more, and send all that wait back."""
        self._stopping = True
        self._selector.unregister(self._listener)
        self._listener.close()
        for connection in self._connections:
            self._connections.close(connection, b"cold")

    @property
    def waiting(self) -> int:
        """The number of messages that wait for a worker."""
        return len(self._connections.waiting)

    @property
    def expires_at(self) -> float:
        """The earliest time at which a connection has waited long enough (time.monotonic); infinity if there is none."""
        return min((connection.until for connection in self._connections), default=float("inf"))

    @property
    def sockets(self) -> list[socket.socket]:
        """All sockets that belong to it."""
        return [self._listener, *(connection.socket for connection in self._connections)]

    @property
    def longest_wait(self) -> int:
        """The seconds a message may wait for a worker: at most half its deadline, to leave time to deliver it."""
        return min(self.config.serve.queue_timeout, self.config.limits.deadline // 2)

    def assign(self) -> None:
        """Assign waiting messages, oldest first, while a worker is free. A large one does not hold up a small one."""
        for connection, task in list(self._connections.waiting.items()):
            if task.is_large and not self._pool.has_room_for_large:
                continue
            if not self._pool.assign(connection.packet, task, connection.socket):
                return
            self._connections.close(connection)

    def expire(self, now: float) -> None:
        """Answer those that have waited long enough at `now` (time.monotonic)."""
        for connection in [connection for connection in self._connections if connection.until <= now]:
            if connection in self._connections.held:
                self._send_back(connection)
            elif task := self._connections.waiting.get(connection):
                result = outcome.CONGESTED
                kind = "for a large message " if task.is_large else ""
                self.counts["congested"] += 1
                self._connections.close(connection, f"end {result.status} {result.line()}".encode("ascii"))
                record_lost(self.config, result, task, f"no worker was free {kind}within {self.longest_wait} s")
            else:
                self._connections.close(connection)

    # A new program.

    def send_held_back(self) -> None:
        """Send those back that were held for a program that will not come."""
        for connection in list(self._connections.held):
            self._send_back(connection)

    def handed_on(self) -> list[HeldConnection]:
        """Return all connections, for the process that holds them meanwhile."""
        return self._connections.handed_on()

    def abandon(self) -> None:
        """Close all connections without an answer: another process has them."""
        for connection in self._connections:
            self._connections.close(connection)

    def take_over(self, installation: str, counts: dict[str, int], connections: Iterable[HeldConnection]) -> None:
        """Go on with the connections and counts of this process's previous program, and accept its entrypoints."""
        self._installations.add(installation)
        self.counts |= {name: counts.get(name, 0) for name in self.counts}
        for held in connections:
            if not is_authorised(held.socket):
                held.socket.close()
                continue
            connection = self._connections.add(held.socket, held.until)
            connection.packet, connection.answered = held.packet, held.answered
            if held.packet:
                self._decide(connection)

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
            self._connections.close(connection, json.dumps(self._status()).encode())
        elif not (task := Task.from_packet(packet)):  # not an entrypoint
            self._connections.close(connection)
        elif self._stopping or len(packet) > LARGEST or not self._same_configuration(task):
            self._send_back(connection)
        elif task.installation not in self._installations:
            # From the program that will soon replace this one, or from an unrelated one.
            if self._renewal.expected:
                self._connections.held[connection] = None
                self._connections.answer_wait(connection, self.longest_wait)
            else:
                self._send_back(connection)
        elif not is_visible(connection.socket):
            if has_ended(connection.socket):  # it delivered cold while the service stood still, or was restarted
                self._connections.close(connection)
            else:
                self._send_back(connection, "other_namespace")
        else:
            self._connections.waiting[connection] = task
            self.assign()
            if connection in self._connections:
                self._connections.answer_wait(connection, self.longest_wait)

    def _send_back(self, connection: Connection, counted: str = "sent_back") -> None:
        self.counts[counted] += 1
        self._connections.close(connection, b"cold")

    def _same_configuration(self, task: Task) -> bool:
        """Whether the entrypoint uses the configuration file of this service."""
        return (option(task.argv, "config") or DEFAULT_PATH) == self._path
