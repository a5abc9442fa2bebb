"""The mail host: Postfix is stopped at once in the middle of a load, its pipe(8) and the handler are killed at random.

Whatever Postfix accepted must be stored once for each recipient, byte for byte, when the queue is empty; and nothing may
bounce. A message of which the handler saw only the beginning, because pipe(8) died, must not be stored for the whole.
"""

import os
import random
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from real import account
from real.database import Database
from real.mailhost import DOMAIN, MailHost
from real.postgresql import FAST, PostgreSQL

from .ledger import Row, Scale
from .load import Load, mail_host, message

# A private Postfix that comes back at once: by default it leaves a service alone for a minute after it died. The time
# limit is far above what a delivery takes, and below our patience.
_MAIN = ("service_throttle_time=1s", "transport_retry_time=1s", "qmgr_ipc_timeout=5s", "pipehandler_time_limit=6s")


_PATIENCE = 30  # seconds


class _Trouble:
    """What can be done to a running mail host. It touches no process but those below this host's own master, and handlers
    with this host's configuration in their command line."""

    def __init__(self, host: MailHost) -> None:
        self.host = host
        self._frozen: list[int] = []

    def abort(self) -> None:
        """postfix abort, and a start."""
        master = self._master()
        self.host.abort()
        _wait_until(lambda: not _name(master))
        self._start()

    def crash(self) -> None:
        """Everything dies at once, the master, its daemons and the handlers; and a start."""
        master = self._master()
        daemons = _children(master)
        handlers = [child for daemon in daemons for child in _children(daemon)]
        for pid in (master, *daemons, *handlers):
            _signal(pid, signal.SIGKILL)
        _wait_until(lambda: not any(map(_name, (master, *daemons))))
        self._start()

    def _start(self) -> None:
        """Start it. Its integrity check fails where files still vanish under its hands, and a start that has just begun
        is in the way of another."""
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
        pid = random.choice(self._some(self._handlers))
        _signal(pid, signal.SIGKILL)
        _wait_until(lambda: not _stat(pid))

    def kill_agent(self) -> None:
        """One pipe(8) dies; its handler goes on alone."""
        agents = self._some(lambda: [pid for pid in self._agents() if _children(pid)])
        _signal(random.choice(agents), signal.SIGKILL)

    def freeze_handler(self) -> None:
        """One handler stands still, until Postfix kills it at the time limit."""
        pid = 0
        while _stat(pid)[:1] != ["T"]:  # it may have been about to end
            pid = random.choice(self._some(self._handlers))
            self._frozen.append(pid)
            _signal(pid, signal.SIGSTOP)
            time.sleep(0.01)

    def thaw(self) -> None:
        """Let go on what still stands still because its pipe(8) died."""
        for pid in self._frozen:
            if self._is_handler(pid):
                _signal(pid, signal.SIGCONT)

    def cut(self, raw: bytes, recipient: str) -> bool:
        """Send a large message, and kill pipe(8) while it writes it to a handler that is slow to read. Returns whether it
        came to that: the handler may have been faster."""
        known = set(self._handlers())
        self.host.send(raw, "a@example.org", recipient)
        (pid, *_) = self._some(lambda: [each for each in self._handlers() if each not in known])
        self._frozen.append(pid)
        _signal(pid, signal.SIGSTOP)
        agent = _parent(pid)
        time.sleep(0.3)  # pipe(8) fills the pipe
        if agent in self._agents():
            _signal(agent, signal.SIGKILL)
            _wait_until(lambda: not _stat(agent))
        before = self._cuts()
        _signal(pid, signal.SIGCONT)
        _wait_until(lambda: not _stat(pid))
        return self._cuts() > before

    def _cuts(self) -> int:
        return sum(line.startswith("action=cut ") for line in self.host.handler.log_lines())

    def _master(self) -> int:
        pid = int((self.host.folder / "queue/pid/master.pid").read_text())
        assert os.readlink(f"/proc/{pid}/cwd") == str(self.host.folder / "queue")
        return pid

    def _agents(self) -> list[int]:
        return [pid for pid in _children(self._master()) if _name(pid) == "pipe"]

    def _handlers(self) -> list[int]:
        return [child for agent in self._agents() for child in _children(agent) if self._is_handler(child)]

    def _is_handler(self, pid: int) -> bool:
        """A child that pipe(8) has just forked is not it yet."""
        try:
            return os.fsencode(f"--config={self.host.handler.config}") in Path(
                f"/proc/{pid}/cmdline"
            ).read_bytes().split(b"\0")
        except OSError:
            return False

    def _some(self, find: Callable[[], list[int]]) -> list[int]:
        """What `find` finds, as soon as it finds something."""
        until = time.monotonic() + _PATIENCE
        while not (found := find()):
            if time.monotonic() > until:
                raise TimeoutError("nobody delivers")
            time.sleep(0.001)
        return found


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _stat(pid: int) -> list[str]:
    """proc(5): the state, the parent and so on; nothing for a process that is gone, be it a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
    return [] if fields[0] in "ZX" else fields


def _parent(pid: int) -> int:
    return int((_stat(pid) or ["", "0"])[1])


def _name(pid: int) -> str:
    """The name of a process; "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() if _stat(pid) else ""
    except OSError:
        return ""


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _wait_until(done: Callable[[], bool]) -> None:
    until = time.monotonic() + _PATIENCE
    while not done():
        if time.monotonic() > until:
            raise TimeoutError("it did not come to that")
        time.sleep(0.02)


