"""The crew: the resident workers as their supervisor sees them: forked, given messages, let go, replaced."""

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
from ..record import log
from ..record.attempt import Attempt
from ..record.journal import Journal
from ..settings.config import Config
from . import worker
from .worker import Task

_RESTART_SECONDS = 1.0
"""How long a worker that died is not replaced, so that one that cannot live does not keep the host busy."""


class _Worker:
    """A forked worker; task: what it was given and has not finished."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self.channel = channel
        self.task: Task | None = None
        self.leaving = False


class Crew:
    """As many workers as the configuration says, forked from this process.

    selector: where their channels are watched; its data are functions to call. unshared: what a new worker has to close.
    on_free: called when a worker can be given a message.
    """

    def __init__(
        self,
        config: Config,
        selector: BaseSelector,
        unshared: Callable[[], Iterable[socket.socket]],
        on_free: Callable[[], None],
    ) -> None:
        self.config = config
        self.delivered = self.replaced = self.died = 0
        self._selector = selector
        self._unshared = unshared
        self._on_free = on_free
        self._workers: set[_Worker] = set()
        self._free: list[_Worker] = []  # the last one first: what it needs is in the caches
        self._not_before = 0.0  # time.monotonic of the next fork

    def __len__(self) -> int:
        """The workers, and those who have yet to finish something before they leave."""
        return len(self._workers)

    @property
    def staying(self) -> int:
        """The workers that are not about to leave."""
        return sum(not each.leaving for each in self._workers)

    @property
    def free(self) -> int:
        """The workers that can be given a message."""
        return len(self._free)

    @property
    def busy(self) -> int:
        """The workers that have a message."""
        return sum(each.task is not None for each in self._workers)

    @property
    def hires_at(self) -> float:
        """When a missing worker will be forked (time.monotonic); infinity if none is missing."""
        return self._not_before if self.staying < self.config.serve.workers else float("inf")

    def hire(self) -> None:
        """Fork as many workers as are missing, if it is time for that."""
        while time.monotonic() >= self.hires_at:
            try:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                try:
                    pid = os.fork()
                except OSError:
                    ours.close()
                    theirs.close()
                    raise
            except OSError as error:
                self._not_before = time.monotonic() + _RESTART_SECONDS
                event(self.config, "no worker", failed=True, reason=str(error))
                return
            if pid == 0:
                for each in (ours, *self._unshared(), *(each.channel for each in self._workers)):
                    each.close()
                worker.work(theirs, self.config)
            theirs.close()
            ours.setblocking(False)
            new = _Worker(pid, ours)
            self._workers.add(new)
            self._selector.register(ours, EVENT_READ, lambda new=new: self._hear(new))

    def give(self, packet: bytes, task: Task, connection: socket.socket) -> bool:
        """Give a message to a worker that is free; False if there is none."""
        while self._free:
            chosen = self._free.pop()
            try:
                socket.send_fds(chosen.channel, [packet], [connection.fileno()])
            except OSError:
                # It is dying, as its channel is about to tell; or this host is out of something, and it shall not be lost.
                self._let_go(chosen)
                self._not_before = time.monotonic() + _RESTART_SECONDS
                continue
            chosen.task = task
            return True
        return False

    def dismiss(self) -> None:
        """Let all workers go when they have finished what they have."""
        for each in self._workers:
            self._let_go(each)
        self._free.clear()

    def kill(self) -> None:
        """End whoever is left."""
        for each in self._workers:
            os.kill(each.pid, signal.SIGKILL)

    def _let_go(self, leaver: _Worker) -> None:
        leaver.leaving = True
        with suppress(OSError):
            leaver.channel.shutdown(socket.SHUT_WR)

    def _hear(self, sender: _Worker) -> None:
        """What a worker says: that it has finished a message; nothing, when it is gone."""
        try:
            said = sender.channel.recv(100)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if not said:
            self._bury(sender)
            return
        if said != worker.READY:
            self.delivered += 1
        sender.task = None
        if said == worker.LAST:
            self.replaced += 1
            sender.leaving = True
        elif not sender.leaving:
            self._free.append(sender)
            self._on_free()

    def _bury(self, gone: _Worker) -> None:
        self._selector.unregister(gone.channel)
        gone.channel.close()
        self._workers.discard(gone)
        with suppress(ValueError):
            self._free.remove(gone)
        code = os.waitstatus_to_exitcode(os.waitpid(gone.pid, 0)[1])
        if code == 0 and not gone.task:
            return
        self.died += 1
        self._not_before = time.monotonic() + _RESTART_SECONDS
        how = f"killed by signal {-code}" if code < 0 else f"left with status {code}"
        if gone.task:  # its entrypoint has seen the end of the connection, and says this to Postfix
            ended(self.config, outcome.FAULT, gone.task, f"the worker {how}", gone.pid)
        else:
            event(self.config, "worker lost", failed=True, reason=how)


def event(config: Config, what: str, failed: bool = False, **values: object) -> None:
    """A log line about the service itself."""
    with suppress(OSError):
        log.write(log.line("serve", event=what, **values), config.log, failed=failed)


def ended(config: Config, how: Outcome, task: Task, reason: str, pid: int | None = None) -> None:
    """Write down how a delivery ended that no worker can tell of; `pid`: the worker that had it, and is dead."""
    journal = Journal(config.state.directory)
    attempt = Attempt(INGRESS, "resident", option(task.argv, "queue-id"), task.started)
    attempt.config, attempt.journal = config, journal
    attempt.begin(pid)
    attempt.finish(Result(how, reason=reason))
    journal.close()  # before the next worker is forked
