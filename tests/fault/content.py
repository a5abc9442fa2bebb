"""The content: a corpus of real mail, and every kind of message that is made to hurt.

Whatever a message says, the status is 0, its bytes are stored exactly, and its time and memory are bounded. A hostile
message may end in quarantine (stored, not parsed); a real one may not. What was quarantined, what took longest and what
needed most memory is told on stderr.
"""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from corpus import messages
from real import account
from real.database import Database
from real.handler import Handler
from real.postgresql import FAST, PostgreSQL

from pipehandler.config import Limits, memory_needed

from . import core, hostile, measured
from .ledger import Ledger, Row, Scale

MESSAGE_SIZE = 100_000_000
"""limits.message_size here: an attachment of 50 MB is a message of 70 MB."""

LEAST_MEMORY = 268_435_456
"""The least that limits.memory may be."""

START, RATE = 5.0, 5_000_000
"""What a delivery may take beside limits.parse_seconds: seconds to start, and octets in a second to read and store."""


class Case(NamedTuple):
    """One hostile message: its kind, the function that makes it, its size, and whether the handler has no more memory
    than the configuration allows for such a message."""

    kind: str
    make: hostile.Kind
    size: int
    tight: bool = False

    def __str__(self) -> str:
        return f"{self.kind}, {self.size:,} octets{', little memory' if self.tight else ''}"


class Done(NamedTuple):
    """What became of one case, and what the log says of the reason."""

    case: Case
    ended: measured.Measured
    reason: str


def run(scale: Scale) -> Row:
    """Deliver the corpus and the hostile messages."""
    row = Row("content")
    with account.folder("pipehandler-content-") as folder:
        server = PostgreSQL(folder / "16", 16, FAST).start()
        try:
            with Database.fresh(server) as database:
                _real_mail(scale, database, folder, row)
            # A message that is there already is not written again; so each case has bytes, or a database, of its own.
            for tight in (False, True):
                with Database.fresh(server) as database:
                    cases = [case for case in _cases(scale) if case.tight is tight]
                    _hostile_mail(cases, database, folder / f"cases-{tight}", row)
        finally:
            server.stop()
    return row


def _real_mail(scale: Scale, database: Database, folder: Path, row: Row) -> None:
    """Each message of the corpus, in this process; none of them may be quarantined."""
    if not (messages.FOLDER / "MANIFEST.tsv").is_file():
        row.kind += " (no corpus of real mail here)"
        return
    names = messages.names()
    if scale is Scale.SHORT:
        by_source = {name.partition("/")[0]: name for name in names}
        names = sorted({*by_source.values(), *names[:: len(names) // 30]})
    ledger = Ledger()
    with core.core(database, folder) as handler:
        for number, name in enumerate(names):
            raw = messages.read(name)
            if not raw:
                continue  # Postfix has no empty message
            recipient = f"corpus{number}@example.com"
            ledger.send(raw, recipient)
            result = handler.deliver(raw, recipient)
            row.points += 1
            row.statuses[result.outcome.status] += 1
            row.bounced += result.outcome.code.startswith("5")
            if result.outcome.action != "delivered":
                row.note(f"{name}: {result.outcome.action} {result.reason}")
    ledger.check(database, row)


def _cases(scale: Scale) -> Iterator[Case]:
    if scale is Scale.SHORT:
        for name, make in (*list(hostile.KINDS.items())[::24], *list(hostile.FLOODS.items())[::156]):
            yield Case(name, make, 200_000)
        yield Case("an attachment", hostile.LARGE["an attachment"], 5_000_000)
        yield Case("an attachment", hostile.LARGE["an attachment"], 5_000_000, tight=True)
        return
    for name, make in hostile.KINDS.items():
        for size in (100_000, 10_000_000):
            yield Case(name, make, size)
        yield Case(name, make, 9_000_000, tight=True)
    for name, make in hostile.FLOODS.items():
        yield Case(name, make, 2_000_000)
    for name, make in hostile.LARGE.items():
        yield Case(name, make, 50_000_000)
        yield Case(name, make, 50_000_000, tight=True)


def _hostile_mail(cases: list[Case], database: Database, folder: Path, row: Row) -> None:
    """Each case through the cold entrypoint, two at a time."""
    folder.mkdir()
    ledger = Ledger()
    done: list[Done] = []
    with ThreadPoolExecutor(2) as pool:
        for each in pool.map(
            lambda number: _deliver(number, cases[number], database, folder, ledger), range(len(cases))
        ):
            done.append(each)
            _judge(each, row)
    ledger.check(database, row)
    _tell(done)


def _deliver(number: int, case: Case, database: Database, folder: Path, ledger: Ledger) -> Done:
    """One case, with a configuration and a recipient of its own."""
    raw = case.make(case.size)
    limits: dict[str, object] = {"message_size": MESSAGE_SIZE}
    if case.tight:
        limits = {"message_size": len(raw), "memory": max(LEAST_MEMORY, memory_needed(len(raw)))}
    own = folder / str(number)
    own.mkdir()
    authentication: dict[str, object] = {"trusted_authserv_ids": [hostile.TRUSTED]}
    handler = Handler(own, database.conninfo, limits=limits, authentication=authentication)
    recipient = f"{number}@example.com"
    ledger.send(raw, recipient)
    ended = measured.deliver(handler, raw, recipient)
    return Done(case, ended, " ".join(handler.log_lines()).partition("reason=")[2])


def _judge(done: Done, row: Row) -> None:
    case, ended, reason = done
    row.points += 1
    row.statuses[ended.status] += 1
    row.bounced += ended.status not in (0, 71, 75) and ended.status >= 0
    if ended.status != 0:
        row.note(f"{case}: status {ended.status}, {ended.output} {reason}")
    if ended.seconds > Limits().parse_seconds + START + case.size / RATE:
        row.note(f"{case}: {ended.seconds:.1f} s")
    if ended.memory > Limits().memory:
        row.note(f"{case}: {ended.memory:,} octets of memory")


def _tell(done: list[Done]) -> None:
    """Who was quarantined and why, and the most costly."""
    lines = [f"quarantined: {case}: {reason}" for case, ended, reason in done if "not parsed" in ended.output]
    for case, ended, _ in sorted(done, key=lambda each: -each.ended.seconds)[:5]:
        lines.append(f"slowest: {case}: {ended.seconds:.1f} s")
    for case, ended, _ in sorted(done, key=lambda each: -each.ended.memory)[:5]:
        lines.append(f"largest: {case}: {ended.memory / 1_000_000:.0f} MB")
    sys.stderr.writelines(f"    {line}\n" for line in lines)
