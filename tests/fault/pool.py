"""Handlers that are used for one message or a few, each time with another configuration; cold, or each with a service
that reloads the configuration and so has a new worker."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue

from harness import account
from harness.handler import Handler
from harness.service import Service, wait_until

from .ledger import Mode, Row


class Pool:
    """Cold handlers, new ones each time: one that has recorded an outage would not even try."""

    mode = Mode.COLD

    @contextmanager
    def handler(self, conninfo: str, **sections: dict[str, object]) -> Iterator[Handler]:
        """A handler with this configuration."""
        with account.folder("pipehandler-") as folder:
            yield Handler(folder, conninfo, **sections)

    def worker(self, handler: Handler) -> int:
        """The process id of a handler's worker; 0 without one."""
        return 0

    def last_log_line(self, handler: Handler) -> str:
        """The log entry of the last message."""
        return (handler.log_lines() or [""])[-1]


class ResidentPool(Pool):
    """Handlers with a service of one worker each. None may deliver cold."""

    mode = Mode.RESIDENT

    def __init__(self, folder: Path, count: int) -> None:
        self._all: dict[Handler, Service] = {}
        self._free: SimpleQueue[Service] = SimpleQueue()
        for number in range(count):
            own = folder / str(number)
            own.mkdir(parents=True)
            handler = Handler(own, "", serve={"workers": 1})
            self._all[handler] = Service(handler).start()
            self._free.put(self._all[handler])

    @contextmanager
    def handler(self, conninfo: str, **sections: dict[str, object]) -> Iterator[Handler]:
        """A handler with this configuration, and a worker that has delivered nothing yet."""
        service = self._free.get()
        try:
            reload(service, conninfo, **sections)
            yield service.handler
        finally:
            self._free.put(service)

    def worker(self, handler: Handler) -> int:
        """The process id of a handler's worker."""
        service = self._all[handler]
        wait_until(lambda: ready(service), "the end of its work")
        (pid,) = service.workers()
        return pid

    def last_log_line(self, handler: Handler) -> str:
        """The log entry of the last message; a worker writes it after it has answered the entrypoint."""
        self.worker(handler)
        return [line for line in handler.log_lines() if not line.startswith("outcome=serve ")][-1]

    def stop(self, row: Row) -> None:
        """Stop the services; record in `row` what was not resident."""
        for each in self._all.values():
            each.stop()
        only_resident(row, *self._all)


@contextmanager
def pool(mode: Mode, row: Row, count: int) -> Iterator[Pool]:
    """Handlers for `count` messages at once."""
    if mode is Mode.COLD:
        yield Pool()
        return
    with account.folder("pipehandler-") as folder:
        handlers = ResidentPool(folder, count)
        try:
            yield handlers
        finally:
            handlers.stop(row)


def reload(service: Service, conninfo: str, **sections: dict[str, object]) -> None:
    """Give a service of one worker another configuration; the state of its old worker is lost."""
    before = service.workers()
    service.handler.configure(conninfo, serve={"workers": 1}, **sections)
    service.signal(signal.SIGHUP)
    wait_until(lambda: ready(service) and not set(before) & set(service.workers()), "the new worker")
    forget_outage(service.handler)


def ready(service: Service) -> bool:
    """Whether its only worker is ready for a message."""
    reported = service.status()
    return (reported["workers"], reported["free"], len(service.workers())) == (1, 1, 1)


def forget_outage(handler: Handler) -> None:
    """Remove the recorded outage, as if it were long ago."""
    (handler.state / "outage").unlink(missing_ok=True)


def only_resident(row: Row, *handlers: Handler, share: float = 1) -> None:
    """A resident campaign that delivered cold shows nothing: at least this share of what was stored came from
    workers."""
    stored = [line for each in handlers for line in each.log_lines() if " status=0 " in line]
    resident = sum(" mode=resident " in line for line in stored)
    if not stored or resident < share * len(stored):
        row.note(f"only {resident} of {len(stored)} messages were delivered by workers")
