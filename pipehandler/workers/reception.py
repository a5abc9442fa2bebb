"""The LMTP receiver, seen from the supervisor: one process, from fork to exit, on sockets that the supervisor keeps.

The sockets stay open while a receiver is replaced: after a new configuration, a new program, or its death. A client that
connects meanwhile waits in the backlog.
"""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from selectors import EVENT_READ, BaseSelector
from typing import NoReturn

from ..lmtp.receiver import Receiver
from ..mail.outcome import described
from ..settings.config import Config, Lmtp
from .forking import fork_with_channel
from .listener import listen_for_lmtp, user_ids
from .pool import log_event

_RESTART_SECONDS = 1.0
"""The delay before a receiver that died is replaced."""


class _Process:
    """A receiver. `retiring`: it accepts no further connection."""

    def __init__(self, pid: int, channel: socket.socket) -> None:
        self.pid = pid
        self.channel = channel
        self.retiring = False


class Reception:
    """The receiver on `listeners`, if there are any; and those before it, which finish their messages.

    path: of the configuration. service: the path of the service's socket, where messages are handed over. listeners: those
    that systemd or the previous program passed to this process; without any, those of the configuration are opened. created: whether
    the service opened them itself, and may open others. close_in_child: returns the sockets that a new process must close.
    Raises ServeError.
    """

    def __init__(
        self,
        config: Config,
        path: str,
        service: str,
        listeners: Sequence[socket.socket],
        created: bool,
        selector: BaseSelector,
        close_in_child: Callable[[], Iterable[socket.socket]],
    ) -> None:
        self._config = config
        self._path = path
        self._service = service
        self.created = created
        self._listeners = list(listeners) or (listen_for_lmtp(config.lmtp) if created else [])
        self._accounts = user_ids(config.lmtp.accounts if self._listeners else ())
        self._selector = selector
        self._close_in_child = close_in_child
        self._processes: set[_Process] = set()
        self._spawn_not_before = 0.0  # time.monotonic

    def __len__(self) -> int:
        """Return the number of all receivers, including those that finish their last messages."""
        return len(self._processes)

    @property
    def sockets(self) -> list[socket.socket]:
        """All sockets that belong to it."""
        return [*self._listeners, *(process.channel for process in self._processes)]

    @property
    def spawns_at(self) -> float:
        """The time at which a missing receiver will be forked (time.monotonic); infinity if none is missing."""
        running = any(not process.retiring for process in self._processes)
        return self._spawn_not_before if self._listeners and not running else float("inf")

    def spawn(self) -> None:
        """Fork the receiver if it is missing, unless one died within the last second."""
        if time.monotonic() < self.spawns_at:
            return
        try:
            pid, ours, theirs = fork_with_channel()
        except OSError as error:
            self._spawn_not_before = time.monotonic() + _RESTART_SECONDS
            log_event(self._config, "no receiver", failed=True, reason=str(error))
            return
        if pid == 0:
            self._receive(ours, theirs)
        theirs.close()
        self._watch(_Process(pid, ours))

    def _receive(self, ours: socket.socket, channel: socket.socket) -> NoReturn:
        """Be the receiver."""
        status = 1
        try:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)  # the supervisor stops it by closing its channel
            for inherited in (ours, *self._close_in_child()):
                if inherited not in self._listeners:
                    inherited.close()
            Receiver(self._listeners, channel, self._config, self._path, self._service, self._accounts).run()
            status = 0
        except BaseException as error:  # noqa: BLE001 # the log says why, and the supervisor starts another
            with suppress(BaseException):
                log_event(self._config, "receiver", failed=True, pid=os.getpid(), reason=described(error))
        finally:
            os._exit(status)

    def configure(self, config: Config) -> None:
        """Replace the receiver by one with another configuration, on other sockets if these changed. Raises ServeError:
        then the configuration stays as it was."""
        before, after = self._config.lmtp, config.lmtp
        accounts = user_ids(after.accounts if _places(after) or self._listeners else ())
        if self.created and _places(before) != _places(after):
            # One whose place stays is kept: the receiver listens there as well, so nothing else could be bound to it.
            moved = {socket.AF_UNIX} if before.socket != after.socket else set()
            moved |= {socket.AF_INET, socket.AF_INET6} if before.address != after.address else set()
            opened = listen_for_lmtp(
                after._replace(
                    socket=after.socket if socket.AF_UNIX in moved else "",
                    address=after.address if socket.AF_INET in moved else "",
                )
            )
            for listener in self._listeners:
                if listener.family in moved:
                    listener.close()
            self._listeners = [listener for listener in self._listeners if listener.family not in moved] + opened
        self._config, self._accounts = config, accounts
        self.retire_all()

    def adopt(self, pid: int, channel: socket.socket) -> None:
        """Take over a receiver of this process's previous program: it finishes its messages and exits."""
        process = _Process(pid, channel)
        process.retiring = True
        self._watch(process)

    def heirs(self) -> tuple[list[int], list[tuple[int, int]]]:
        """Return what a new program needs: the listening descriptors, and the pid and channel of each receiver."""
        return (
            [listener.fileno() for listener in self._listeners],
            [(process.pid, process.channel.fileno()) for process in self._processes],
        )

    def retire_all(self) -> None:
        """Let every receiver exit after the messages that have begun."""
        for process in self._processes:
            process.retiring = True
            with suppress(OSError):
                process.channel.shutdown(socket.SHUT_WR)

    def stop(self) -> None:
        """Accept nothing more."""
        for listener in self._listeners:
            listener.close()
        self._listeners = []
        self.retire_all()

    def kill(self) -> None:
        """Kill all remaining receivers."""
        for process in self._processes:
            os.kill(process.pid, signal.SIGKILL)

    def _watch(self, process: _Process) -> None:
        process.channel.setblocking(False)
        self._processes.add(process)
        self._selector.register(process.channel, EVENT_READ, lambda: self._reap(process))

    def _reap(self, process: _Process) -> None:
        """A receiver writes nothing to its channel, so this is its end."""
        self._selector.unregister(process.channel)
        process.channel.close()
        self._processes.discard(process)
        code = os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1])
        if code != 0 or not process.retiring:
            self._spawn_not_before = time.monotonic() + _RESTART_SECONDS
            cause = f"killed by signal {-code}" if code < 0 else f"left with status {code}"
            log_event(self._config, "receiver lost", failed=True, reason=cause)


def _places(settings: Lmtp) -> tuple[str, str]:
    return settings.socket, settings.address
