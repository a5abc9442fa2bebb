"""Read the journal: the totals of all attempts, and the records of the last days.

An attempt that has no end is under way as long as its process lives and has begun no other attempt; otherwise it was killed.
The columns `way` and `action` hold what is called mode and outcome everywhere else (see record/journal.py).
"""

import os
import sqlite3
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from ..record.journal import BOUNDS, KILLED
from ..runtime.process import process
from ..runtime.stopwatch import PHASES
from .journal_copy import JournalError as JournalError
from .journal_copy import opened_copy
from .journal_rows import COUNT, NUMBER, SECONDS, STATUS, TEXT, TIME, WORD, Row, optional, rows

_TICKS = os.sysconf("SC_CLK_TCK")
_RECENT = 1_800.0  # seconds; longer than any attempt lasts
_SETTLING = 0.2  # seconds within which the supervisor records the end of a worker


_TOTALS = {
    "ingress": WORD,
    "way": WORD,
    "status": STATUS,
    "action": WORD,
    "attempts": COUNT,
    "octets": COUNT,
    "last": TIME,
}
_DURATIONS = {"way": WORD, "phase": WORD, "bound": NUMBER, "attempts": COUNT, "seconds": SECONDS}
_DROPPED = {"destination": WORD, "lines": COUNT, "last": TIME}
_BEGINS = {"id": COUNT, "began": TIME, "pid": COUNT, "ingress": WORD, "way": WORD, "status": optional(STATUS)}
_ATTEMPTS = {
    **_BEGINS,
    **dict.fromkeys(("action", "code", "sqlstate"), optional(WORD)),
    **dict.fromkeys(("queue_id", "message", "reason"), optional(TEXT)),
    "size": optional(COUNT),
    **dict.fromkeys(PHASES, optional(SECONDS)),
}


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
    """Exits and durations since the journal was created. under_way: the number of attempts that have not ended yet.

    dropped: for each destination of the log, "syslog" or "file", the lines that it did not take, and the time of the last one.
    """

    exits: list[Exits]
    durations: list[Duration]
    under_way: int
    dropped: Mapping[str, tuple[int, float]] = MappingProxyType({})


def totals(directory: str) -> JournalTotals:
    """Add up the journal in the state directory. Raises JournalError."""
    with opened_copy(directory) as database:
        exits: list[Exits] = []
        for row in rows(database, "total", _TOTALS):
            exits = _added(exits, _exits(*row.values()))
        durations = _durations(list(rows(database, "duration", _DURATIONS)))
        incomplete = _incomplete(database)
        dropped = _dropped(database)
    killed = _killed(directory, incomplete)
    for ingress, mode in sorted({(row["ingress"], row["way"]) for row in killed}):
        begins = [row["began"] for row in killed if (row["ingress"], row["way"]) == (ingress, mode)]
        exits = _added(exits, Exits(ingress, mode, None, KILLED, len(begins), 0, max(begins)))
    return JournalTotals(exits, durations, sum(row["alive"] for row in incomplete), dropped)


def records(directory: str, seconds: float) -> list[Record]:
    """Return the attempts that began in the last `seconds` and have ended, oldest first. Raises JournalError."""
    since = time.time() - seconds
    with opened_copy(directory) as database:
        attempts = [row for row in rows(database, "attempt", _ATTEMPTS) if row["began"] > since]
        incomplete = _incomplete(database)
    killed = {row["id"] for row in _killed(directory, incomplete)}
    attempts = [row for row in attempts if row["status"] is not None or row["id"] in killed]
    return [_record(row) for row in sorted(attempts, key=lambda row: (row["began"], row["id"]))]


def _incomplete(database: sqlite3.Connection) -> list[Row]:
    """Return the attempts without an end, each with the key "alive": whether it is still under way."""
    last: dict[Any, int] = {}
    incomplete = []
    for row in rows(database, "attempt", _BEGINS):
        last[row["pid"]] = max(row["id"], last.get(row["pid"], 0))
        if row["status"] is None:
            incomplete.append(row)
    return [{**row, "alive": last[row["pid"]] == row["id"] and _alive(row["pid"], row["began"])} for row in incomplete]


def _dropped(database: sqlite3.Connection) -> dict[str, tuple[int, float]]:
    """Return the lines that were dropped; the table is created with the first of them."""
    if not database.execute("SELECT count(*) FROM sqlite_master WHERE name = 'dropped'").fetchone()[0]:
        return {}
    return {row["destination"]: (row["lines"], row["last"]) for row in rows(database, "dropped", _DROPPED)}


def _killed(directory: str, incomplete: list[Row]) -> list[Row]:
    """Return those of the incomplete attempts that were killed, without those that ended while we looked."""
    dead = [row for row in incomplete if not row["alive"]]
    if not any(time.time() - row["began"] < _RECENT for row in dead):
        return dead
    time.sleep(_SETTLING)
    with opened_copy(directory) as database:
        ended = {row["id"] for row in rows(database, "attempt", _BEGINS) if row["status"] is not None}
    return [row for row in dead if row["id"] not in ended]


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


def _durations(rows: list[Row]) -> list[Duration]:
    durations = []
    for mode in dict.fromkeys(row["way"] for row in rows):
        for phase in PHASES:
            buckets = [row for row in rows if (row["way"], row["phase"]) == (mode, phase)]
            if buckets:
                counts = tuple(sum(row["attempts"] for row in buckets if row["bound"] <= bound) for bound in BOUNDS)
                durations.append(Duration(mode, phase, counts, sum(row["seconds"] for row in buckets)))
    return durations


def _record(row: Row) -> Record:
    names = set(Record._fields) - {"mode", "outcome", "seconds"}
    return Record(
        **{name: row[name] for name in names},
        mode=row["way"],
        outcome=_outcome(row["action"]),
        seconds={phase: row[phase] for phase in PHASES if row[phase] is not None},
    )