_TRACES = {
    "a handler was killed": r"Command died with signal 9",
    "a pipe(8) was killed": r"warning: process \S+/pipe pid \d+ killed by signal 9",
    "the time limit was hit": r"Command time limit exceeded",
    "Postfix was reloaded": r"reload -- version",
    "Postfix was started again": r"(?s)daemon started.*daemon started",
}
"""What the mail log must tell of the troubles, or they were none."""


def run(scale: Scale) -> Row:
    """The campaign of the mail host."""
    row = Row("mailhost")
    full = scale is Scale.FULL
    with (
        account.folder("pipehandler-pg-") as folder,
        PostgreSQL(folder / "16", 16, FAST).start() as server,
        Database.fresh(server) as database,
        mail_host(row, database.conninfo, *_MAIN) as host,
    ):
        trouble = _Trouble(host)
        kills = (trouble.kill_handler,) * 3  # one may be about to leave by itself
        once = (trouble.abort, trouble.reload, trouble.kill_agent, *kills, trouble.freeze_handler)
        often = (*once, trouble.crash, *(trouble.kill_handler, trouble.kill_agent) * 6)
        try:
            with Load(host, 1_000 if full else 40) as load:
                for make in once:
                    make()
                    row.points += 1
                # Before another trouble strikes the same pipe(8).
                _wait_until(lambda: "Command time limit exceeded" in host.log())
                while full and (load.going_on or len(host.queue()) > 20):
                    random.choice(often)()
                    row.points += 1
                    time.sleep(random.uniform(0, 1))
            _cut(trouble, load, row, 60 if full else 2)
        finally:
            trouble.thaw()
        _drain(host)
        load.ledger.check(database, row)
        for what, trace in _TRACES.items():
            if not re.search(trace, host.log()):
                row.note(f"it never happened that {what}")
    return row


def _cut(trouble: _Trouble, load: Load, row: Row, count: int) -> None:
    """Large messages, each cut off in the middle of its way from pipe(8) to the handler."""
    _drain(trouble.host)
    cuts = 0
    for number in range(10_001, 10_001 + count):
        raw = message(number) + b"%060d\n" % number * 8_000
        recipient = f"cut{number}@{DOMAIN}"
        load.ledger.send(raw, recipient)
        cuts += trouble.cut(raw, recipient)
        _drain(trouble.host)
    row.points += cuts
    if not cuts:
        row.note("no message was cut")


def _drain(host: MailHost, seconds: float = 300) -> None:
    """Wait until the queue is empty. A message that was still being delivered when Postfix was started or reloaded is left
    alone for a minute; a flush does not wait for that."""
    until = time.monotonic() + seconds
    while host.queue() and time.monotonic() < until:
        host.flush()
        time.sleep(0.5)
    host.drain(1)
