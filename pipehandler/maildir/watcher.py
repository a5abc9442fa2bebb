"""The watcher: finds messages in Maildirs, lets workers deliver them, and moves their files when they are stored.

The workers are those of `pipehandler serve` (workers/), with their guards; they never touch a Maildir. This process reads no
message. A file is moved only after the commit, so at any moment it is in new/, or PostgreSQL has the message. Killed between
the two, the watcher delivers it again, and it is a duplicate.
"""

import gc
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from selectors import EVENT_READ, DefaultSelector

from pipehandler.parse import loading

from ..mail.sysexits import EX_DATAERR, EX_NOUSER, EX_OK
from ..record.attempt import write_log
from ..runtime import systemd
from ..runtime.deadline import GRACE
from ..settings.config import Config
from ..workers.pool import WorkerPool
from ..workers.succession import SIGNALS
from ..workers.worker import Task
from .delivery import Delivery
from .folder import Growing, LeftAlone, Maildir, MaildirError
from .inotify import Inotify
from .queue import Key, Queue
from .replacement import Replacement

_NOTIFY_SECONDS = 1.0


def watch(path: str, config: Config, maildirs: Sequence[str], report: Callable[[str], object]) -> None:
    """Watch Maildirs until SIGTERM or SIGINT. Raises MaildirError.

    path: the file that `config` was read from. `report` is called with one line when all are watched.
    """
    if os.geteuid() == 0:
        raise MaildirError("watch must not run as root; run it as the account that the Maildirs belong to")
    for number in (signal.SIGCHLD, signal.SIGALRM):  # the parent may have left them ignored or blocked
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGIO, signal.SIG_IGN)  # fcntl(2): another process opens a file while we ask for its lease
    os.umask(0o077)
    loading.load_all()  # before the fork
    folders: list[Maildir] = []
    try:
        for name in dict.fromkeys(map(os.path.realpath, maildirs)):
            folders.append(Maildir(name))
        report(f"watching {', '.join(folder.path for folder in folders)}")
        Watcher(path, config, folders).run()
    finally:
        for folder in folders:
            folder.close()


