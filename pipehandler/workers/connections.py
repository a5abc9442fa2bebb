"""The entrypoints' connections that no worker has yet, with what each waits for and until when."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from selectors import EVENT_READ, BaseSelector

from ..handover import peer
from .connection_holder import HeldConnection
from .worker import Task

MOST = 512
"""The most connections that may wait for a worker; further ones are closed, and their entrypoints deliver cold."""


class Connection:
    """One connection.

    packet: the first one received, b"" before. until: the latest time to close it (time.monotonic). answered: whether it
    was answered with `wait`.
    """

    def __init__(self, sock: socket.socket, until: float) -> None:
        self.socket = sock
        self.until = until
        self.packet = b""
        self.answered = False


class Connections:
    """All connections, in order of arrival.

    waiting: those that wait for a worker, each with its task. held: those that wait for the newly installed program.
    receive: called when data has arrived on a connection.
    """

    def __init__(self, selector: BaseSelector, receive: Callable[[Connection], None]) -> None:
        self._selector = selector
        self._receive = receive
        self._all: dict[Connection, None] = {}
        self.waiting: dict[Connection, Task] = {}
        self.held: dict[Connection, None] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[Connection]:
        return iter(list(self._all))

    def __contains__(self, connection: object) -> bool:
        return connection in self._all

    def add(self, sock: socket.socket, until: float) -> Connection:
        """Watch a new connection."""
        sock.setblocking(False)
        connection = Connection(sock, until)
        self._all[connection] = None
        self._selector.register(sock, EVENT_READ, lambda: self._receive(connection))
        return connection

    def answer_wait(self, connection: Connection, seconds: int) -> None:
        """Answer an entrypoint with `wait`, only once; `seconds` count from then on."""
        if not connection.answered:
            connection.answered = True
            connection.until = time.monotonic() + seconds
            with suppress(OSError):
                connection.socket.send(b"wait %d" % seconds)

    def close(self, connection: Connection, last_packet: bytes = b"") -> None:
        """Close our end, after sending `last_packet` if given. A worker that has the connection keeps its own copy."""
        del self._all[connection]
        self.waiting.pop(connection, None)
        self.held.pop(connection, None)
        self._selector.unregister(connection.socket)
        with suppress(OSError), connection.socket as closing:
            if last_packet:
                closing.send(last_packet)

    def handed_on(self) -> list[HeldConnection]:
        """Return all connections, for the process that holds them meanwhile."""
        return [HeldConnection(each.socket, each.packet, each.until, each.answered) for each in self._all]


def is_visible(connection: socket.socket) -> bool:
    """Whether the entrypoint is in our PID namespace, where a worker can notice that its parent, pipe(8), has ended.

    From another namespace, SO_PEERCRED reports process 0, or the parent's pid is another process here.
    """
    try:
        return os.path.samestat(os.stat(f"/proc/{peer(connection)[0]}/ns/pid"), os.stat("/proc/self/ns/pid"))
    except PermissionError:
        return True  # it exists here, and belongs to another account, such as root
    except OSError:
        return False


def has_ended(connection: socket.socket) -> bool:
    """Whether the other end is closed, as the kernel does it for a process that ends."""
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def is_authorised(connection: socket.socket) -> bool:
    """Whether the peer is root or the service's own account. Only they may hand over messages or request the status."""
    return peer(connection)[1] in (0, os.geteuid())
