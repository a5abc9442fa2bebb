"""The supervisor's view of its workers: who is free, who retires, who died. The workers here are children that only end."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from selectors import DefaultSelector
from typing import Any

import pytest

from pipehandler.delivery.turn import LARGE
from pipehandler.mail.outcome import FAULT
from pipehandler.settings.config import Config, Log, Serve, State
from pipehandler.workers import pool as module
from pipehandler.workers.pool import WorkerPool
from pipehandler.workers.worker import FREE, LAST, READY, Task

SMALL = Task("i", 7, 1.5, ["--queue-id=q", "--size=10", "--sender=a@x", "--", "b@x"])
BIG = SMALL._replace(argv=[f"--size={LARGE}"])


class Pool:
    """A pool without workers; `events`: its log, as the words, whether it is an error, and the values."""

    def __init__(self, folder: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
        config = Config(
            log=Log(syslog=False, file=f"{folder}/log"), state=State(f"{folder}/state"), serve=Serve(workers=workers)
        )
        (folder / "state").mkdir()
        self.selector = DefaultSelector()
        self.freed = 0
        self.events: list[tuple[str, bool, dict[str, object]]] = []
        self.log = folder / "log"
        self.others: dict[int, socket.socket] = {}
        self.pool = WorkerPool(config, self.selector, lambda: (), self._on_free)

        def write_log(_: Config, kind: str, failed: bool = False, **values: object) -> None:
            assert kind == "serve"
            self.events.append((str(values.pop("event")), failed, values))

        monkeypatch.setattr(module, "write_log", write_log)

    def _on_free(self) -> None:
        self.freed += 1

    def adopt(self, task: Task | None = None, status: int = 0) -> int:
        """A worker that ends with this status when its channel is closed; returns its pid."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if (pid := os.fork()) == 0:
            ours.close()
            for other in self.others.values():
                other.close()
            with suppress(OSError):
                while theirs.recv(100):
                    pass
            if status < 0:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
                os.kill(os.getpid(), -status)
                time.sleep(60)
            os._exit(status)
        self.others[pid] = theirs
        self.pool.adopt(pid, ours, task)
        return pid

    def worker(self, task: Task | None = None, status: int = 0) -> int:
        """The same, as a worker that stays and is free, or has a task."""
        pid = self.adopt(None, status)
        (worker,) = [each for each in self.pool._workers if each.pid == pid]
        worker.retiring = False
        self.report(pid, READY)
        if task:
            connection, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with connection, other:
                assert self.pool.assign(b"packet", task, connection)
        return pid

    def report(self, pid: int, what: bytes) -> None:
        """A report of a worker, and what the pool makes of it."""
        self.others[pid].send(what)
        self.act()

    def act(self) -> None:
        """Handle what the workers have reported."""
        for key, _ in self.selector.select(10):
            key.data()

    def end(self, pid: int) -> None:
        """Let a worker end, and the pool notice it."""
        (worker,) = [each for each in self.pool._workers if each.pid == pid]
        worker.channel.shutdown(socket.SHUT_WR)
        self.others.pop(pid).close()
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        self.act()


