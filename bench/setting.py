"""What all benchmarks share: one PostgreSQL as it is by default (fsync on), one folder, and a group for each kind of process."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from cost import Group, cpu
from harness import account
from harness.database import Database
from harness.handler import Handler
from harness.maildir import Mailbox, Watching
from harness.mailhost import MailHost
from harness.postgresql import PostgreSQL, binaries
from harness.service import Service

_DEBIAN = Path("/usr/lib/postgresql")
_names = iter(range(1, 1_000_000))


class Setting:
    """The server, and the groups in which the processes of Postfix (including the entrypoint), of `pipehandler serve`
    and of PostgreSQL run."""

    def __init__(self, folder: Path) -> None:
        self.postfix, self.workers, self.postgresql = Group("postfix"), Group("workers"), Group("postgresql")
        self._folder = folder
        # Debian's, as on a mail host: the wheel's is built without lz4. On Debian 12 that is 15.
        own = [int(each.name) for each in _DEBIAN.glob("*") if each.name.isdigit() and int(each.name) in binaries()]
        self.server = PostgreSQL(folder / "pg", max(own, default=16))
        self.start_server()

    @property
    def groups(self) -> tuple[Group, ...]:
        """All groups."""
        return self.postfix, self.workers, self.postgresql

    def start_server(self) -> None:
        """Start PostgreSQL, and sync: initdb leaves dirty pages, which must be on the disk before anything is
        measured."""
        self.sync()
        with self.postgresql.inside():
            self.server.start()

    @staticmethod
    def sync() -> None:
        """Flush all dirty pages to the disk."""
        os.sync()

    def new_folder(self) -> Path:
        """A new folder."""
        folder = self._folder / str(next(_names))
        folder.mkdir()
        folder.chmod(0o755)
        return folder

    def handler(self, database: Database, **sections: dict[str, object]) -> Handler:
        """The entrypoint, configured for `database`."""
        return Handler(self.new_folder(), database.conninfo, **sections)

    @contextmanager
    def service(self, handler: Handler) -> Iterator[Service]:
        """Running workers for `handler`."""
        with ExitStack() as stack:
            with self.workers.inside():
                service = stack.enter_context(Service(handler))
            yield service

    @contextmanager
    def watcher(self, handler: Handler, maildir: Mailbox) -> Iterator[None]:
        """A running `pipehandler watch` of a Maildir."""
        with self.workers.inside():
            watching = Watching(handler, [str(maildir.path)])
        try:
            yield
        finally:
            watching.stop()

    @contextmanager
    def mail_host(self, database: Database, *settings: str) -> Iterator[MailHost]:
        """A running Postfix that delivers to pipehandler, with these settings in main.cf."""
        host = MailHost(self.new_folder(), database.conninfo)
        # The run time of a command is logged with two significant digits, however short it is.
        host.postconf("-e", "delay_logging_resolution_limit=6", *settings)
        with self.postfix.inside():
            host.start()
        try:
            yield host
        finally:
            host.abort()

    def watch(self) -> "Watch":
        """A stopwatch that is running."""
        return Watch(self.groups)

    def close(self) -> None:
        """Stop the server, remove the groups."""
        self.server.stop()
        for each in self.groups:
            each.close()


@contextmanager
def setting() -> Iterator[Setting]:
    """The environment of a whole run."""
    with account.folder("pipehandler-bench-") as folder:
        made = Setting(folder)
        try:
            yield made
        finally:
            made.close()


def backends(database: Database) -> list[int]:
    """The processes of PostgreSQL that serve the handlers of `database`."""
    found = database.rows(
        "SELECT pid FROM pg_stat_activity WHERE datname = %s AND application_name = 'pipehandler'", database.name
    )
    return [row.pid for row in found]


class Spent(NamedTuple):
    """Elapsed seconds, and the CPU time of each group meanwhile."""

    seconds: float
    cpu: list[float]

    def each(self, count: int) -> list[float]:
        """CPU time in ms per item of `count`: for all groups together, then for each."""
        return [1000 * seconds / count for seconds in (sum(self.cpu), *self.cpu)]


class Watch:
    """Measures elapsed time and the CPU time of groups."""

    HEAD = ("CPU ms", "Postfix, entrypoint", "workers", "PostgreSQL")
    """The columns of Spent.each."""

    def __init__(self, groups: Sequence[Group]) -> None:
        self._groups = groups
        self._before = [each.seconds() for each in groups]
        self._started = time.monotonic()

    def read(self) -> Spent:
        """The time spent so far."""
        seconds = time.monotonic() - self._started
        return Spent(
            seconds, [each.seconds() - before for each, before in zip(self._groups, self._before, strict=True)]
        )


class Clock:
    """The CPU time that some processes use from now on."""

    def __init__(self, *pids: int) -> None:
        self._pids = pids
        self._before = self._sum()

    def seconds(self) -> float:
        """Their CPU time so far."""
        return self._sum() - self._before

    def _sum(self) -> float:
        return sum(map(cpu, self._pids))
