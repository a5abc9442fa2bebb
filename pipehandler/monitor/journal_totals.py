"""Read the journal: the totals of all attempts, and the records of the last days.

An attempt that has no end is under way as long as its process lives and has begun no other attempt; otherwise it was killed.
The columns `way` and `action` hold what is called mode and outcome everywhere else (see record/journal.py).
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
_SETTLING = 0.2  # seconds within which the supervisor records the end of a worker


class JournalError(Exception):
    """The journal cannot be read; the text says why and what to do."""


class Exits(NamedTuple):
    """The number of attempts that ended alike since the journal was created.

    status: None if they were killed. octets: the total size of the messages that were read. last: the time at which the last of
    them ended, in seconds since 1970.
    """

    ingress: str
    mode: str
    status: int | None
    outcome: str
    attempts: int
    octets: int
    last: float


class Duration(NamedTuple):
    """How long one phase took. counts: for each of journal.BOUNDS, the number of attempts that took no longer."""

    mode: str
    phase: str
    counts: tuple[int, ...]
    seconds: float


class Record(NamedTuple):
    """One attempt of the last days. began: seconds since 1970; status: None if it was killed; seconds: for each phase."""

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


class JournalTotals(NamedTuple):
    """Exits and durations since the journal was created. under_way: the number of attempts that have not ended yet."""

    exits: list[Exits]
    durations: list[Duration]
    under_way: int


def totals(directory: str) -> JournalTotals:
    """Add up the journal in the state directory. Raises JournalError."""
    with _opened(directory) as database:
        database.execute("BEGIN")  # one snapshot, because old records are moved into the totals
        exits: list[Exits] = []
        for row in database.execute("SELECT * FROM total ORDER BY 1, 2, 3, 4"):
            exits = _added(exits, _exits(*row))
        durations = _durations(database.execute("SELECT * FROM duration ORDER BY 1, 2, 3").fetchall())
        incomplete = _incomplete(database)
        database.execute("COMMIT")
        killed = _killed(database, incomplete)
    for ingress, mode in sorted({(row["ingress"], row["way"]) for row in killed}):
        begins = [row["began"] for row in killed if (row["ingress"], row["way"]) == (ingress, mode)]
        exits = _added(exits, Exits(ingress, mode, None, KILLED, len(begins), 0, max(begins)))
    return JournalTotals(exits, durations, sum(row["alive"] for row in incomplete))


def records(directory: str, seconds: float) -> list[Record]:
    """Return the attempts that began in the last `seconds` and have ended, oldest first. Raises JournalError."""
    with _opened(directory) as database:
        killed = {row["id"] for row in _killed(database, _incomplete(database))}
        rows = database.execute("SELECT * FROM attempt WHERE began > ? ORDER BY began, id", (time.time() - seconds,))
        return [_record(row) for row in rows if row["status"] is not None or row["id"] in killed]


@contextmanager
def _opened(directory: str) -> Iterator[sqlite3.Connection]:
    path = Path(directory, NAME).absolute()
    try:
        if not path.exists():
            raise JournalError(f"{path}: there is no journal yet; the first delivery creates it")
        database = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=2)
        database.row_factory = sqlite3.Row
        try:
            yield database
        finally:
            database.close()
    except (sqlite3.Error, OSError) as error:
        text = error.strerror if isinstance(error, OSError) else str(error)
        raise JournalError(
            f"{path}: {text}; run this as root or as the account of the transport; a broken journal is replaced"
            " by the next delivery"
        ) from error


def _incomplete(database: sqlite3.Connection) -> list[dict[str, Any]]:
    """Return the attempts without an end, each with the key "alive": whether it is still under way."""
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
    """Return those of the incomplete attempts that were killed, without those that ended while we looked."""
    dead = [row for row in incomplete if not row["alive"]]
    if any(time.time() - row["began"] < _RECENT for row in dead):
        time.sleep(_SETTLING)
    statement = "SELECT count(*) FROM attempt WHERE id = ? AND status IS NOT NULL"
    return [row for row in dead if not database.execute(statement, (row["id"],)).fetchone()[0]]


def _alive(pid: int, began: float) -> bool:
    """Return whether the process that made the attempt still exists, and is not a later one with the same number."""
    found = process(pid)
    if found is None or found.state in b"ZX":
        return False
    boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
    return boot + found.started / _TICKS <= began + 1


def _exits(ingress: str, mode: str, status: int, outcome: str, attempts: int, octets: int, last: float) -> Exits:
    return Exits(ingress, mode, None if status < 0 else status, _outcome(outcome), attempts, octets, last)


def _outcome(action: str | None) -> str:
    """Return the outcome in the column `action`; 0.1.0 wrote `cut` for what is now called `truncated`."""
    return "truncated" if action == "cut" else action or KILLED


def _added(exits: list[Exits], more: Exits) -> list[Exits]:
    """Return the list with `more` added to the entry that ended alike, or appended."""
    same = [entry for entry in exits if entry[:4] == more[:4]]
    for entry in same:
        attempts, octets = entry.attempts + more.attempts, entry.octets + more.octets
        more = more._replace(attempts=attempts, octets=octets, last=max(entry.last, more.last))
    return [entry for entry in exits if entry not in same] + [more]


def _durations(rows: list[sqlite3.Row]) -> list[Duration]:
    durations = []
    for mode in dict.fromkeys(row["way"] for row in rows):
        for phase in PHASES:
            buckets = [row for row in rows if (row["way"], row["phase"]) == (mode, phase)]
            if buckets:
                counts = tuple(sum(row["attempts"] for row in buckets if row["bound"] <= bound) for bound in BOUNDS)
                durations.append(Duration(mode, phase, counts, sum(row["seconds"] for row in buckets)))
    return durations


def _record(row: sqlite3.Row) -> Record:
    names = set(Record._fields) - {"mode", "outcome", "seconds"}
    return Record(
        **{name: row[name] for name in names},
        mode=row["way"],
        outcome=_outcome(row["action"]),
        seconds={phase: row[phase] for phase in PHASES if row[phase] is not None},
    )
