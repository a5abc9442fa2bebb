"""Reading the journal: what its records and totals add up to.

An attempt without an end is under way as long as its process lives and has begun no other; otherwise it was killed.
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ..record.journal import BOUNDS, KILLED, NAME
from ..runtime.process import process
from ..runtime.stopwatch import PHASES

_TICKS = os.sysconf("SC_CLK_TCK")


_RECENT = 1_800.0  # seconds; longer than any attempt lasts
_MOMENT = 0.2


class JournalError(Exception):
    """The journal cannot be read; the text says why and what to do."""


class Exits(NamedTuple):
    """How many attempts ended in one way since the journal was begun. status: None where they were killed. octets: of the
    messages that were read. last: when the last of them ended, in seconds since 1970."""

    ingress: str
    mode: str
    status: int | None
    outcome: str
    attempts: int
    octets: int
    last: float


class Duration(NamedTuple):
    """How long one phase took. counts: for each of journal.BOUNDS, how many attempts took no longer."""

    mode: str
    phase: str
    counts: tuple[int, ...]
    seconds: float


class Record(NamedTuple):
    """One attempt of the last days. began: seconds since 1970; status: None where it was killed; seconds: for each phase."""

    began: float
    ingress: str
    mode: str
    queue_id: str | None
    status: int | None
    outcome: str
    code: str | None
    sqlstate: str | None
    size: int | None
    message: str | None
    reason: str | None
    seconds: dict[str, float]


class Tally(NamedTuple):
    """What the journal says of all time: exits and durations; under_way: attempts that have not ended yet."""

    exits: list[Exits]
    durations: list[Duration]
    under_way: int


def tally(directory: str) -> Tally:
    """Add up the journal in the state directory. Raises JournalError."""
    with _opened(directory) as database:
        database.execute("BEGIN")  # one picture: records become totals when they go
        exits: list[Exits] = []
        for row in database.execute("SELECT * FROM total ORDER BY 1, 2, 3, 4"):
            exits = _added(exits, _exits(*row))
        durations = _durations(database.execute("SELECT * FROM duration ORDER BY 1, 2, 3").fetchall())
        incomplete = _incomplete(database)
        database.execute("COMMIT")
        killed = _killed(database, incomplete)
    for ingress, mode in sorted({(row["ingress"], row["way"]) for row in killed}):
        own = [row["began"] for row in killed if (row["ingress"], row["way"]) == (ingress, mode)]
        exits = _added(exits, Exits(ingress, mode, None, KILLED, len(own), 0, max(own)))
    return Tally(exits, durations, sum(each["alive"] for each in incomplete))


def records(directory: str, seconds: float) -> list[Record]:
    """The attempts that began in the last `seconds` and are over, oldest first. Raises JournalError."""
    with _opened(directory) as database:
        killed = {row["id"] for row in _killed(database, _incomplete(database))}
        rows = database.execute("SELECT * FROM attempt WHERE began > ? ORDER BY began, id", (time.time() - seconds,))
        return [_record(row) for row in rows if row["status"] is not None or row["id"] in killed]


@contextmanager
def _opened(directory: str) -> Iterator[sqlite3.Connection]:
    path = Path(directory, NAME).absolute()
    try:
        if not path.exists():
            raise JournalError(f"{path}: there is no journal; it begins with the first attempt at a message")
        database = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=2)
        database.row_factory = sqlite3.Row
        try:
            yield database
        finally:
            database.close()
    except (sqlite3.Error, OSError) as error:
        text = error.strerror if isinstance(error, OSError) else str(error)
        raise JournalError(
            f"{path}: {text}; root and the account of the transport may read it, and a broken one is replaced"
            " by the next attempt"
        ) from error


def _incomplete(database: sqlite3.Connection) -> list[dict[str, Any]]:
    """The attempts without an end, and whether each is still alive."""
    rows = database.execute(
        "SELECT id, began, pid, ingress, way FROM attempt WHERE status IS NULL ORDER BY id"
    ).fetchall()
    if not rows:
        return []
    last = dict(
        database.execute("SELECT pid, max(id) FROM attempt WHERE id >= ? GROUP BY pid", (rows[0]["id"],)).fetchall()
    )
    return [{**row, "alive": last[row["pid"]] == row["id"] and _alive(row["pid"], row["began"])} for row in rows]


def _killed(database: sqlite3.Connection, incomplete: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the incomplete attempts that were killed, and did not come to their end while we looked at them."""
    dead = [each for each in incomplete if not each["alive"]]
    if any(time.time() - each["began"] < _RECENT for each in dead):
        time.sleep(_MOMENT)  # the supervisor may be about to write down how a worker ended
    statement = "SELECT count(*) FROM attempt WHERE id = ? AND status IS NOT NULL"
    return [each for each in dead if not database.execute(statement, (each["id"],)).fetchone()[0]]


def _alive(pid: int, began: float) -> bool:
    """Whether the process that began then is still there, and not another one with its number."""
    found = process(pid)
    if found is None or found.state in b"ZX":
        return False
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return boot + found.started / _TICKS <= began + 1


def _exits(ingress: str, mode: str, status: int, outcome: str, attempts: int, octets: int, last: float) -> Exits:
    return Exits(ingress, mode, None if status < 0 else status, _outcome(outcome), attempts, octets, last)


def _outcome(action: str | None) -> str:
    """The outcome in the column `action`; 0.1 wrote `cut` for what is called `truncated` now."""
    return "truncated" if action == "cut" else action or KILLED


def _added(exits: list[Exits], more: Exits) -> list[Exits]:
    """The list with what is the same way to end added up."""
    same = [each for each in exits if each[:4] == more[:4]]
    for each in same:
        attempts, octets = each.attempts + more.attempts, each.octets + more.octets
        more = more._replace(attempts=attempts, octets=octets, last=max(each.last, more.last))
    return [each for each in exits if each not in same] + [more]


def _durations(rows: list[sqlite3.Row]) -> list[Duration]:
    found = []
    for mode in dict.fromkeys(row["way"] for row in rows):
        for phase in PHASES:
            own = [row for row in rows if (row["way"], row["phase"]) == (mode, phase)]
            if own:
                counts = tuple(sum(row["attempts"] for row in own if row["bound"] <= bound) for bound in BOUNDS)
                found.append(Duration(mode, phase, counts, sum(row["seconds"] for row in own)))
    return found


def _record(row: sqlite3.Row) -> Record:
    names = set(Record._fields) - {"mode", "outcome", "seconds"}
    return Record(
        **{name: row[name] for name in names},
        mode=row["way"],
        outcome=_outcome(row["action"]),
        seconds={phase: row[phase] for phase in PHASES if row[phase] is not None},
    )
