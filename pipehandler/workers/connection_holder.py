"""Keep accepting entrypoints while the service replaces itself: a fork of the supervisor.

The supervisor becomes the new program by execve(2), in the same process, so that its service manager notices nothing.
Loading takes longer than an entrypoint waits for a first answer. Meanwhile this process accepts connections, answers
`wait`, and finally passes all of them on. It reads only first packets, delivers nothing, and answers `cold` if the new
program does not start.
"""

import json
import os
import selectors
import signal
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import NamedTuple, NoReturn

from ..handover import LARGEST

READY = b"ready"
"""The message by which the new program requests all connections."""

_TAKE_OVER_SECONDS = 30.0


class HeldConnection(NamedTuple):
    """A connection.

    packet: the first one received; b"": not yet. until: the latest time for an answer (time.monotonic). answered: whether
    it was answered with `wait`, which may be sent only once.
    """

    socket: socket.socket
    packet: bytes
    until: float
    answered: bool


def hold_connections(
    listener: socket.socket, channel: socket.socket, connections: Iterable[HeldConnection], seconds: int, most: int
) -> NoReturn:
    """Run until the program at the other end of `channel` is ready, or has ended; then exit.

    seconds: how long a new connection may wait. most: how many are accepted.
    """
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # it exits when the channel closes
        _Holder(listener, channel, seconds, most).run(connections)
    finally:
        os._exit(0)


def take_over(channel: socket.socket) -> Iterator[HeldConnection]:
    """Yield the connections held by the process at the other end of `channel`, which then exits."""
    channel.settimeout(_TAKE_OVER_SECONDS)
    with suppress(OSError), channel:
        channel.send(READY)
        while True:
            data, files, _, _ = socket.recv_fds(channel, LARGEST + 200, 1, socket.MSG_CMSG_CLOEXEC)
            if not files:
                return
            head, _, packet = data.partition(b"\n")
            until, answered = json.loads(head)
            yield HeldConnection(socket.socket(fileno=files[0]), packet, until, answered)


class _Holder:
    def __init__(self, listener: socket.socket, channel: socket.socket, seconds: int, most: int) -> None:
        self._listener = listener
        self._channel = channel
        self._seconds = seconds
        self._most = most
        self._held: dict[socket.socket, HeldConnection] = {}
        self._selector = selectors.DefaultSelector()  # a new one: the fork shares the old one with its parent
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(channel, selectors.EVENT_READ)

    def run(self, connections: Iterable[HeldConnection]) -> None:
        for held in connections:
            self._add(held)
        while True:
            first = min((held.until for held in self._held.values()), default=None)
            timeout = None if first is None else max(0.0, first - time.monotonic())
            for key, _ in self._selector.select(timeout):
                if key.fileobj is self._channel:
                    self._pass_on() if self._channel.recv(100) == READY else self._send_back(self._held)
                    return
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj in self._held:
                    self._receive(self._held[key.fileobj])
            now = time.monotonic()
            self._send_back([connection for connection, held in self._held.items() if held.until <= now])

    def _add(self, held: HeldConnection) -> None:
        self._held[held.socket] = held
        self._selector.register(held.socket, selectors.EVENT_READ)
        if held.packet:
            self._answer_wait(held)

    def _accept(self) -> None:
        with suppress(OSError):
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            if len(self._held) >= self._most:
                connection.close()
            else:
                self._add(HeldConnection(connection, b"", time.monotonic() + self._seconds, False))

    def _receive(self, held: HeldConnection) -> None:
        packet = b""
        with suppress(OSError):
            packet = held.socket.recv(LARGEST + 1)
        if held.packet or not packet or len(packet) > LARGEST:  # it has closed, or is not an entrypoint
            self._forget(held.socket)
            return
        self._held[held.socket] = held = held._replace(packet=packet)
        self._answer_wait(held)

    def _answer_wait(self, held: HeldConnection) -> None:
        """Answer `wait`, only once, to a connection that may be an entrypoint's."""
        if not held.answered and held.packet.startswith((b"deliver\0", b"lmtp\0")):
            with suppress(OSError):
                held.socket.send(b"wait %d" % self._seconds)
            self._held[held.socket] = held._replace(answered=True)

    def _pass_on(self) -> None:
        self._channel.setblocking(True)
        for held in self._held.values():
            head = json.dumps([held.until, held.answered]).encode("ascii")
            socket.send_fds(self._channel, [head + b"\n" + held.packet], [held.socket.fileno()])

    def _send_back(self, connections: Iterable[socket.socket]) -> None:
        for connection in list(connections):
            with suppress(OSError):
                connection.send(b"cold")
            self._forget(connection)

    def _forget(self, connection: socket.socket) -> None:
        del self._held[connection]
        self._selector.unregister(connection)
        connection.close()
