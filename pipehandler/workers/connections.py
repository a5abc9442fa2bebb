"""The entrypoints' connections that no worker has yet: what they wait for, and until when."""

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from selectors import EVENT_READ, BaseSelector

from ..handover import peer
from .doorkeeper import Guest
from .worker import Task

MOST = 512
"""Connections that may wait without a worker; further ones are closed, and their entrypoints deliver cold."""


class Connection:
    """One connection. packet: its first one, b"" before it came. until: when it is closed at the latest (time.monotonic).
    told: whether it was answered with `wait`."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self.socket = sock
        self.until = until
        self.packet = b""
        self.told = False


class Connections:
    """All of them, in order of arrival. waiting: for a worker, each with its task. held: for the program that is installed now.

    receive: called when something has arrived on a connection.
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

    def tell(self, connection: Connection, seconds: int) -> None:
        """Let an entrypoint wait; it is told once, and the time counts from then on."""
        if not connection.told:
            connection.told = True
            connection.until = time.monotonic() + seconds
            with suppress(OSError):
                connection.socket.send(b"wait %d" % seconds)

    def close(self, connection: Connection, last_packet: bytes = b"") -> None:
        """Close our end, after a last packet if one is given; a worker that has the connection keeps its own."""
        del self._all[connection]
        self.waiting.pop(connection, None)
        self.held.pop(connection, None)
        self._selector.unregister(connection.socket)
        with suppress(OSError), connection.socket as closing:
            if last_packet:
                closing.send(last_packet)

    def guests(self) -> list[Guest]:
        """Return all for a doorkeeper."""
        return [Guest(each.socket, each.packet, each.until, each.told) for each in self._all]


def is_visible(connection: socket.socket) -> bool:
    """Whether the entrypoint is in our PID namespace, where a worker can see that pipe(8), its parent, has gone.

    From another one SO_PEERCRED reports process 0, or the parent that the entrypoint names means another process here.
    """
    try:
        return os.path.samestat(os.stat(f"/proc/{peer(connection)[0]}/ns/pid"), os.stat("/proc/self/ns/pid"))
    except PermissionError:
        return True  # it is here, and another account's: root's, for one
    except OSError:
        return False


def is_authorised(connection: socket.socket) -> bool:
    """Only the service's own account and root may hand over messages and ask for the status."""
    return peer(connection)[1] in (0, os.geteuid())
