"""Mail hosts without a mail server: handlers, each with a configuration and a state directory, that deliver letters
while they are killed at a system call or a call fails; cold, or with a service of one worker.

After a fault in the resident mode a redelivery has to be resident as well: a service that no longer works is a finding,
though everything is delivered cold. A supervisor that died is restarted by systemd; here by this module.
"""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

from harness.database import Database
from harness.handler import Ended, Handler
from harness.service import Service

from pipehandler.workers.listener import ServeError

from . import injection
from .injection import Call, Letter, Maker, attached, calls, letter
from .ledger import Ledger, Mode, Row, Scale
from .processes import stat

_Point = TypeVar("_Point")
_Result = TypeVar("_Result")

_PATIENCE = 15.0
"""Seconds within which a service has to recover."""

_MOMENT = 0.5
"""Seconds for which a worker is stopped, so that others wait for it."""

_AT_ONCE = {(Mode.RESIDENT, False): 5, (Mode.CLIENT, False): 5}
"""The number of hosts that work at the same time, if not two; those with a service mostly wait."""


class Host:
    """A handler that delivers cold. deliverer: the process that reads, parses and stores."""

    mode = Mode.COLD
    makers: tuple[Maker, ...] = (Maker.ENTRYPOINT,)
    deliverer = Maker.ENTRYPOINT

    def __init__(self, handler: Handler) -> None:
        self.handler = handler

    def begins(self, call: Call) -> bool:
        """Whether a delivery begins with this call."""
        return call.name == "read" and call.said.startswith("0,")

    def trace(self, sent: Letter, maker: Maker = Maker.ENTRYPOINT) -> list[Call]:
        """Deliver a letter; returns the calls of one process."""
        return injection.trace(self.handler, sent.command(self.handler), sent.raw)[1]

    def kill(self, sent: Letter, call: Call) -> tuple[Ended, bool]:
        """Deliver a letter, and kill the process before it executes `call`; returns whether that happened."""
        ended = injection.kill(self.handler, sent.command(self.handler), sent.raw, call)
        return ended, ended.status == -9

    def fail(self, sent: Letter, call: Call, fault: str, ever: bool = False) -> tuple[Ended, str]:
        """Deliver a letter, and inject a fault at `call` (see injection.fail)."""
        return injection.fail(self.handler, sent.command(self.handler), sent.raw, call, fault, ever)

    def redeliver(self, sent: Letter) -> Ended:
        """Deliver once more, as Postfix does after some minutes, when a recorded outage has aged."""
        self._forget_outage()
        return self.handler.run(sent.command(self.handler), sent.raw)

    def stop(self) -> None:
        """The end."""

    def _forget_outage(self) -> None:
        outage = self.handler.state / "outage"
        if outage.exists():
            os.utime(outage, (time.time() - 300,) * 2)


class ResidentHost(Host):
    """A handler with a service of one worker. first: what a new worker delivers first, so that it has everything
    loaded. new_connection: called before each message; the server ends the worker's connection, so that it needs a new
    one."""

    mode = Mode.RESIDENT
    makers = tuple(Maker)
    deliverer = Maker.WORKER

    def __init__(
        self, handler: Handler, first: Letter, row: Row, new_connection: Callable[[], None] | None = None
    ) -> None:
        super().__init__(handler)
        self._first, self._warm = first, 0
        self._row = row
        self._new_connection = new_connection
        self._last = "nothing"
        self._file = handler.folder / "attached"
        self.service = Service(handler).start()

    def begins(self, call: Call) -> bool:
        return call.name == {Maker.WORKER: "recvmsg", Maker.SUPERVISOR: "accept4"}.get(call.maker, "socket")

    def trace(self, sent: Letter, maker: Maker = Maker.ENTRYPOINT) -> list[Call]:
        pid = self._ready(maker)
        if not pid:
            with self._occupied(maker):
                found = [each._replace(maker=maker) for each in super().trace(sent)]
            if (maker is Maker.WAITING) != any('"wait ' in each.said for each in found):
                self._row.note(f"the {maker.value} had to wait, or not: {found[-10:]}")
            return found
        with attached(pid, self._file):
            self.handler.run(sent.command(self.handler), sent.raw)
        return calls(self._file, maker)

    def kill(self, sent: Letter, call: Call) -> tuple[Ended, bool]:
        pid = self._ready(call.maker)
        self._last = f"a kill at {call}"
        if not pid:
            with self._occupied(call.maker):
                return super().kill(sent, call)
        with attached(pid, self._file, call, f"signal=SIGKILL:when={call.number}"):
            ended = self.handler.run(sent.command(self.handler), sent.raw)
        return ended, not stat(pid)

    def fail(self, sent: Letter, call: Call, fault: str, ever: bool = False) -> tuple[Ended, str]:
        pid = self._ready(call.maker)
        self._last = f"{fault} at {call}"
        if not pid:
            with self._occupied(call.maker):
                return super().fail(sent, call, fault, ever)
        with attached(pid, self._file, call, f"{fault}:when={call.number}{'+' * ever}"):
            ended = self.handler.run(sent.command(self.handler), sent.raw)
        return ended, self._file.read_text("ascii", "replace")

    def redeliver(self, sent: Letter) -> Ended:
        """Deliver once more, through the service."""
        until = time.monotonic() + _PATIENCE
        while True:
            self._ready(Maker.SUPERVISOR)
            times = self._times_delivered(sent)
            ended = super().redeliver(sent)
            if ended.status or _comes(partial(self._delivered_again, sent, times), 1):
                return ended
            if time.monotonic() > until:
                self._row.note(f"after {self._last} the service delivers no more: {ended}")
                return ended

    def stop(self) -> None:
        if not stat(self.service.pid):
            self.service.wait()
        else:
            self.service.stop()

    def _times_delivered(self, sent: Letter) -> int:
        """How often the service has delivered it, according to the log."""
        pattern = rf"status=0 .*queue_id={sent.queue_id} .*mode=resident "
        return sum(bool(re.search(pattern, line)) for line in self.handler.log_lines())

    def _delivered_again(self, sent: Letter, times: int) -> bool:
        return self._times_delivered(sent) > times

    def _ready(self, maker: Maker) -> int:
        """The process id of the worker or the supervisor, when both have nothing to do; 0 for an entrypoint."""
        if not _comes(self._well, _PATIENCE):
            self._row.note(f"after {self._last} the service is not well: {self.service.events()[-3:]}")
            self.service.signal(signal.SIGKILL)
            if not _comes(self._well, _PATIENCE):
                raise TimeoutError(f"no service can be had: {self.service.events()[-3:]}")
        (worker,) = self.service.workers()
        if worker != self._warm:
            self._forget_outage()
            self.handler.run(self._first.command(self.handler), self._first.raw)
            self._warm = worker
        if self._new_connection:
            self._new_connection()
        return {Maker.WORKER: worker, Maker.SUPERVISOR: self.service.pid}.get(maker, 0)

    @contextmanager
    def _occupied(self, maker: Maker) -> Iterator[None]:
        """Give the worker another message, and stop it for a moment, if the entrypoint is to wait."""
        if maker is not Maker.WAITING:
            yield
            return
        os.kill(self._warm, signal.SIGSTOP)
        let_go = threading.Timer(_MOMENT, os.kill, (self._warm, signal.SIGCONT))
        other = threading.Thread(target=self.handler.run, args=(self._first.command(self.handler), self._first.raw))
        other.start()
        _comes(lambda: self.service.status()["busy"] == 1, _PATIENCE)
        let_go.start()
        try:
            yield
        finally:
            let_go.join()
            other.join()

    def _well(self) -> bool:
        """Whether the service has its worker and is idle. A supervisor that died is started again, as systemd does."""
        if not stat(self.service.pid):
            self.service.wait()
            self.service = Service(self.handler).start()
        try:
            reported = self.service.status()
        except ServeError:
            return False
        return (reported["workers"], reported["free"], reported["waiting"], len(self.service.workers())) == (1, 1, 0, 1)


