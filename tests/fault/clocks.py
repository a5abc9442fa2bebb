"""Clocks: a mail host whose clock shows another year, and clocks that jump, in both directions, in every pause of a
delivery.

libfaketime gives the entrypoint, the service or a command its own wall clock, which follows a file and jumps when the
file is written; the monotonic clock and the times of files stay those of the kernel. The database keeps its own clock.

No message may be deferred longer than with the right clock, nothing may expire early, and a lease lasts as long as
requested.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import psycopg
from harness import account
from harness.clock import Clock
from harness.console import Console
from harness.database import Database
from harness.handler import Ended, Handler
from harness.service import Service, stuck

from pipehandler.mail.identity import identify

from .injection import Letter, fresh_database, letter
from .ledger import Ledger, Mode, Row, Scale
from .retried import REPORTS, count, stored

_HOUR, _DAY = 3600, 86_400
_JUMPS = (-30 * 365 * _DAY, -91 * _DAY, -_DAY, -_HOUR, -10, -1, 1, 10, _HOUR, _DAY, 91 * _DAY, 30 * 365 * _DAY)
"""Seconds by which a clock is wrong, or jumps."""

_TIMES = (0, 1, 946_684_799, 2**31 - 1, 2**31, 2**32, 4_107_542_400, 8_277_292_035)
"""Times since 1970 that a clock may show: both ends of 32 bits, a year that is not a leap year, and in 2232 the last
second to which Linux lets a clock be set (TIME_SETTOD_SEC_MAX)."""

_BEYOND = (253_370_764_799, 253_402_300_799, 253_402_300_800)
"""The ends of 9998 and 9999, and 10000, which neither Linux nor Python can represent: mail is deferred until the clock
is right."""

_COMMANDS = ("expire", "list", "status", "metrics")
_RULES = "[[retention]]\nkeep = '1h'\nraw = '30m'\nattachments = '20m'\n"


class _Host(NamedTuple):
    """A handler whose processes run under a clock; in the resident mode it has a service as well."""

    handler: Handler
    clock: Clock
    database: Database
    row: Row
    ledger: Ledger

    def run(self, sent: Letter) -> Ended:
        """Deliver under the clock."""
        return self.handler.run([*self.clock.under, *sent.command(self.handler)], sent.raw)

    def stored(self, sent: Letter, where: str, tries: int = 1) -> None:
        """Deliver until the message is stored."""
        stored(self.run, sent, where, self.row, self.ledger, tries)


def _before_a_delivery(host: _Host, sent: Letter, seconds: int, where: str) -> None:
    """The clock jumps between two deliveries, and back."""
    host.stored(sent._replace(recipients=(f"before-{sent.name}@example.com",)), where)
    host.clock.jump(seconds)
    host.stored(sent, where)
    host.clock.jump(0)
    host.stored(sent._replace(recipients=(f"after-{sent.name}@example.com",)), where)


def _waiting_for_a_lock(host: _Host, sent: Letter, seconds: int, where: str) -> None:
    """The clock jumps while the delivery waits for the database."""
    with psycopg.connect(host.database.admin) as other:
        other.execute("LOCK TABLE pipehandler.delivery")
        running = host.handler.start([*host.clock.under, *sent.command(host.handler)])
        assert running.stdin
        running.stdin.write(sent.raw)
        running.stdin.close()
        running.stdin = None
        stuck(host.database)
        host.clock.jump(seconds)
    output, _ = running.communicate(timeout=60)
    count(ended := Ended(running.returncode, output.decode()), where, host.row)
    if ended.status:
        host.row.note(f"{ended} at {where}")
    host.stored(sent, where)


def _open_breaker(host: _Host, sent: Letter, seconds: int, where: str) -> None:
    """The clock jumps while the circuit breaker is open; the database is back at once, and the pause is no longer than
    usual."""
    limit = "ALTER ROLE pipehandler CONNECTION LIMIT"
    host.database.execute(f"{limit} 0")
    host.database.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'pipehandler'")
    count(ended := host.run(sent), where, host.row)
    if ended.status != 75 or not (host.handler.state / "outage").exists():
        host.row.note(f"{ended} while the database refuses, at {where}")
    host.database.execute(f"{limit} -1")
    host.clock.jump(seconds)
    host.stored(sent, where, tries=40)


def _dead_parser(host: _Host, sent: Letter, seconds: int, where: str) -> None:
    """The clock jumps between the death of a parser, which leaves a mark, and the next delivery."""
    mark = host.handler.state / f"parsing-{identify(sent.raw).id}"
    mark.write_bytes(b"parsing\n")
    account.give(mark)
    host.clock.jump(seconds)
    host.stored(sent, where)
    if mark.exists():
        host.row.note(f"the mark is still there at {where}")


def _beyond(host: _Host, sent: Letter, seconds: int, where: str) -> None:
    """A time that Python cannot represent: the message waits, or is stored."""
    host.clock.jump(seconds)
    count(host.run(sent), where, host.row)
    host.clock.jump(0)
    host.stored(sent, where, tries=40)


_Moment = Callable[[_Host, Letter, int, str], None]
_MOMENTS: tuple[_Moment, ...] = (_before_a_delivery, _waiting_for_a_lock, _open_breaker, _dead_parser)


def run(scale: Scale, mode: Mode) -> Row:
    """Every clock at every moment, and the commands under every clock; or a sample."""
    row, ledger = mode.row("clocks"), Ledger()
    wrong = [*_JUMPS, *(then - int(time.time()) for then in _TIMES)]
    with fresh_database() as database, account.folder("pipehandler-") as folder:
        console = Console(folder, database)
        console.configure(more=_RULES)
        console.run("expire")  # the rules are known to the database before the first message
        handler = Handler(folder / "handler", database.conninfo, serve={"workers": 1})
        host = _Host(handler, Clock(folder), database, row, ledger)
        moments = [(moment, seconds) for seconds in wrong for moment in _MOMENTS]
        moments += [(_beyond, then - int(time.time())) for then in _BEYOND]
        with _served(host, mode):
            for number, (moment, seconds) in enumerate(moments[6::29] if scale.short else scale.thin(moments, 15)):
                host.clock.jump(0)
                moment(host, letter(f"clock{number}"), seconds, f"{moment.__name__[1:]}, a jump by {seconds} s")
                row.points += 1
        under = wrong[-4:-3] if scale.short else list(scale.thin(wrong, 4))
        if mode is Mode.RESIDENT:
            _started_under(host, under)
        else:
            _commands(host, console, under, _COMMANDS[: 1 if scale.short else None])
        ledger.check(database, row)
        early = database.value(
            "SELECT count(*) FROM pipehandler.delivery WHERE expires_at <> stored_at + interval '1 h'"
        )
        if early:
            row.note(f"{early} deliveries do not expire after the hour of their rule")
        if not database.value(
            "SELECT count(*) FROM pipehandler.delivery WHERE abs(extract(epoch FROM received_at - stored_at)) > 5"
        ):
            row.note("no delivery was made under another clock")
    Clock.sweep()
    return row


@contextmanager
def _served(host: _Host, mode: Mode) -> Iterator[None]:
    """A service under the clock, in the resident mode."""
    if mode is Mode.COLD:
        yield
        return
    with Service(host.handler, under=host.clock.under):
        yield


def _started_under(host: _Host, wrong: list[int]) -> None:
    """A service that is started under each clock."""
    for number, seconds in enumerate(wrong):
        host.clock.jump(seconds)
        with _served(host, Mode.RESIDENT):
            host.stored(letter(f"started{number}"), f"a service started {seconds} s from now")
        host.row.points += 1


def _commands(host: _Host, console: Console, wrong: list[int], commands: tuple[str, ...]) -> None:
    """The operator's commands under each clock: nothing is removed, and a lease lasts its hour."""
    before = host.database.value("SELECT count(*) FROM pipehandler.inbox")
    for number, seconds in enumerate(wrong):
        host.clock.jump(seconds)
        console.configure("lessor")
        leased = console.run_under(host.clock.under, "address", "add", f"lease{number}@example.com", "--ttl", "1h")
        console.configure(more=_RULES)
        for command in commands:
            done = console.run_under(host.clock.under, command)
            if done.status not in REPORTS.get(command, (0,)) or "Traceback" in done.errors:
                host.row.note(f"{command} {seconds} s from now: {done}")
        left = host.database.value("SELECT count(*) FROM pipehandler.inbox")
        if left != before:
            host.row.note(f"{before - left} of {before} deliveries are gone after the commands {seconds} s from now")
        lasts = host.database.value(
            "SELECT coalesce(max(EXTRACT(EPOCH FROM expires_at - clock_timestamp())), 0) FROM pipehandler.address"
            " WHERE address = %s",
            f"lease{number}@example.com",
        )
        if leased.status or not 3_500 < lasts <= 3_600:
            host.row.note(f"a lease of an hour lasts {lasts} s, {seconds} s from now: {leased}")
        host.row.points += 1
