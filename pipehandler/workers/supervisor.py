"""The supervisor of the resident workers: the loop of the service, from its start to its end or replacement.

It forks the workers with all modules loaded, and a dispatcher passes the entrypoints' connections to them. It never reads
a message, has no connection to the database and holds no mail: without it, every entrypoint delivers cold.
"""

import gc
import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from selectors import EVENT_READ, DefaultSelector

from ..handover import INSTALLATION
from ..runtime import systemd
from ..runtime.deadline import GRACE
from ..runtime.installation import code_digest, configuration_digest
from ..settings.config import Config
from ..settings.config_file import ConfigError, load
from .connection_holder import hold_connections, take_over
from .connections import MOST
from .dispatcher import Dispatcher
from .forking import fork_with_channel
from .listener import ServeError
from .pool import WorkerPool, log_event
from .reception import Reception
from .renewal import Renewal
from .succession import SIGNALS, Inheritance, become
from .worker import Task

_NOTIFY_SECONDS = 1.0
"""The minimum time between two STATUS= lines to systemd: a person cannot read them faster."""


class Supervisor:
    """The service, on a listening socket.

    `path`: the configuration file, read again when it has changed and on SIGHUP. `created`: whether the service created
    the socket. `inheritance`: the state left by this process's previous program. `lmtp`: the sockets that were passed to
    this process for LMTP. `lmtp_created`: whether the service opens those itself. Raises ServeError if those in the configuration cannot be opened.
    """

    def __init__(
        self,
        listener: socket.socket,
        path: str,
        config: Config,
        created: bool = False,
        inheritance: Inheritance | None = None,
        lmtp: Sequence[socket.socket] = (),
        lmtp_created: bool = True,
    ) -> None:
        self._listener = listener
        self._path = path
        self._config = config
        self._created = created
        self._inheritance = inheritance
        self._selector = DefaultSelector()
        self._code = code_digest()
        self._renewal = Renewal(path, self._code, self._selector, self._reload, self._become_new, self._stay)
        self._pool = WorkerPool(config, self._selector, self._close_in_child, lambda: self._dispatcher.assign())
        self._dispatcher = Dispatcher(listener, path, config, self._selector, self._pool, self._renewal, self.status)
        self._reception = Reception(
            config,
            path,
            listener.getsockname(),
            lmtp,
            lmtp_created,
            self._selector,
            lambda: (*self._close_in_child(), *self._pool.channels),
        )
        self._refused = ""  # why the installed program did not replace this one
        self._stopping = False
        self._kill_at = float("inf")
        self._notified = ""
        self._notify_at = 0.0
        self._signals, self._signalled = socket.socketpair()

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT, then finish the deliveries under way. SIGHUP reads the configuration again."""
        gc.collect()
        gc.freeze()  # existing objects are never collected; not scanning them keeps their pages shared with the workers
        for end in (self._signals, self._signalled):
            end.setblocking(False)
        self._dispatcher.start()
        self._selector.register(self._signals, EVENT_READ, self._handle_signals)
        signal.set_wakeup_fd(self._signalled.fileno())
        for number in SIGNALS:
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if self._inheritance:
            self._inherit(self._inheritance)
        self._pool.spawn()
        self._reception.spawn()
        log_event(self._config, "started", pid=os.getpid(), workers=self._config.serve.workers)
        systemd.notify("READY=1")
        while self._pool or self._reception or not self._stopping:
            for key, _ in self._selector.select(self._select_timeout()):
                key.data()
            self._act()
            if not self._stopping:
                self._pool.spawn()
                self._reception.spawn()
            self._notify_status()
        log_event(self._config, "stopped", pid=os.getpid())

    def status(self) -> dict[str, int]:
        """Return the service's status.

        That is the current numbers of workers and waiting messages; deliveries, refusals and lost workers since the
        start; and the digests of the workers' code and configuration.
        """
        pool = self._pool
        return {
            "workers": pool.staying,
            "free": pool.free,
            "busy": pool.busy,
            "waiting": self._dispatcher.waiting,
            **pool.counts,
            **self._dispatcher.counts,
            "code": self._code,
            "configuration": configuration_digest(self._config),
        }

    def _act(self) -> None:
        """Do what is due now."""
        now = time.monotonic()
        self._dispatcher.expire(now)
        self._renewal.act(now)
        if now >= self._kill_at:
            self._kill_at = float("inf")
            self._pool.kill()
            self._reception.kill()

    def _close_in_child(self) -> Iterator[socket.socket]:
        """Yield the supervisor's sockets, for a new worker to close."""
        signal.set_wakeup_fd(-1)
        self._selector.close()
        yield from (self._signals, self._signalled, *self._dispatcher.sockets, *self._reception.sockets)

    # Signals, and the status for systemd.

    def _handle_signals(self) -> None:
        with suppress(BlockingIOError):
            for number in self._signals.recv(100):
                if number == signal.SIGHUP:
                    self._reload()
                elif not self._stopping:
                    self._stop()

    def _stop(self) -> None:
        self._stopping = True
        systemd.notify("STOPPING=1")
        self._renewal.stop()
        self._dispatcher.stop()
        self._pool.retire_all()
        self._reception.stop()
        self._kill_at = time.monotonic() + self._config.limits.deadline + 2 * GRACE

    def _reload(self) -> None:
        self._renewal.configuration_read()
        systemd.notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            config = load(self._path)
            self._reception.configure(config)
        except (ConfigError, ServeError) as error:
            log_event(self._config, "not reloaded", failed=True, reason=str(error))
        else:
            self._config = self._pool.config = self._dispatcher.config = config
            self._pool.retire_all()
            log_event(self._config, "reloaded", workers=self._config.serve.workers)
        systemd.notify("READY=1")

    # A new program.

    def _stay(self, reason: str) -> None:
        """Continue with this program. Connections held for another one are sent back to be delivered cold."""
        if reason and reason != self._refused:
            log_event(self._config, "not replaced", failed=True, reason=reason)
        self._refused = reason
        self._dispatcher.send_held_back()

    def _become_new(self) -> None:
        """Become the installed program, unless a signal has ended the service meanwhile. Returns only if it does not."""
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self._handle_signals()  # the new program receives none that this one has noted
            if not self._stopping:
                self._exchange()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

    def _exchange(self) -> None:
        """Leave the connections to a fork and become the installed program. Returns only if that fails."""
        try:
            holder, ours, theirs = fork_with_channel()
        except OSError as error:
            self._renewal.failed()
            self._stay(str(error))
            return
        if holder == 0:
            for inherited in (ours, *self._pool.channels, *self._reception.sockets):
                inherited.close()
            hold_connections(self._listener, theirs, self._dispatcher.handed_on(), self._dispatcher.longest_wait, MOST)
        theirs.close()
        log_event(self._config, "replaced", pid=os.getpid())
        self._pool.retire_all()
        self._reception.retire_all()
        lmtp, receivers = self._reception.heirs()
        inheritance = Inheritance(
            listener=self._listener.fileno(),
            channel=ours.fileno(),
            holder=holder,
            workers=self._pool.heirs(),
            counts=self._pool.counts | self._dispatcher.counts,
            installation=INSTALLATION.decode("ascii"),
            created=self._created,
            lmtp=lmtp,
            lmtp_created=self._reception.created,
            receivers=receivers,
        )
        try:
            become(inheritance)
        except OSError as error:
            self._renewal.failed()
            reason = str(error)
        ours.close()  # this makes the fork answer `cold` to all
        os.waitpid(holder, 0)
        self._dispatcher.abandon()
        self._stay(reason)

    def _inherit(self, inheritance: Inheritance) -> None:
        """Take over the workers, the counts and the connections of this process's previous program."""
        self._pool.counts |= {name: inheritance.counts.get(name, 0) for name in self._pool.counts}
        for pid, descriptor, task in inheritance.workers:
            self._pool.adopt(pid, socket.socket(fileno=descriptor), Task(*task) if task else None)
        for pid, descriptor in inheritance.receivers:
            self._reception.adopt(pid, socket.socket(fileno=descriptor))
        connections = take_over(socket.socket(fileno=inheritance.channel))
        self._dispatcher.take_over(inheritance.installation, inheritance.counts, connections)
        os.waitpid(inheritance.holder, 0)

    def _select_timeout(self) -> float | None:
        """Return the seconds until the next timer is due; None if no timer is set."""
        times = [self._kill_at, self._renewal.at, self._dispatcher.expires_at]
        if not self._stopping:
            times += [self._pool.spawns_at, self._reception.spawns_at]
        if self._text() != self._notified:
            times.append(self._notify_at)
        first = min(times)
        return None if first == float("inf") else max(0.0, first - time.monotonic())

    def _notify_status(self) -> None:
        """Update the status shown by `systemctl status`, at most once a second."""
        text = self._text()
        if text != self._notified and time.monotonic() >= self._notify_at:
            self._notified, self._notify_at = text, time.monotonic() + _NOTIFY_SECONDS
            systemd.notify(text)

    def _text(self) -> str:
        pool = self._pool
        return f"STATUS={pool.busy} of {pool.staying} workers busy, {self._dispatcher.waiting} messages waiting"
