"""Content: a corpus of real mail, and every kind of hostile message.

Whatever a message contains, the status is 0, its bytes are stored exactly, and its time and memory are bounded. A
hostile message may end in quarantine (stored, not parsed); a real one may not. The quarantined messages, and those that
took the most time and memory, are listed on stderr.

In the resident mode the time and memory are the worker's. A message that kills its worker is deferred once, and
quarantined at the second attempt; after each message the service delivers another.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from corpus import messages
from harness import account
from harness.database import Database
from harness.handler import Ended, Handler
from harness.postgresql import FAST, PostgreSQL
from harness.service import Service, wait_until

from pipehandler.settings.config import Limits, memory_needed

from . import core, hostile, measured
from .ledger import Ledger, Mode, Row, Scale
from .pool import Pool, forget_outage, only_resident, pool, ready

MESSAGE_SIZE = 100_000_000
"""limits.message_size here: an attachment of 50 MB is a message of 70 MB."""

LEAST_MEMORY = 268_435_456
"""The least that limits.memory may be."""

START, RATE = 5.0, 5_000_000
"""What a delivery may take besides limits.parse_timeout: seconds to start, and octets per second to read and store."""


_AT_ONCE = 2

# It is not fatal, but guessing the charset of so many parts exceeds a limit on CPU time.
_PART = b"--b\nContent-Type: text/plain\n\n" + "봄이 왔습니다\n".encode("euc-kr") * 3200
_DEADLY = b"Message-ID: <deadly@example.org>\nContent-Type: multipart/mixed; boundary=b\n\n" + _PART * 990 + b"--b--\n"
_HARMLESS = b"From: a@example.org\nMessage-ID: <harmless@example.org>\nSubject: harmless\n\nhello\n"


class Case(NamedTuple):
    """One hostile message: its kind, the function that makes it, its size, and whether the handler's memory is limited
    to what the configuration allows for such a message."""

    kind: str
    make: hostile.Kind
    size: int
    tight: bool = False

    def __str__(self) -> str:
        return f"{self.kind}, {self.size:,} octets{', little memory' if self.tight else ''}"


class Done(NamedTuple):
    """The result of one case: the reason in the log, and that of an earlier attempt that killed the worker; `after`:
    the status of a harmless message after it; `deferred`: why an earlier attempt, which Postfix repeats, was
    deferred."""

    case: Case
    ended: measured.Measured
    reason: str
    killed: str = ""
    after: int = 0
    deferred: str = ""


def run(scale: Scale, mode: Mode) -> Row:
    """Deliver the corpus and the hostile messages."""
    row = mode.row("content")
    with account.folder("pipehandler-content-") as folder:
        server = PostgreSQL(folder / "16", 16, FAST).start()
        try:
            with pool(mode, row, _AT_ONCE) as handlers:
                with Database.fresh(server) as database:
                    _real_mail(scale, database, handlers, folder, row)
                # A stored message is not written again; so each case has distinct bytes, or a separate database.
                for tight in (False, True):
                    with Database.fresh(server) as database:
                        cases = [case for case in _cases(scale) if case.tight is tight]
                        _hostile_mail(cases, database, handlers, row)
                if mode is Mode.RESIDENT and not scale.short:
                    with Database.fresh(server) as database:
                        _deadly_mail(database, folder / "deadly", row)
        finally:
            server.stop()
    return row


def _real_mail(scale: Scale, database: Database, handlers: Pool, folder: Path, row: Row) -> None:
    """Deliver each message of the corpus, in this process or by workers; none of them may be quarantined."""
    if not (messages.FOLDER / "MANIFEST.tsv").is_file():
        row.kind += " (no corpus of real mail here)"
        return
    names = messages.names()
    if scale.short:
        by_source = {name.partition("/")[0]: name for name in names}
        names = sorted({*by_source.values(), *names[:: len(names) // 30]})
    ledger = Ledger()
    with _deliverer(database, handlers, folder) as deliver:
        for number, name in enumerate(names):
            raw = messages.read(name)
            if not raw:
                continue  # Postfix never delivers an empty message
            recipient = f"corpus{number}@example.com"
            ledger.send(raw, recipient)
            ended = deliver(raw, recipient)
            row.points += 1
            row.statuses[ended.status] += 1
            row.bounced += ended.status not in (0, 71, 75)
            if not re.match(r"2\.0\.0 stored \S+$", ended.output):
                row.note(f"{name}: {ended}")
    ledger.check(database, row)


@contextmanager
def _deliverer(database: Database, handlers: Pool, folder: Path) -> Iterator[Callable[[bytes, str], Ended]]:
    """Deliver real mail, with the core in this process or with a worker."""
    if handlers.mode is Mode.RESIDENT:
        with handlers.handler(database.conninfo) as handler:
            yield handler.deliver
        return
    with core.core(database, folder) as inside:

        def deliver(raw: bytes, recipient: str) -> Ended:
            result = inside.deliver(raw, recipient)
            return Ended(result.outcome.status, f"{result.outcome.line(result.message)} {result.reason}".strip())

        yield deliver


def _cases(scale: Scale) -> Iterator[Case]:
    if scale.short:
        for name, make in (*list(hostile.KINDS.items())[::24], *list(hostile.FLOODS.items())[::156]):
            yield Case(name, make, 200_000)
        yield Case("an attachment", hostile.LARGE["an attachment"], 5_000_000)
        yield Case("an attachment", hostile.LARGE["an attachment"], 5_000_000, tight=True)
        return
    for name, make in scale.thin(list(hostile.KINDS.items()), 4):
        for size in (100_000, 10_000_000):
            yield Case(name, make, size)
        yield Case(name, make, 9_000_000, tight=True)
    for name, make in scale.thin(list(hostile.FLOODS.items()), 15):
        yield Case(name, make, 2_000_000)
    for name, make in scale.thin(list(hostile.LARGE.items()), 1):
        yield Case(name, make, 50_000_000)
        yield Case(name, make, 50_000_000, tight=True)


def _hostile_mail(cases: list[Case], database: Database, handlers: Pool, row: Row) -> None:
    """Deliver each case through the entrypoint, a few at a time."""
    ledger = Ledger()
    done: list[Done] = []
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        for each in threads.map(
            lambda number: _deliver(number, cases[number], database, handlers, ledger), range(len(cases))
        ):
            done.append(each)
            _judge(each, row)
    ledger.check(database, row)
    _tell(done)


def _deliver(number: int, case: Case, database: Database, handlers: Pool, ledger: Ledger) -> Done:
    """Deliver one case, with a separate configuration and recipient."""
    raw = case.make(case.size)
    limits: dict[str, object] = {"message_size": MESSAGE_SIZE}
    if case.tight:
        limits = {"message_size": len(raw), "memory": max(LEAST_MEMORY, memory_needed(len(raw)))}
    authentication: dict[str, object] = {"trusted_authserv_ids": [hostile.TRUSTED]}
    recipient = f"{number}@example.com"
    ledger.send(raw, recipient)
    with handlers.handler(database.conninfo, limits=limits, authentication=authentication) as handler:
        if handlers.mode is Mode.COLD:
            ended, reason = measured.deliver(handler, raw, recipient), _reason(handlers, handler)
            if ended.status not in (71, 75):
                return Done(case, ended, reason)
            forget_outage(handler)
            return Done(case, measured.deliver(handler, raw, recipient), _reason(handlers, handler), deferred=reason)
        ended = measured.deliver_to_worker(handler, handlers.worker(handler), raw, recipient)
        reason, killed = _reason(handlers, handler), ""
        if "the worker killed" in reason:
            killed = reason
            ended = measured.deliver_to_worker(handler, handlers.worker(handler), raw, recipient)
            reason = _reason(handlers, handler)
        ledger.send(_HARMLESS, f"after-{recipient}")
        after = handler.deliver(_HARMLESS, f"after-{recipient}")
        return Done(case, ended, reason, killed, after.status)


def _deadly_mail(database: Database, folder: Path, row: Row) -> None:
    """A message that gets its worker killed, here by a limit on CPU time: deferred, then stored unparsed."""
    folder.mkdir()
    handler = Handler(folder, database.conninfo, serve={"workers": 1})
    ledger = Ledger()
    ledger.send(_DEADLY, "deadly@example.com")
    ends = []
    with Service(handler) as service:
        for _ in range(2):
            wait_until(lambda: ready(service), "the worker")
            limit = ["prlimit", "--pid", str(service.workers()[0]), "--cpu=1"]
            subprocess.run(account.command(limit), check=True)
            ends.append(handler.deliver(_DEADLY, "deadly@example.com"))
    row.points += 1
    row.statuses.update(each.status for each in ends)
    if ends[0].status != 75 or "not parsed" not in ends[1].output:
        row.note(f"deadly: {ends}, {handler.log_lines()}")
    only_resident(row, handler)
    ledger.check(database, row)


def _reason(handlers: Pool, handler: Handler) -> str:
    return handlers.last_log_line(handler).partition("reason=")[2]


def _judge(done: Done, row: Row) -> None:
    case, ended, reason, *_ = done
    row.points += 1
    row.statuses[ended.status] += 1
    row.bounced += ended.status not in (0, 71, 75) and ended.status >= 0
    if done.deferred:
        row.statuses[75] += 1
        row.note(f"{case}: deferred once, {done.deferred}")
    if ended.status != 0:
        row.note(f"{case}: status {ended.status}, {ended.output} {reason}")
    if done.killed and "not parsed" not in ended.output:
        row.note(f"{case}: {done.killed}, and then {ended.output}")
    if done.after != 0:
        row.note(f"a harmless message after {case}: status {done.after}")
    if ended.seconds > Limits().parse_timeout + START + case.size / RATE:
        row.note(f"{case}: {ended.seconds:.1f} s")
    if ended.memory > Limits().memory:
        row.note(f"{case}: {ended.memory:,} octets of memory")


def _tell(done: list[Done]) -> None:
    """Print the quarantined messages with their reasons, and the most costly ones."""
    lines = [f"quarantined: {each.case}: {each.reason}" for each in done if "not parsed" in each.ended.output]
    lines += [f"killed its worker: {each.case}: {each.killed}" for each in done if each.killed]
    for each in sorted(done, key=lambda each: -each.ended.seconds)[:5]:
        lines.append(f"slowest: {each.case}: {each.ended.seconds:.1f} s")
    for each in sorted(done, key=lambda each: -each.ended.memory)[:5]:
        lines.append(f"largest: {each.case}: {each.ended.memory / 1_000_000:.0f} MB")
    sys.stderr.writelines(f"    {line}\n" for line in lines)
