"""Which entrypoint gets a worker, which waits, and which is sent back."""

import os
import resource
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from selectors import DefaultSelector
from typing import Any

import pytest

from pipehandler.delivery.turn import LARGE
from pipehandler.handover import INSTALLATION, LARGEST, deliver_packet
from pipehandler.settings.config import Config, Limits, Log, Serve, State
from pipehandler.settings.config_file import DEFAULT_PATH
from pipehandler.workers import dispatcher as module
from pipehandler.workers.connection_holder import HeldConnection
from pipehandler.workers.dispatcher import Dispatcher
from pipehandler.workers.worker import Task

OWN = ["--config=/config", "--queue-id=q"]


class Pool:
    """A pool with so many free workers, and room for large messages or not."""

    def __init__(self) -> None:
        self.free = 0
        self.has_room_for_large = True
        self.assigned: list[tuple[bytes, Task]] = []

    def assign(self, packet: bytes, task: Task, connection: socket.socket) -> bool:
        """Note it."""
        assert connection.fileno() > 2
        if not self.free:
            return False
        self.free -= 1
        self.assigned.append((packet, task))
        return True


class Renewal:
    """Whether another program is expected, and how often the files were looked at."""

    expected = False
    looks = 0

    def look(self) -> None:
        """Count."""
        self.looks += 1


class Desk:
    """A dispatcher on a socket, without workers."""

    def __init__(self, folder: Path) -> None:
        (folder / "state").mkdir()
        self.config = Config(
            log=Log(syslog=False, file=f"{folder}/log"),
            state=State(f"{folder}/state"),
            serve=Serve(queue_timeout=20),
            limits=Limits(deadline=60),
        )
        self.log = folder / "log"
        self.pool, self.renewal = Pool(), Renewal()
        self.selector = DefaultSelector()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(f"{folder}/socket")
        listener.listen()
        self.name = listener.getsockname()
        self.dispatcher = Dispatcher(
            listener,
            "/config",
            self.config,
            self.selector,
            self.pool,  # type: ignore[arg-type]
            self.renewal,  # type: ignore[arg-type]
            lambda: {"workers": 4},
        )
        self.dispatcher.start()
        self.entrypoints: list[socket.socket] = []

    def visit(self, *packets: bytes) -> socket.socket:
        """An entrypoint that sends these."""
        entrypoint = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        entrypoint.settimeout(10)
        self.entrypoints.append(entrypoint)
        entrypoint.connect(self.name)
        for packet in packets:
            entrypoint.send(packet)
        self.act()
        return entrypoint

    def act(self) -> None:
        """Handle all that has happened."""
        while ready := self.selector.select(0):
            for key, _ in ready:
                key.data()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """A dispatcher."""
    made = Desk(tmp_path)
    yield made
    made.dispatcher.abandon()
    made.dispatcher._listener.close()
    made.selector.close()
    for entrypoint in made.entrypoints:
        entrypoint.close()


def packet(*argv: str, installation: bytes = INSTALLATION) -> bytes:
    """A first packet."""
    return deliver_packet([*OWN, *argv], 1, 2.5).replace(INSTALLATION, installation)


def received(entrypoint: socket.socket) -> list[bytes]:
    """All answers until the end of the connection."""
    return list(iter(lambda: entrypoint.recv(100), b""))


def is_open(entrypoint: socket.socket) -> bool:
    """Whether it may still be answered."""
    return not select.select([entrypoint], [], [], 0)[0]


def test_a_worker_is_free(desk: Desk) -> None:
    """It gets the packet as it is; the dispatcher closes its own end."""
    desk.pool.free = 1
    entrypoint = desk.visit(packet())
    assert desk.pool.assigned == [(packet(), Task(INSTALLATION.decode(), 1, 2.5, OWN))]
    assert received(entrypoint) == []
    assert (desk.dispatcher.waiting, desk.renewal.looks) == (0, 1)


def test_no_worker_is_free(desk: Desk) -> None:
    """It waits for so long, and is assigned in order of arrival."""
    before = time.monotonic()
    first, second = desk.visit(packet("1")), desk.visit(packet("2"))
    assert [first.recv(100), second.recv(100)] == [b"wait 20", b"wait 20"]
    assert desk.dispatcher.waiting == 2
    assert before + 20 <= desk.dispatcher.expires_at <= time.monotonic() + 20
    desk.pool.free = 1
    desk.dispatcher.assign()
    assert [task.argv[-1] for _, task in desk.pool.assigned] == ["1"]
    desk.pool.free = 2
    desk.dispatcher.assign()
    assert [task.argv[-1] for _, task in desk.pool.assigned] == ["1", "2"]
    assert desk.dispatcher.waiting == 0