class Watcher:
    """The watcher of some Maildirs, which are locked already. path, config: as for `watch`."""

    def __init__(self, path: str, config: Config, folders: Sequence[Maildir]) -> None:
        config = config._replace(serve=config.serve._replace(workers=config.watch.workers))
        self._path, self._config, self._folders = path, config, folders
        self._selector = DefaultSelector()
        self._pool = WorkerPool(config, self._selector, self._close_in_child, self._assign)
        self._queue = Queue()
        self._deliveries: set[Delivery] = set()
        self._left_alone: set[Key] = set()
        self._inotify: Inotify | None = None
        self._watched: dict[int, int] = {}  # the number of a watch -> that of its Maildir
        self._scan_at = 0.0
        self._kill_at = float("inf")
        self._notify_at = 0.0
        self._stopping = False
        self._replacement = Replacement(path, self._selector, self._log, self._end)
        self._counts = dict.fromkeys(("stored", "failed"), 0)
        self._signals, self._signalled = socket.socketpair()

    def run(self) -> None:
        """Watch until SIGTERM or SIGINT; then finish the messages under way. Raises MaildirError.

        If another program was installed, or the configuration was changed, this process becomes it. It passes nothing
        on: new/ has all the state, and the locks end with the old program.
        """
        gc.collect()
        gc.freeze()
        for end in (self._signals, self._signalled):
            end.setblocking(False)
        self._selector.register(self._signals, EVENT_READ, self._handle_signals)
        signal.set_wakeup_fd(self._signalled.fileno())
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the previous program of this process left them blocked
        self._listen()
        self._log("watching", pid=os.getpid(), maildirs=len(self._folders))
        try:
            self._scan()
            systemd.notify("READY=1")
            while self._pool or self._deliveries or not self._stopping:
                if self._replacement.decided and not self._pool and not self._deliveries:
                    self._become_new()
                if not self._ending:
                    self._pool.spawn()
                    self._assign()
                for key, _ in self._selector.select(self._timeout()):
                    key.data()
                self._act(time.monotonic())
        finally:
            self._sync()
            self._log("stopped", pid=os.getpid(), stored=self._counts["stored"], moved=self._counts["failed"])

    def _listen(self) -> None:
        """Ask for events. Without them the scan finds everything, later."""
        try:
            self._inotify = Inotify()
            self._watched = {self._inotify.add(folder.new): number for number, folder in enumerate(self._folders)}
        except OSError as error:
            if self._inotify:
                self._inotify.close()
                self._inotify = None
            seconds = self._config.watch.scan_interval
            reason = f"inotify: {error.strerror}; new mail is found by a scan every {seconds} s"
            self._log("no events", failed=True, reason=reason)
            return
        self._selector.register(self._inotify, EVENT_READ, self._read_events)

    def _read_events(self) -> None:
        assert self._inotify  # noqa: S101 # it is registered
        events = self._inotify.read()
        if events is None:
            self._log("overflow", reason="inotify lost events: scanning")
            self._scan()
            return
        self._queue.add(
            (self._watched[watch], name) for watch, name in events if watch in self._watched and name[0] != "."
        )

    def _scan(self) -> None:
        for number, folder in enumerate(self._folders):
            names = dict.fromkeys(folder.names())
            self._queue.forget_missing(number, names.keys())
            self._queue.add((number, name) for name in names)
            self._left_alone -= {key for key in self._left_alone if key[0] == number and key[1] not in names}
        self._scan_at = time.monotonic() + self._config.watch.scan_interval

    def _act(self, now: float) -> None:
        """Do what is due at a time."""
        if not self._ending:
            self._replacement.act(now)
        if now >= self._kill_at:
            self._kill_at = float("inf")
            self._pool.kill()
        if now >= self._scan_at and not self._ending:
            self._sync()
            self._scan()
            self._replacement.look()
        if now >= self._notify_at:
            self._notify_at = now + _NOTIFY_SECONDS
            stored, failed = self._counts.values()
            systemd.notify(f"STATUS={stored} stored, {failed} moved to failed/, {len(self._queue)} in new/")

    def _sync(self) -> None:
        for folder in self._folders:
            with suppress(OSError):
                folder.sync()

    def _timeout(self) -> float | None:
        if self._ending:
            # Without a worker or a delivery nothing would wake it.
            wake = self._kill_at if self._pool or self._deliveries else 0.0
        else:
            due = self._queue.due() if self._pool.free else float("inf")
            wake = min(self._scan_at, self._pool.spawns_at, due, self._replacement.at)
        return None if wake == float("inf") else max(0.0, wake - time.monotonic())

    def _assign(self) -> None:
        """Give free workers the messages that are due."""
        while self._pool.free and not self._ending:
            key = self._queue.next(time.monotonic())
            if key is None:
                return
            delivery = self._open(key)
            if delivery is None:
                continue
            task = Task.from_packet(delivery.packet)
            assert task is not None  # noqa: S101 # it is ours
            room = self._pool.has_room_for_large or not task.is_large
            if not room or not self._pool.assign(delivery.packet, task, delivery.theirs):
                delivery.close()
                if room:
                    self._queue.put_back(key)
                    return
                self._queue.look_later(key, time.monotonic())
                continue
            delivery.theirs.close()
            self._deliveries.add(delivery)
            self._selector.register(delivery.socket, EVENT_READ, lambda delivery=delivery: self._receive(delivery))

    def _open(self, key: Key) -> Delivery | None:
        """Open a message; None if it cannot be delivered now, which the queue knows then."""
        now = time.monotonic()
        folder, name = self._folders[key[0]], key[1]
        try:
            return Delivery(key, folder.open(name), self._path)
        except FileNotFoundError:
            self._queue.done(key, worked=False)
        except LeftAlone as error:
            self._queue.done(key, worked=False)
            if key not in self._left_alone:
                self._left_alone.add(key)
                self._log("left alone", file=os.path.join(folder.path, "new", name), reason=str(error))
        except Growing:
            self._queue.look_later(key, now)
        except OSError as error:
            self._trouble(key, "not opened", error)
        return None

    def _receive(self, delivery: Delivery) -> None:
        answer = delivery.receive()
        if answer is None:
            return
        self._selector.unregister(delivery.socket)
        self._deliveries.discard(delivery)
        try:
            self._finish(delivery, *answer)
        except OSError as error:
            self._trouble(delivery.key, "not moved", error)
        finally:
            delivery.close()

    def _finish(self, delivery: Delivery, status: int, line: str) -> None:
        """Move the file of a message that has its result. Raises OSError if it cannot be moved."""
        key, opened = delivery.key, delivery.opened
        folder = self._folders[key[0]]
        if status == EX_OK:
            moved = folder.finish(opened, self._config.watch.stored == "remove")
            self._counts["stored"] += moved
        elif status in (EX_DATAERR, EX_NOUSER):
            moved = folder.reject(opened, line)
            self._counts["failed"] += moved
            if moved:
                name = os.path.join(folder.path, "failed", opened.name)
                self._log("moved to failed", failed=True, file=name, reason=line)
        else:
            self._queue.failed(key, time.monotonic())
            return
        self._queue.done(key)
        if not moved:  # removed or changed by another process; the scan finds it if it is there
            self._log("changed", file=os.path.join(folder.path, "new", opened.name))

    def _trouble(self, key: Key, what: str, error: OSError) -> None:
        self._queue.failed(key, time.monotonic())
        file = os.path.join(self._folders[key[0]].path, "new", key[1])
        self._log(what, failed=True, file=file, reason=error.strerror)

    def _close_in_child(self) -> Iterator[socket.socket]:
        """Yield the sockets that a new worker must close, and close what else is open.

        The lock as well: a worker that outlives a killed watcher must not keep the next one waiting.
        """
        signal.set_wakeup_fd(-1)
        self._selector.close()
        if self._inotify:
            self._inotify.close()
        for folder in self._folders:
            folder.close()
        for delivery in self._deliveries:
            delivery.opened.file.close()
        yield from (self._signals, self._signalled, *(delivery.socket for delivery in self._deliveries))

    def _log(self, event: str, failed: bool = False, **values: object) -> None:
        """Log a line about the watcher itself, which goes on if that fails."""
        # A name of a file may have octets that are not UTF-8; the log may not.
        for key, value in values.items():
            if isinstance(value, str):
                values[key] = os.fsencode(value).decode("utf-8", "backslashreplace")
        with suppress(OSError):
            write_log(self._config, "watch", failed, event=event, **values)

    def _handle_signals(self) -> None:
        with suppress(BlockingIOError):
            while self._signals.recv(100):
                if not self._stopping:
                    self._stop()

    def _stop(self) -> None:
        self._stopping = True
        systemd.notify("STOPPING=1")
        self._end()

    @property
    def _ending(self) -> bool:
        """Whether no further message is begun."""
        return self._stopping or self._replacement.decided

    def _end(self) -> None:
        self._replacement.stop()
        self._pool.retire_all()
        self._kill_at = time.monotonic() + self._config.limits.deadline + 2 * GRACE

    def _become_new(self) -> None:
        """Become the installed program. Returns if a signal came meanwhile, or if that fails: then the watcher goes on."""
        self._sync()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self._handle_signals()
            if not self._stopping and not self._replacement.make():
                self._kill_at = float("inf")
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
