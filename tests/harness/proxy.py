"""A fault proxy between the handler and PostgreSQL, driven from outside.

It passes on the messages of the frontend/backend protocol (PostgreSQL, "Message Flow") one by one, notes each, and does what
its `fault` says: cut, reset or stall before, inside or after a certain message. TLS is refused, so that it can read.
"""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

FRONTEND, BACKEND = "F", "B"
"""The sender of a message, as PostgreSQL's documentation marks them: the handler, the server."""

BEFORE, INSIDE, AFTER = "before", "inside", "after"
CUT, RESET, STALL = "cut", "reset", "stall"


class Message(NamedTuple):
    """One protocol message: its sender, its type octet ("" for the startup message), its number from 1 among those of its
    sender on this connection, the same among those of its type, and all its octets."""

    sender: str
    kind: str
    number: int
    nth: int
    octets: bytes


class Fault(NamedTuple):
    """A fault: `how` (cut: the connection ends; reset: with RST; stall: silence), and `where` in the messages that
    `wanted` selects. A number for `where` is an offset in the message, in octets; a negative one counts from its end.
    `always`: for each of these messages, not only for the first."""

    wanted: Callable[[Message], bool]
    where: str | int = BEFORE
    how: str = CUT
    always: bool = False

    def passed(self, octets: bytes) -> bytes:
        """The part of the message that still gets through."""
        if isinstance(self.where, int):
            return octets[: self.where]
        return octets[: {BEFORE: 0, INSIDE: len(octets) // 2, AFTER: len(octets)}[self.where]]


def message(sender: str, kind: str, nth: int = 1) -> Callable[[Message], bool]:
    """Select the nth message with this sender and type octet, for example (BACKEND, "Z", 2) for the second
    ReadyForQuery."""
    return lambda each: (each.sender, each.kind, each.nth) == (sender, kind, nth)


class _End(Exception):
    """This connection is over."""


class _Connection:
    """One connection: the two sockets, and a thread for each direction."""

    def __init__(self, proxy: "Proxy", client: socket.socket, server: socket.socket) -> None:
        self.proxy, self.sockets = proxy, {FRONTEND: client, BACKEND: server}
        self.kinds: dict[str, list[bytes]] = {FRONTEND: [], BACKEND: []}
        self.threads = [threading.Thread(target=self._pass_on, args=(sender,), daemon=True) for sender in self.kinds]

    def _pass_on(self, sender: str) -> None:
        source, target = self.sockets[sender], self.sockets[BACKEND if sender == FRONTEND else FRONTEND]
        try:
            with source.makefile("rb") as stream:
                while each := self._read(stream.read, sender):
                    self._pass_one(each, target)
        except (OSError, ValueError, _End):
            pass
        finally:
            self.end()

    def _read(self, read: Callable[[int], bytes], sender: str) -> Message | None:
        kinds = self.kinds[sender]
        kind = b"" if sender == FRONTEND and not kinds else read(1)
        length = read(4)
        if len(length) < 4:
            return None
        octets = kind + length + read(struct.unpack("!I", length)[0] - 4)
        kinds.append(kind)
        return Message(sender, kind.decode("ascii"), len(kinds), kinds.count(kind), octets)

    def _pass_one(self, each: Message, target: socket.socket) -> None:
        with self.proxy.lock:
            self.proxy.messages.append(each)
            fault = self.proxy.fault
            hit = fault is not None and fault.wanted(each)
            if fault is not None and hit:
                self.proxy.fault = fault if fault.always else None
                self.proxy.hits += 1
        passed = fault.passed(each.octets) if fault is not None and hit else each.octets
        target.sendall(passed)
        if passed == each.octets:
            with self.proxy.lock:
                self.proxy.passed.append(each)
        if fault is None or not hit:
            return
        if fault.how == STALL:
            self.proxy.released.wait()
        self.end(reset=fault.how == RESET)
        raise _End

    def end(self, reset: bool = False) -> None:
        """Close both sides; data sent before still arrives, unless it is a reset."""
        for each in self.sockets.values():
            try:
                if reset:
                    each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                # The thread that reads here must wake up and release the socket, or it would stay open. Shutting down
                # only the reading side sends nothing, so that a reset comes first.
                each.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)
                each.close()
            except OSError:
                continue


class Proxy:
    """A proxy for the server at `port` of loopback. `fault` may be set at any time, applies to all connections, and
    happens once unless it is `always`. `messages` are all messages received, in order, and `passed` those forwarded
    whole; `hits` counts the faults that happened."""

    def __init__(self, port: int) -> None:
        self.server_port = port
        self.fault: Fault | None = None
        self.messages: list[Message] = []
        self.passed: list[Message] = []
        self.hits = 0
        self.lock = threading.Lock()
        self.released = threading.Event()
        self._connections: list[_Connection] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.server_port), timeout=30)
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            connection = _Connection(self, client, server)
            self._connections.append(connection)
            for thread in connection.threads:
                thread.start()

    def conninfo(self, conninfo: str) -> str:
        """`conninfo` through the proxy; the last value counts (libpq)."""
        return f"{conninfo} host=127.0.0.1 port={self.port} sslmode=disable gssencmode=disable"

    def kinds(self) -> list[str]:
        """The messages in short, for people and comparisons: "F" or "B" with the type octet, such as "FP" for Parse."""
        with self.lock:
            return [each.sender + each.kind for each in self.messages]

    def wait_for(self, connections: int = 1, seconds: float = 10) -> None:
        """Wait until so many connections have opened and closed; then `messages` is complete."""
        for connection in self._connections[:connections]:
            for thread in connection.threads:
                thread.join(seconds)

    def close(self) -> None:
        """End everything: new connections are refused, old ones are cut."""
        self.released.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)
        for connection in self._connections:
            connection.end()
        self.wait_for(len(self._connections))


@contextmanager
def proxy(port: int) -> Iterator[Proxy]:
    """A proxy for one test."""
    running = Proxy(port)
    try:
        yield running
    finally:
        running.close()
