"""The worker pool: the supervisor's view of the resident workers, from fork to exit."""

import encodings.unicode_escape  # noqa: F401 # for the log, while there are descriptors to load it
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from selectors import EVENT_READ, BaseSelector

from ..handover import option
from ..ingress.pipe import INGRESS
from ..mail import outcome
from ..mail.outcome import Outcome, Result
from ..record.attempt import Attempt, write_log
from ..record.journal import Journal
from ..settings.config import Config
from . import worker as process
from .forking import fork_with_channel
from .worker import Task

_RESTART_SECONDS = 1.0
"""The delay before a dead worker is replaced, so that workers that die at once do not keep the host busy."""


class _Worker:
    """A forked worker. `task`: the message it is delivering. `retiring`: it is assigned no further one."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self.channel = channel
        self.task: Task | None = None
        self.retiring = False


class WorkerPool:
    """A pool of `serve.workers` workers, forked from this process.

    `selector` watches their channels; its data are the functions to call. `close_in_child` returns the sockets that a
    new worker must close. `on_free` is called when a worker can be assigned a message. `counts`: delivered messages,
    replaced workers, and workers that died, since the start.
    """

    def __init__(
        self,
        config: Config,
        selector: BaseSelector,
        close_in_child: Callable[[], Iterable[socket.socket]],
        on_free: Callable[[], None],
    ) -> None:
        self.config = config
        self.counts = dict.fromkeys(("delivered", "replaced", "died"), 0)
        self._selector = selector
        self._close_in_child = close_in_child
        self._on_free = on_free
        self._workers: set[_Worker] = set()
        self._free: list[_Worker] = []  # the last one is used first: its memory is still in the caches
        self._spawn_not_before = 0.0  # time.monotonic

    def __len__(self) -> int:
        """Return the number of all workers, including those finishing their last message."""
        return len(self._workers)

    @property
    def staying(self) -> int:
        """The number of workers that are not retiring."""
        return sum(not worker.retiring for worker in self._workers)

    @property
    def free(self) -> int:
        """The number of workers that can be assigned a message."""
        return len(self._free)

    @property
    def busy(self) -> int:
        """The number of workers that are delivering a message."""
        return sum(worker.task is not None for worker in self._workers)

    @property
    def has_room_for_large(self) -> bool:
        """Whether a large message can be assigned: at most half of the workers, and at least one, may deliver them."""
        large = sum(worker.task is not None and worker.task.is_large for worker in self._workers)
        return large < max(1, self.config.serve.workers // 2)

    @property
    def channels(self) -> list[socket.socket]:
        """The channels to all workers."""
        return [worker.channel for worker in self._workers]

    @property
    def spawns_at(self) -> float:
        """The time at which missing workers will be forked (time.monotonic); infinity if none is missing."""
        return self._spawn_not_before if self.staying < self.config.serve.workers else float("inf")

    def spawn(self) -> None:
        """Fork the missing workers, unless one died within the last second."""
        while time.monotonic() >= self.spawns_at:
            try:
                pid, ours, theirs = fork_with_channel()
            except OSError as error:
                self._spawn_not_before = time.monotonic() + _RESTART_SECONDS
                log_event(self.config, "no worker", failed=True, reason=str(error))
                return
            if pid == 0:
                for inherited in (ours, *self._close_in_child(), *(worker.channel for worker in self._workers)):
                    inherited.close()
                process.work(theirs, self.config)
            theirs.close()
            ours.setblocking(False)
            worker = _Worker(pid, ours)
            self._workers.add(worker)
            self._selector.register(ours, EVENT_READ, lambda worker=worker: self._receive(worker))

    def assign(self, packet: bytes, task: Task, connection: socket.socket) -> bool:
        """Pass a message to a free worker. Returns False if there is none."""
        while self._free:
            worker = self._free.pop()
            try:
                socket.send_fds(worker.channel, [packet], [connection.fileno()])
            except OSError:
                # The worker is dying, which its channel will report, or the kernel is out of memory: retire it and try
                # the next one, so that we keep the message.
                self._retire(worker)
                self._spawn_not_before = time.monotonic() + _RESTART_SECONDS
                continue
            worker.task = task
            return True
        return False

    def adopt(self, pid: int, channel: socket.socket, task: Task | None) -> None:
        """Take over a worker of this process's previous program: it finishes its message and exits."""
        channel.setblocking(False)
        worker = _Worker(pid, channel)
        worker.task, worker.retiring = task, True
        self._workers.add(worker)
        self._selector.register(channel, EVENT_READ, lambda: self._receive(worker))

    def heirs(self) -> list[tuple[int, int, list[object] | None]]:
        """Return for each worker what `adopt` needs: its pid, its channel's descriptor, and its shortened task."""
        return [(worker.pid, worker.channel.fileno(), _brief(worker.task)) for worker in self._workers]

    def retire_all(self) -> None:
        """Let every worker exit after its current message."""
        for worker in self._workers:
            self._retire(worker)
        self._free.clear()

    def kill(self) -> None:
        """Kill all remaining workers."""
        for worker in self._workers:
            os.kill(worker.pid, signal.SIGKILL)

    def _retire(self, worker: _Worker) -> None:
        worker.retiring = True
        with suppress(OSError):
            worker.channel.shutdown(socket.SHUT_WR)

    def _receive(self, worker: _Worker) -> None:
        """Read a worker's report: READY, FREE or LAST. A closed channel means that it has exited."""
        try:
            report = worker.channel.recv(100)
        except BlockingIOError:
            return
        except OSError:
            report = b""
        if not report:
            self._reap(worker)
            return
        if report != process.READY:
            self.counts["delivered"] += 1
        worker.task = None
        if report == process.LAST:
            self.counts["replaced"] += 1
            worker.retiring = True
        elif not worker.retiring:
            self._free.append(worker)
            self._on_free()

    def _reap(self, worker: _Worker) -> None:
        self._selector.unregister(worker.channel)
        worker.channel.close()
        self._workers.discard(worker)
        with suppress(ValueError):
            self._free.remove(worker)
        code = os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1])
        if code == 0 and not worker.task:
            return
        self.counts["died"] += 1
        self._spawn_not_before = time.monotonic() + _RESTART_SECONDS
        cause = f"killed by signal {-code}" if code < 0 else f"left with status {code}"
        if worker.task:  # its entrypoint sees the connection close, and returns the status of FAULT to Postfix
            record_lost(self.config, outcome.FAULT, worker.task, f"the worker {cause}", worker.pid)
        else:
            log_event(self.config, "worker lost", failed=True, reason=cause)


def _brief(task: Task | None) -> list[object] | None:
    """Return a task without its recipients and most of its options, which may be long."""
    if task is None:
        return None
    argv = [f"--{name}={option(task.argv, name)}" for name in ("queue-id", "size")]
    ingress = [] if task.ingress == INGRESS else [task.ingress]  # which a program without LMTP does not know
    return [task.installation, task.parent, task.started, argv, *ingress]


def log_event(config: Config, what: str, failed: bool = False, **values: object) -> None:
    """Log a line about the service itself. The service goes on if that fails."""
    with suppress(OSError):
        write_log(config, "serve", failed, event=what, **values)


def record_lost(config: Config, result: Outcome, task: Task, reason: str, pid: int | None = None) -> None:
    """Record the outcome of a delivery that no worker can record. `pid`: the dead worker that had it, if any."""
    journal = Journal(config.state.directory)
    attempt = Attempt(task.ingress, "resident", option(task.argv, "queue-id"), task.started)
    attempt.config, attempt.journal = config, journal
    attempt.begin(pid)
    attempt.finish(Result(result, reason=reason))
    journal.close()  # before the next fork: a SQLite connection must not be carried across one
