"""The connections of entrypoints that no worker has yet."""

import os
import socket
import time
from collections.abc import Iterator
from selectors import DefaultSelector

import pytest

from pipehandler.workers.connection_holder import HeldConnection
from pipehandler.workers.connections import MOST, Connection, Connections, has_ended, is_authorised, is_visible
from pipehandler.workers.worker import Task

TASK = Task("i", 1, 0.0, [])
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """The service's end of a connection, and the entrypoint's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.settimeout(10)
        yield ours, theirs


def received(connection: socket.socket) -> list[bytes]:
    """All packets until the end of a connection."""
    return list(iter(lambda: connection.recv(100), b""))


def test_from_its_beginning_to_its_end(pair: Pair) -> None:
    """It is watched, counted, and known as waiting and as held until it is closed with a last packet."""
    ours, theirs = pair
    called: list[Connection] = []
    with DefaultSelector() as selector:
        connections = Connections(selector, called.append)
        connection = connections.add(ours, 5.0)
        assert (connection.socket, connection.until, connection.packet, connection.answered) == (ours, 5.0, b"", False)
        assert not ours.getblocking()
        theirs.send(b"x")
        for key, _ in selector.select(10):
            key.data()
        assert called == [connection]
        assert ours.recv(10) == b"x"
        connections.waiting[connection], connections.held[connection] = TASK, None
        assert (len(connections), list(connections), connection in connections) == (1, [connection], True)
        assert connections.handed_on() == [HeldConnection(ours, b"", 5.0, False)]
        connections.close(connection, b"cold")
        assert (len(connections), list(connections), connection in connections) == (0, [], False)
        assert not connections.waiting
        assert not connections.held
        assert not selector.get_map()
    assert received(theirs) == [b"cold"]
    assert ours.fileno() == -1


def test_closed_without_a_packet(pair: Pair) -> None:
    """Nothing is sent, and an entrypoint that has gone is none of our faults."""
    with DefaultSelector() as selector:
        connections = Connections(selector, lambda _: None)
        connections.close(connections.add(pair[0], 5.0))
        assert received(pair[1]) == []
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.close()
        connections.close(connections.add(ours, 5.0), b"cold")
        assert ours.fileno() == -1


def test_in_order_of_arrival() -> None:
    """All of them, and one may be closed meanwhile."""
    with DefaultSelector() as selector:
        connections = Connections(selector, lambda _: None)
        pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(3)]
        added = [connections.add(ours, 0.0) for ours, _ in pairs]
        assert list(connections) == added
        for connection in connections:
            connections.close(connection)
        assert [received(theirs) for _, theirs in pairs] == [[], [], []]
        for _, theirs in pairs:
            theirs.close()


def test_wait_is_answered_once(pair: Pair) -> None:
    """The seconds count from the answer; a second one would not be understood."""
    with DefaultSelector() as selector:
        connections = Connections(selector, lambda _: None)
        connection = connections.add(pair[0], 1.0)
        before = time.monotonic()
        connections.answer_wait(connection, 30)
        until = connection.until
        assert before + 30 <= until <= time.monotonic() + 30
        assert connection.answered
        connections.answer_wait(connection, 60)
        assert connection.until == until
        connections.close(connection)
    assert received(pair[1]) == [b"wait 30"]


def test_end_of_an_entrypoint(pair: Pair) -> None:
    """It has ended when its end is closed; what it sent before stays unread."""
    ours, theirs = pair
    ours.setblocking(False)
    assert not has_ended(ours)
    theirs.send(b"x")
    assert not has_ended(ours)
    assert ours.recv(10) == b"x"
    theirs.close()
    assert has_ended(ours)
    ours.close()
    assert has_ended(ours)


def test_visible(pair: Pair) -> None:
    """A process of this PID namespace is, one that has ended is not."""
    assert is_visible(pair[0])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, listener:
        listener.bind(f"\0pipehandler-test-{os.getpid()}")
        listener.listen()
        if (child := os.fork()) == 0:
            socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(listener.getsockname())
            os._exit(0)
        os.waitpid(child, 0)
        accepted, _ = listener.accept()
        with accepted:
            assert not is_visible(accepted)
            assert is_authorised(accepted)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another account")
def test_authorised() -> None:
    """Root and the account of the service are, no other account."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with listener:
        listener.bind(f"\0pipehandler-test-{os.getpid()}")
        listener.listen()
        for account, allowed in ((0, True), (65_534, False)):
            if (child := os.fork()) == 0:
                os.seteuid(account)
                socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect(listener.getsockname())
                os._exit(0)
            os.waitpid(child, 0)
            accepted, _ = listener.accept()
            with accepted:
                assert is_authorised(accepted) is allowed


def test_most() -> None:
    """As many as docs/shares.md says."""
    assert MOST == 512