class ClientHost(ResidentHost):
    """A handler whose messages reach the service through the hand-over client. The faults are in the client, and in the Python
    entrypoint that it becomes."""

    mode = Mode.CLIENT
    makers = (Maker.ENTRYPOINT, Maker.WAITING)

    def __init__(
        self, handler: Handler, first: Letter, row: Row, new_connection: Callable[[], None] | None = None
    ) -> None:
        super().__init__(handler.with_client(), first, row, new_connection)


def _comes(it: Callable[[], bool], seconds: float) -> bool:
    """Whether the condition becomes true within that time."""
    until = time.monotonic() + seconds
    while not (so := it()) and time.monotonic() < until:
        time.sleep(0.01)
    return so


class Crew:
    """Some hosts that deliver many letters concurrently."""

    def __init__(self, hosts: Iterable[Host]) -> None:
        self._hosts = list(hosts)
        self._free: SimpleQueue[Host] = SimpleQueue()
        for each in self._hosts:
            self._free.put(each)

    @contextmanager
    def member(self) -> Iterator[Host]:
        """Wait for a free host."""
        host = self._free.get()
        try:
            yield host
        finally:
            self._free.put(host)

    def each(self, work: Callable[[Host, _Point], _Result], points: Iterable[_Point]) -> Iterator[_Result]:
        """What `work` returns for each of the points, in their order."""

        def one(point: _Point) -> _Result:
            with self.member() as host:
                return work(host, point)

        with ThreadPoolExecutor(len(self._hosts)) as pool:
            yield from pool.map(one, points)


@contextmanager
def crew(
    mode: Mode,
    scale: Scale,
    folder: Path,
    database: Database,
    row: Row,
    ledger: Ledger,
    sections: dict[str, dict[str, object]] | None = None,
    new_connection: bool = False,
) -> Iterator[Crew]:
    """Hosts that store in `database`, with these `sections` in their configuration; with `new_connection` over TCP, and in the resident way on another connection for each
    message."""
    conninfo = database.server.conninfo(database.name, "pipehandler", tcp=True) if new_connection else database.conninfo
    hosts: list[Host] = []
    try:
        for number in range(_AT_ONCE.get((mode, scale.short), 2)):
            own = folder / str(number)
            own.mkdir(parents=True)
            name = f"{folder.name}{number}"
            first = letter(f"first-{name}")
            ledger.send(first.raw, *first.recipients)
            if mode is Mode.COLD:
                handler = Handler(own, conninfo, **(sections or {}))
                handler.run(first.command(handler), first.raw)  # the journal now exists, so all later calls are alike
                hosts.append(Host(handler))
                continue
            handler = Handler(own, f"{conninfo} application_name={name}", serve={"workers": 1}, **(sections or {}))
            end = partial(_end_connection, database, name) if new_connection else None
            hosts.append((ClientHost if mode is Mode.CLIENT else ResidentHost)(handler, first, row, end))
        yield Crew(hosts)
    finally:
        for each in hosts:
            each.stop()


def _end_connection(database: Database, name: str) -> None:
    database.rows("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = %s", name)