@pytest.fixture
def pools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Make a pool that should have so many workers."""
    made: list[Pool] = []

    def make(workers: int) -> Pool:
        made.append(Pool(tmp_path, workers, monkeypatch))
        return made[-1]

    yield make
    for each in made:
        for pid in list(each.others):
            os.kill(pid, signal.SIGKILL)
            each.end(pid)
        each.selector.close()


def test_reports(pools: Any) -> None:
    """A worker is free when it says so, delivers what it is given, and retires when it says that it was the last one."""
    made = pools(2)
    pool = made.pool
    pid = made.worker()
    assert (len(pool), pool.staying, pool.free, pool.busy, made.freed) == (1, 1, 1, 0, 1)
    assert pool.counts == {"delivered": 0, "replaced": 0, "died": 0}
    connection, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with connection, other:
        assert pool.assign(b"packet", SMALL, connection)
        assert not pool.assign(b"packet", SMALL, connection)
    packet, files, _, _ = socket.recv_fds(made.others[pid], 100, 2)
    assert (packet, len(files)) == (b"packet", 1)
    os.close(files[0])
    assert (pool.free, pool.busy) == (0, 1)
    made.report(pid, FREE)
    assert (pool.free, pool.busy, made.freed, pool.counts["delivered"]) == (1, 0, 2, 1)
    made.report(pid, LAST)
    assert (pool.busy, pool.staying, len(pool), made.freed) == (0, 0, 1, 2)
    assert pool.counts == {"delivered": 2, "replaced": 1, "died": 0}


def test_the_last_one_is_used_first(pools: Any) -> None:
    """Its memory is still in the caches."""
    made = pools(2)
    first, last = made.worker(), made.worker()
    connection, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with connection, other:
        made.pool.assign(b"x", SMALL, connection)
    assert {pid: bool(task) for pid, _, task in made.pool.heirs()} == {first: False, last: True}


@pytest.mark.parametrize(("workers", "room"), [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2)])
def test_room_for_large(pools: Any, workers: int, room: int) -> None:
    """Half of the workers, and at least one, deliver large messages; small ones do not count."""
    made = pools(workers)
    made.worker(SMALL)
    for _ in range(room):
        assert made.pool.has_room_for_large
        made.worker(BIG)
    assert not made.pool.has_room_for_large


def test_heirs(pools: Any) -> None:
    """What a new program needs of each worker: its pid, its channel, and the shortened task."""
    made = pools(3)
    free, busy, lmtp = made.worker(), made.worker(SMALL), made.worker(SMALL._replace(ingress="lmtp"))
    found = {pid: (descriptor, task) for pid, descriptor, task in made.pool.heirs()}
    brief = ["i", 7, 1.5, ["--queue-id=q", "--size=10"]]
    assert {pid: task for pid, (_, task) in found.items()} == {free: None, busy: brief, lmtp: [*brief, "lmtp"]}
    assert {descriptor for descriptor, _ in found.values()} == {each.fileno() for each in made.pool.channels}


def test_retired(pools: Any) -> None:
    """All exit after their message: their channels are closed for writing, and none is given another one."""
    made = pools(2)
    idle, busy = made.worker(), made.worker(SMALL)
    made.pool.retire_all()
    assert (made.pool.staying, made.pool.free, made.pool.busy, len(made.pool)) == (0, 0, 1, 2)
    assert made.others[idle].recv(100) == b""
    made.report(busy, FREE)
    assert (made.pool.free, made.freed) == (0, 2)


@pytest.mark.parametrize(
    ("status", "task", "cause"),
    [(3, None, "left with status 3"), (-9, None, "killed by signal 9"), (0, SMALL, None), (3, SMALL, None)],
)
def test_died(pools: Any, status: int, task: Task | None, cause: str | None) -> None:
    """A worker that dies is counted and logged as an error, or is the end of its message; and it is not replaced at once."""
    made = pools(1)
    pid = made.worker(task, status)
    before = time.monotonic()
    made.end(pid)
    assert (len(made.pool), made.pool.free, made.pool.counts["died"]) == (0, 0, 1)
    assert before + 1 <= made.pool.spawns_at <= time.monotonic() + 1
    assert made.events == ([] if task else [("worker lost", True, {"reason": cause})])
    if task:
        (line,) = made.log.read_text().splitlines()
        assert f"outcome={FAULT.name} status=75 code=4.3.0 queue_id=q mode=resident " in line
        assert f'reason="the worker left with status {status}"' in line


def test_ended(pools: Any) -> None:
    """A worker that ends as it should is neither counted nor logged, and replaced at once."""
    made = pools(1)
    made.end(made.worker())
    assert (len(made.pool), made.pool.counts["died"], made.events) == (0, 0, [])
    assert made.pool.spawns_at == 0.0


def test_no_process(pools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no process can be forked, it is logged as an error, and tried again a second later."""
    made = pools(1)

    def fail() -> None:
        raise OSError(11, "no process")

    monkeypatch.setattr(module, "fork_with_channel", fail)
    before = time.monotonic()
    made.pool.spawn()
    assert made.events == [("no worker", True, {"reason": "[Errno 11] no process"})]
    assert before + 1 <= made.pool.spawns_at <= time.monotonic() + 1
    made.pool.spawn()
    assert len(made.events) == 1


def test_none_is_missing(pools: Any) -> None:
    """Only missing workers are forked."""
    made = pools(1)
    assert made.pool.spawns_at == 0.0
    made.worker()
    assert made.pool.spawns_at == float("inf")


def test_dying_worker_is_passed_over(pools: Any) -> None:
    """A worker that takes nothing is retired, and the next one gets the message."""
    made = pools(2)
    good, dead = made.worker(), made.worker()
    (worker,) = [each for each in made.pool._workers if each.pid == dead]
    worker.channel.shutdown(socket.SHUT_WR)
    connection, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = time.monotonic()
    with connection, other:
        assert made.pool.assign(b"x", SMALL, connection)
    assert {pid for pid, _, task in made.pool.heirs() if task} == {good}
    assert made.pool.staying == 1
    assert before + 1 <= made.pool.spawns_at <= time.monotonic() + 1


def test_adopted(pools: Any) -> None:
    """A worker of the previous program finishes its message, and is given no other."""
    made = pools(1)
    pid = made.adopt(SMALL)
    assert (len(made.pool), made.pool.staying, made.pool.busy) == (1, 0, 1)
    assert not made.pool.channels[0].getblocking()
    made.report(pid, FREE)
    assert (made.pool.busy, made.pool.free, made.freed, made.pool.counts["delivered"]) == (0, 0, 0, 1)


def test_killed(pools: Any) -> None:
    """All of them."""
    made = pools(2)
    pids = [made.worker(), made.worker()]
    made.pool.kill()
    for pid in pids:
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert ended
        assert ended.si_status == signal.SIGKILL


def test_a_log_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service goes on."""

    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(module, "write_log", fail)
    module.log_event(Config(), "started")
