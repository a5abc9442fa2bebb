"""The process that keeps accepting entrypoints while the service replaces itself."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NoReturn

import pytest

from pipehandler.handover import LARGEST
from pipehandler.workers.connection_holder import HeldConnection, _Holder, hold_connections, take_over

SECONDS = 30
MOST = 3


class Holder:
    """A holder in a child process. `held`: the connections that it starts with, each as the entrypoint's end, the packet,
    the time until which it waits, and whether it was answered."""

    def __init__(self, listener: socket.socket, ours: socket.socket, pid: int) -> None:
        self.listener = listener
        self.channel = ours
        self.pid = pid

    def connect(self) -> socket.socket:
        """A new entrypoint."""
        entrypoint = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        entrypoint.settimeout(10)
        entrypoint.connect(self.listener.getsockname())
        return entrypoint

    def ended(self) -> int:
        """Wait for its end; returns the status."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@contextmanager
def holder(*held: tuple[bytes, float, bool], seconds: int = SECONDS) -> Iterator[tuple[Holder, list[socket.socket]]]:
    """A holder that starts with connections (packet, until, answered), and the entrypoints' ends of these."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in held]
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(f"\0pipehandler-holder-{os.getpid()}")
    listener.listen()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if (pid := os.fork()) == 0:
        ours.close()
        for _, entrypoint in pairs:
            entrypoint.close()
        listener.setblocking(False)
        connections = [HeldConnection(pair[0], *values) for pair, values in zip(pairs, held, strict=True)]
        hold_connections(listener, theirs, connections, seconds, MOST)
    theirs.close()
    for served, entrypoint in pairs:
        served.close()
        entrypoint.settimeout(10)
    try:
        with listener, ours:
            yield Holder(listener, ours, pid), [entrypoint for _, entrypoint in pairs]
    finally:
        for _, entrypoint in pairs:
            entrypoint.close()
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass


def packets(connection: socket.socket) -> list[bytes]:
    """All packets until the end of the connection."""
    return list(iter(lambda: connection.recv(100), b""))


@pytest.mark.parametrize("first", [b"deliver\0x", b"lmtp\0x"])
def test_passed_on(first: bytes) -> None:
    """Connections from before and new ones reach the new program, with their packets and times, each answered once."""
    later = time.monotonic() + 60
    with holder((first, later, False), (first, later + 1, True), (b"", later + 2, False)) as (holding, before):
        assert before[0].recv(100) == b"wait %d" % SECONDS
        before[2].send(first + b"2")
        assert before[2].recv(100) == b"wait %d" % SECONDS
        found = list(take_over(holding.channel))
        assert holding.ended() == 0
        assert [(each.packet, each.until, each.answered) for each in found] == [
            (first, later, True),
            (first, later + 1, True),
            (first + b"2", later + 2, True),
        ]
        for each, entrypoint in zip(found, before, strict=True):
            each.socket.send(b"cold")
            each.socket.close()
            assert packets(entrypoint) == [b"cold"]


def test_new_ones() -> None:
    """A new connection has as long as the others; of more than there is room for, the last are closed at once."""
    with holder() as (holding, _):
        began = time.monotonic()
        entrypoints = [holding.connect() for _ in range(MOST + 1)]
        assert packets(entrypoints[MOST]) == []
        entrypoints[0].send(b"deliver\0x")
        assert entrypoints[0].recv(100) == b"wait %d" % SECONDS
        entrypoints[1].send(b"status")
        entrypoints[2].send(b"x" * (LARGEST + 1))
        assert packets(entrypoints[2]) == []
        found = {each.packet: each for each in take_over(holding.channel)}
        assert set(found) == {b"deliver\0x", b"status"}
        assert [found[packet].answered for packet in (b"deliver\0x", b"status")] == [True, False]
        for each in found.values():
            assert began + SECONDS <= each.until <= time.monotonic() + SECONDS
            each.socket.close()
        for entrypoint in entrypoints:
            entrypoint.close()


def test_largest_packet() -> None:
    """A packet of the largest size is passed on whole."""
    packet = b"deliver\0".ljust(LARGEST, b"x")
    with holder() as (holding, _), holding.connect() as entrypoint:
        entrypoint.send(packet)
        assert entrypoint.recv(100) == b"wait %d" % SECONDS
        (found,) = take_over(holding.channel)
        assert found.packet == packet
        found.socket.close()


def test_sent_back_where_no_program_comes() -> None:
    """The end of the channel sends all back, to be delivered cold."""
    with holder((b"deliver\0x", time.monotonic() + 60, True), (b"", time.monotonic() + 60, False)) as (holding, before):
        holding.channel.close()
        assert [packets(entrypoint) for entrypoint in before] == [[b"cold"], [b"cold"]]
        assert holding.ended() == 0


def test_sent_back_in_time() -> None:
    """One that has waited long enough is sent back; the others stay."""
    with holder((b"deliver\0x", time.monotonic(), True), (b"deliver\0y", time.monotonic() + 60, True)) as (
        holding,
        before,
    ):
        assert packets(before[0]) == [b"cold"]
        (found,) = take_over(holding.channel)
        assert found.packet == b"deliver\0y"
        found.socket.close()


@pytest.mark.parametrize(("left", "least", "most"), [([0.5, 60], 0.0, 0.5), ([-1, 60], 0.0, 0.0), ([60.5], 59.5, 60.5)])
def test_sleeps_until_the_first_is_due(left: list[float], least: float, most: float) -> None:
    """And not longer: an entrypoint has half of its time left for a cold delivery."""
    timeouts: list[float] = []

    def select(timeout: float) -> NoReturn:
        timeouts.append(timeout)
        raise InterruptedError

    with socket.socket() as listener, socket.socket() as channel, ExitStack() as stack:
        made = _Holder(listener, channel, SECONDS, MOST)
        stack.callback(made._selector.close)
        made._selector.select = select  # type: ignore[assignment,method-assign]
        now = time.monotonic()
        ends = [stack.enter_context(socket.socket()) for _ in left]
        with pytest.raises(InterruptedError):
            made.run(HeldConnection(end, b"", now + each, True) for end, each in zip(ends, left, strict=True))
    assert least <= timeouts[0] <= most


def test_gone_meanwhile() -> None:
    """An entrypoint that leaves, or sends again, is forgotten."""
    with holder((b"deliver\0x", time.monotonic() + 60, True), (b"deliver\0y", time.monotonic() + 60, True)) as (
        holding,
        before,
    ):
        before[0].close()
        before[1].send(b"more")
        assert packets(before[1]) == []
        assert list(take_over(holding.channel)) == []
        assert holding.ended() == 0


def test_signals_do_not_end_it() -> None:
    """It ends with its channel, whatever the service manager sends to all processes of the service."""
    with holder() as (holding, _), holding.connect() as entrypoint:
        entrypoint.send(b"deliver\0x")
        assert entrypoint.recv(100) == b"wait %d" % SECONDS
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(holding.pid, number)
        (found,) = take_over(holding.channel)
        found.socket.close()
        assert holding.ended() == 0