def test_a_large_one_does_not_hold_up_small_ones(desk: Desk) -> None:
    """It waits until there is room for it."""
    desk.visit(packet(f"--size={LARGE}"))
    desk.visit(packet("--size=1"))
    desk.pool.free, desk.pool.has_room_for_large = 2, False
    desk.dispatcher.assign()
    assert [task.argv[-1] for _, task in desk.pool.assigned] == ["--size=1"]
    desk.pool.has_room_for_large = True
    desk.dispatcher.assign()
    assert len(desk.pool.assigned) == 2


@pytest.mark.parametrize(
    ("first", "answers", "sent_back"),
    [
        (b"status", [b'{"workers": 4}'], 0),
        (b"rubbish", [], 0),
        (packet().ljust(LARGEST + 1, b"x"), [b"cold"], 1),
        (deliver_packet(["--config=/other"], 1, 2.5), [b"cold"], 1),
        (deliver_packet([], 1, 2.5), [b"cold"], 1),
        (packet(installation=b"other"), [b"cold"], 1),
    ],
    ids=["status", "rubbish", "large", "configuration", "default configuration", "installation"],
)
def test_answered_at_once(desk: Desk, first: bytes, answers: list[bytes], sent_back: int) -> None:
    """What is not for a worker of this service."""
    desk.pool.free = 1
    assert received(desk.visit(first)) == answers
    assert desk.dispatcher.counts == {"congested": 0, "sent_back": sent_back, "other_namespace": 0}
    assert desk.pool.assigned == []


def test_largest_packet(desk: Desk) -> None:
    """A packet of the largest size is taken."""
    desk.pool.free = 1
    desk.visit(packet().ljust(LARGEST, b"x"))
    assert len(desk.pool.assigned[0][0]) == LARGEST


def test_default_configuration(desk: Desk) -> None:
    """An entrypoint without --config uses the default one."""
    desk.pool.free = 1
    desk.dispatcher._path = DEFAULT_PATH
    desk.visit(deliver_packet([], 1, 2.5))
    assert len(desk.pool.assigned) == 1


def test_held_for_another_program(desk: Desk) -> None:
    """From a program that may soon replace this one: it is held, and sent back where that does not come."""
    desk.renewal.expected = True
    entrypoints = [desk.visit(packet(installation=b"other")) for _ in range(2)]
    assert [entrypoint.recv(100) for entrypoint in entrypoints] == [b"wait 20"] * 2
    assert desk.dispatcher.waiting == 0
    held = desk.dispatcher.handed_on()
    assert [(each.packet, each.answered) for each in held] == [(packet(installation=b"other"), True)] * 2
    desk.dispatcher.send_held_back()
    assert [received(entrypoint) for entrypoint in entrypoints] == [[b"cold"]] * 2
    assert desk.dispatcher.counts["sent_back"] == 2


def test_held_for_too_long(desk: Desk) -> None:
    """It is sent back, to be delivered cold, not deferred."""
    desk.renewal.expected = True
    entrypoint = desk.visit(packet(installation=b"other"))
    desk.dispatcher.expire(desk.dispatcher.expires_at)
    assert received(entrypoint) == [b"wait 20", b"cold"]
    assert desk.dispatcher.counts == {"congested": 0, "sent_back": 1, "other_namespace": 0}


@pytest.mark.parametrize(("size", "words"), [(1, "no worker was free within 20 s"), (LARGE, "no worker was free for a large message within 20 s")])  # fmt: skip
def test_waited_for_too_long(desk: Desk, size: int, words: str) -> None:
    """It is deferred, counted and recorded; not a moment before its time."""
    desk.pool.has_room_for_large = False
    entrypoint = desk.visit(packet(f"--size={size}"))
    desk.dispatcher.expire(desk.dispatcher.expires_at - 0.01)
    assert desk.dispatcher.waiting == 1
    desk.dispatcher.expire(desk.dispatcher.expires_at)
    assert received(entrypoint) == [b"wait 20", b"end 75 4.4.5 mail system congested"]
    assert desk.dispatcher.counts == {"congested": 1, "sent_back": 0, "other_namespace": 0}
    assert desk.dispatcher.expires_at == float("inf")
    (line,) = desk.log.read_text().splitlines()
    assert "outcome=congested status=75 code=4.4.5 queue_id=q mode=resident " in line
    assert f'reason="{words}"' in line


def test_silent_one(desk: Desk) -> None:
    """It has two seconds for its first packet, and is closed without an answer."""
    before = time.monotonic()
    entrypoint = desk.visit()
    assert before + 2 <= desk.dispatcher.expires_at <= time.monotonic() + 2
    desk.dispatcher.expire(desk.dispatcher.expires_at)
    assert received(entrypoint) == []
    assert not any(desk.dispatcher.counts.values())


