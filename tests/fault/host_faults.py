"""Faults of a mail host: of Postfix, its pipe(8), the handlers, and the service of resident workers."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from harness.mailhost import MailHost
from harness.service import Service, wait_until

from .processes import children, name, parent, send, stat

PATIENCE = 30  # seconds


class HostFaults:
    """Faults of a running mail host. It touches only processes below this host's master, handlers with this host's
    configuration in their command line, and those of the service."""

    def __init__(self, host: MailHost, service: Service | None = None) -> None:
        self.host = host
        self.service = service
        self._frozen: list[int] = []

    def abort(self) -> None:
        """postfix abort, then a start."""
        master = self._master()
        self.host.abort()
        wait_until(lambda: not name(master))
        self._start()

    def crash(self) -> None:
        """Everything dies at once: the master, its daemons, the handlers and the service; then a start."""
        master = self._master()
        daemons = children(master)
        handlers = [child for daemon in daemons for child in children(daemon)]
        residents = [self.service.pid, *self.service.workers()] if self.service else []
        for pid in (master, *daemons, *handlers, *residents):
            send(pid, signal.SIGKILL)
        wait_until(lambda: not any(map(stat, (master, *daemons, *residents))))
        self._start()
        if self.service:
            self.service.wait()
            self.service.start()

    def _start(self) -> None:
        """Start it. Its integrity check fails if files vanish while it runs, and a start fails while another has just
        begun."""
        for _ in range(5):
            try:
                self.host.start()
            except RuntimeError:
                time.sleep(1)
            else:
                return
        self.host.start()

    def reload(self) -> None:
        """postfix reload."""
        self.host.reload()

    def kill_handler(self) -> None:
        """One handler dies."""
        pid = self._stopped_handler()
        send(pid, signal.SIGKILL)
        wait_until(lambda: not stat(pid))

    def kill_agent(self) -> None:
        """One pipe(8) dies; its handler continues without it."""
        agents = self._some(lambda: [pid for pid in self._agents() if children(pid)])
        agent = random.choice(agents)
        send(agent, signal.SIGKILL)
        wait_until(lambda: not stat(agent))

    def freeze_handler(self) -> None:
        """One handler is stopped, until Postfix kills it at the time limit."""
        self._frozen.append(self._stopped_handler())

    def _stopped_handler(self) -> int:
        """A handler that is stopped."""
        while True:
            if _stopped(pid := random.choice(self._some(self._handlers))):
                return pid

    def kill_worker(self) -> None:
        """A resident worker dies, with or without a message."""
        send(random.choice(self._workers()), signal.SIGKILL)

    def freeze_worker(self) -> None:
        """A resident worker is stopped, for a moment or until Postfix has given up."""
        worker = random.choice(self._workers())
        send(worker, signal.SIGSTOP)
        time.sleep(random.choice((0.2, 7)))
        send(worker, signal.SIGCONT)

    def kill_supervisor(self) -> None:
        """The supervisor dies; its workers finish their messages. It is started again, as systemd does."""
        assert self.service
        self.service.signal(signal.SIGKILL)
        self.service.wait()
        time.sleep(random.uniform(0, 1))
        self.service.start()

    def reload_service(self) -> None:
        """systemctl reload: all workers are replaced."""
        assert self.service
        self.service.signal(signal.SIGHUP)

    def restart_service(self) -> None:
        """systemctl stop, then start after a while."""
        assert self.service
        self.service.stop()
        time.sleep(random.uniform(0, 1))
        self.service.start()

    def _workers(self) -> list[int]:
        assert self.service
        return self._some(self.service.workers)

    def thaw(self) -> None:
        """Continue processes that are still stopped because their pipe(8) died."""
        for pid in self._frozen:
            if self._is_handler(pid):
                send(pid, signal.SIGCONT)

    def cut(self, raw: bytes, recipient: str) -> bool:
        """Send a large message, and kill pipe(8) while it writes it to a slow reader, a handler or a worker. Returns
        whether that succeeded: the reader may have been faster."""
        known = set(self._handlers())
        slow = self.service.workers() if self.service and random.choice((True, False)) else []
        for pid in slow:
            send(pid, signal.SIGSTOP)
        self.host.send(raw, "a@example.org", recipient)
        (handler, *_) = self._some(lambda: [each for each in self._handlers() if each not in known])
        if not slow:
            slow = [handler]
            self._frozen.append(handler)
            send(handler, signal.SIGSTOP)
        agent = parent(handler)
        time.sleep(0.3)  # pipe(8) fills the pipe
        if agent in self._agents():
            send(agent, signal.SIGKILL)
            wait_until(lambda: not stat(agent))
        before = self._cuts()
        for pid in slow:
            send(pid, signal.SIGCONT)
        wait_until(lambda: not stat(handler))
        if self.service:  # a worker writes its log after it has answered the handler
            service = self.service
            wait_until(lambda: not service.status()["busy"])
        return self._cuts() > before

    def _cuts(self) -> int:
        return sum(line.startswith("outcome=truncated ") for line in self.host.handler.log_lines())

    def _master(self) -> int:
        pid = int((self.host.folder / "queue/pid/master.pid").read_text())
        assert os.readlink(f"/proc/{pid}/cwd") == str(self.host.folder / "queue")
        return pid

    def _agents(self) -> list[int]:
        return [pid for pid in children(self._master()) if name(pid) == "pipe"]

    def _handlers(self) -> list[int]:
        return [child for agent in self._agents() for child in children(agent) if self._is_handler(child)]

    def _is_handler(self, pid: int) -> bool:
        """A child that pipe(8) has just forked is not yet the handler: it has pipe(8)'s command line, with everything
        in master.cf, and the lock of the queue file, which it would hold for as long as it is stopped."""
        try:
            return name(pid) != "pipe" and os.fsencode(f"--config={self.host.handler.config}") in Path(
                f"/proc/{pid}/cmdline"
            ).read_bytes().split(b"\0")
        except OSError:
            return False

    def _some(self, find: Callable[[], list[int]]) -> list[int]:
        """The result of `find`, once it is not empty."""
        until = time.monotonic() + PATIENCE
        while not (found := find()):
            if time.monotonic() > until:
                raise TimeoutError("no handler is running")
            time.sleep(0.001)
        return found


def _stopped(pid: int) -> bool:
    """Stop it; False if it ended before."""
    send(pid, signal.SIGSTOP)
    wait_until(lambda: stat(pid)[:1] in ([], ["T"]))
    return bool(stat(pid))
