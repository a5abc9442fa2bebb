"""The upgrade under load: a database of the previous release is migrated while mail comes in through a real Postfix.

In the order of docs/upgrade.md the new handler is installed first, and meets the old schema. With an environment of the
previous release (`--previous`) the order is reversed: its handler delivers before, during and after the migration, and
then the new one takes over through new lines in master.cf. In both orders nothing is lost, duplicated or bounced.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import account, previous_release
from harness.database import Database
from harness.mailhost import DOMAIN, MailHost
from harness.postgresql import FAST, PostgreSQL
from harness.preloaded import PROGRAM
from harness.service import wait_until

from .ledger import Mode, Row, Scale
from .load import Load, add_up, drain, service

_LOAD = {Scale.SHORT: 10, Scale.THIN: 200, Scale.FULL: 1_000}
"""The number of messages."""

_PAUSE = 0.4
"""Seconds for which each of four clients pauses before a message, so that messages come in before, during and after the
migration."""


def run(scale: Scale, mode: Mode, previous: Path | None = None) -> Row:
    """One upgrade. previous: an environment (venv) with the previous release, or None."""
    row = mode.row("upgrade")
    with (
        account.folder("pipehandler-pg-") as folder,
        PostgreSQL(folder / "16", 16, FAST).start() as server,
        account.folder("pipehandler-mx-") as own,
    ):
        if previous:
            with _migrated_by(previous, server) as database:
                _database_first(PreviousHost(own, database.conninfo, previous), database, _LOAD[scale], mode, row)
        else:
            with previous_release.database(server, "mail") as database:
                _program_first(MailHost(own, database.conninfo), database, _LOAD[scale], mode, row)
    return row


class PreviousHost(MailHost):
    """A mail host with the lines that the previous release prints, until the new release takes over."""

    def __init__(self, folder: Path, conninfo: str, previous: Path) -> None:
        self.program = previous / "bin" / "pipehandler"
        self._previous: dict[str, str] = {}
        super().__init__(folder, conninfo)

    def lines(self, name: str) -> str:
        if name not in self._previous:
            options = {"user": account.NAME, "domain": DOMAIN, "config-directory": self.config, "maxproc": 8}
            words = [f"--{option}={value}" for option, value in (options | {"socket": self.handler.socket}).items()]
            command = [str(self.program), "--config", str(self.handler.config), "postfix", *words, name]
            self._previous[name] = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return self._previous[name]

    def take_over(self) -> None:
        """Replace the former lines with the new ones."""
        for name, former in self._previous.items():
            file = self.config / name
            text = file.read_text()
            if former not in text:
                raise ValueError(f"{file} does not have the lines of the previous release")
            file.write_text(text.replace(former, super().lines(name)))
        self.reload()


@contextmanager
def _migrated_by(previous: Path, server: PostgreSQL) -> Iterator[Database]:
    """A database created by the previous release, and the login role of its handler."""
    database = Database(server, "mail")
    server.psql("postgres", "CREATE DATABASE mail")
    command = [str(previous / "bin" / "pipehandler"), "--conninfo", database.admin, "migrate"]
    subprocess.run(command, check=True, capture_output=True)
    database.execute("CREATE ROLE pipehandler LOGIN IN ROLE pipehandler_ingest")
    yield database
    server.psql("postgres", "DROP DATABASE mail WITH (FORCE)")


def _migrate(database: Database, load: Load, row: Row) -> None:
    """Migrate with the new release, twice: the second time there is nothing to do."""
    began, accepted = time.monotonic(), load.accepted
    for attempt in ("first", "second"):
        done = subprocess.run([PROGRAM, "--conninfo", database.admin, "migrate"], capture_output=True, text=True)
        if done.returncode or (attempt == "second" and done.stdout.count("\n") != 1):
            row.note(f"the {attempt} migrate: {done.returncode}, {done.stdout}{done.stderr}")
        if attempt == "first":
            reported = (
                f"migrated in {time.monotonic() - began:.1f} s, while {load.accepted - accepted} messages came in"
            )
            sys.stderr.write(f"    {reported}\n")
        row.points += 1


def _database_first(host: PreviousHost, database: Database, count: int, mode: Mode, row: Row) -> None:
    """The previous handler delivers before, during and after the migration; then the new one takes over."""
    former = database.value("SELECT max(version) FROM pipehandler.migration")
    host.start()
    try:
        with Load(host, count, pause=_PAUSE) as load:
            with service(host, mode, host.program):
                wait_until(lambda: load.accepted >= count // 4, "the first messages")
                _migrate(database, load, row)
                wait_until(lambda: load.accepted >= count // 2, "messages after the migration")
            taken = load.accepted
            host.take_over()
            row.points += 1
            with service(host, mode):
                load.finish()
                drain(host)
    finally:
        host.abort()
    add_up(host, row)
    load.ledger.check(database, row)
    reached = database.value("SELECT max(version) FROM pipehandler.migration")
    parsers = database.rows(
        "SELECT parser, count(*) FROM pipehandler.message GROUP BY parser ORDER BY min(received_at)"
    )
    by = ", ".join(f"{each.count} by parser {each.parser}" for each in parsers)
    sys.stderr.write(f"    schema {former} to {reached}; {taken} messages before the new handler; {by}\n")
    if reached <= former:
        row.note(f"the schema has version {reached}, and had {former}: nothing was upgraded")
    if len(parsers) != 2:
        row.note(f"not both handlers have delivered: {by}")


def _program_first(host: MailHost, database: Database, count: int, mode: Mode, row: Row) -> None:
    """The new handler is installed before the migration; its mail is stored in the old schema, or deferred."""
    host.start()
    try:
        with Load(host, count) as load, service(host, mode):
            wait_until(host.deliveries, "the first attempts")
            _migrate(database, load, row)
            load.finish()
            drain(host)
    finally:
        host.abort()
    add_up(host, row)
    load.ledger.check(database, row)