def test_one_that_leaves_or_speaks_again(desk: Desk) -> None:
    """It is forgotten."""
    leaving, speaking = desk.visit(packet()), desk.visit(packet())
    leaving.close()
    speaking.send(b"more")
    desk.act()
    assert desk.dispatcher.waiting == 0
    assert received(speaking) == [b"wait 20"]


def test_room(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Further ones than there is room for are closed at once, and those before go on."""
    monkeypatch.setattr(module, "MOST", 2)
    first, second, third = desk.visit(), desk.visit(), desk.visit()
    assert received(third) == []
    assert is_open(first)
    assert is_open(second)
    assert len(desk.dispatcher.sockets) == 3


def test_stranger(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another account is closed at once."""
    monkeypatch.setattr(module, "is_authorised", lambda _: False)
    assert received(desk.visit()) == []


def test_pause_without_descriptors(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is accepted later, after a pause; there is no other pause."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    entrypoint = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    desk.entrypoints.append(entrypoint)
    entrypoint.connect(desk.name)
    unlimited = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, unlimited[1]))  # what is open stays open
    try:
        desk.dispatcher._accept()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, unlimited)
    assert pauses == [0.01]
    assert len(desk.dispatcher.sockets) == 1
    desk.act()
    assert pauses == [0.01]
    assert len(desk.dispatcher.sockets) == 2


@pytest.mark.parametrize(("ended", "counted"), [(False, 1), (True, 0)])
def test_another_namespace(desk: Desk, monkeypatch: pytest.MonkeyPatch, ended: bool, counted: int) -> None:
    """It is sent back and counted, unless it has ended, which looks the same."""
    monkeypatch.setattr(module, "is_visible", lambda _: False)
    monkeypatch.setattr(module, "has_ended", lambda _: ended)
    assert received(desk.visit(packet())) == ([] if ended else [b"cold"])
    assert desk.dispatcher.counts == {"congested": 0, "sent_back": 0, "other_namespace": counted}


def test_stopped(desk: Desk) -> None:
    """All that wait are sent back, and nobody else is accepted."""
    waiting, silent = desk.visit(packet()), desk.visit()
    desk.dispatcher.stop()
    assert received(waiting) == [b"wait 20", b"cold"]
    assert received(silent) == [b"cold"]
    with pytest.raises(ConnectionRefusedError):
        desk.visit()
    assert not desk.selector.get_map()


@pytest.mark.parametrize(
    ("queue_timeout", "deadline", "longest"), [(20, 60, 20), (20, 30, 15), (20, 41, 20), (20, 39, 19)]
)
def test_longest_wait(desk: Desk, queue_timeout: int, deadline: int, longest: int) -> None:
    """At most half of the deadline."""
    desk.dispatcher.config = Config(serve=Serve(queue_timeout=queue_timeout), limits=Limits(deadline=deadline))
    assert desk.dispatcher.longest_wait == longest


def test_taken_over(desk: Desk) -> None:
    """The connections and counts of the previous program, whose entrypoints are served; one that was answered is not again."""
    desk.pool.free = 0
    held: list[HeldConnection] = []
    others: list[socket.socket] = []
    for first, answered in ((packet(installation=b"before"), False), (packet(), True), (b"", False)):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        held.append(HeldConnection(ours, first, 5.0, answered))
        others.append(theirs)
    desk.entrypoints += others
    desk.dispatcher.take_over("before", {"congested": 1, "sent_back": 2, "unknown": 3}, held)
    assert desk.dispatcher.counts == {"congested": 1, "sent_back": 2, "other_namespace": 0}
    assert desk.dispatcher.waiting == 2
    assert others[0].recv(100) == b"wait 20"
    assert desk.dispatcher.expires_at == 5.0
    assert is_open(others[1])
    assert [(each.packet[:7], each.until, each.answered) for each in desk.dispatcher.handed_on()[1:]] == [
        (b"deliver", 5.0, True),
        (b"", 5.0, False),
    ]
    others[2].send(packet())
    desk.act()
    assert desk.dispatcher.waiting == 3


def test_stranger_is_not_taken_over(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that held the connections has not asked who they are."""
    monkeypatch.setattr(module, "is_authorised", lambda _: False)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        desk.dispatcher.take_over("before", {}, [HeldConnection(ours, b"", 5.0, False)])
        assert theirs.recv(100) == b""
        assert ours.fileno() == -1


def test_abandoned(desk: Desk) -> None:
    """Another process has them: nothing is sent."""
    entrypoint: Any = desk.visit(packet())
    desk.dispatcher.abandon()
    assert received(entrypoint) == [b"wait 20"]
    assert os.path.exists(desk.name)
