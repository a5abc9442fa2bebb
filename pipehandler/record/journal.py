"""The journal: one record for each attempt on this mail host, even while the database is down, even if the attempt is killed.

An SQLite file in the state directory, which many processes write at the same time. A record holds the time, the outcome and the
durations, never an address or content. It is inserted when an attempt begins and completed when it ends; one that stays
incomplete was killed. Old records are deleted and the totals stay, so that counters never run backwards. A journal that cannot
be written changes no delivery; the attempt is then missing. monitor/journal_totals.py reads it.

The columns `way` and `action` and the table `told` keep the names of 0.1.0, because the previous release must be able to write
to the same file; everything that is shown calls them mode and outcome.
"""

import os
import sqlite3
import stat
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from ..mail.outcome import Result
from ..runtime.stopwatch import PHASES
from .leftovers import remove_leftovers

_T = TypeVar("_T")

NAME = "journal.sqlite"
"""The file in the state directory."""

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, float("inf"))
"""Upper bounds, in seconds, of the buckets in which the durations of phases are counted."""

KILLED = "killed"
"""The outcome of an attempt that never ended."""

_DAYS = 8
_RECORDS = 100_000
_TRIM_EVERY = 1_000  # attempts
_LOCK_TIMEOUT = 0.25  # seconds to wait for another process that is writing
_CHECKPOINT = 100  # pages in the write-ahead log, which the next process to open the file may have to read

_BESIDE = ("-wal", "-shm", "-journal")  # SQLite's own files

_WRITE_SECONDS = 1.0  # after which a statement is given up
_LARGEST_VALUE = 10_000_000  # octets; of ours none has 10,000
_STEPS = 100_000  # of SQLite's virtual machine, between two looks at the clock; a write takes fewer

# ERROR: other tables; AUTH: a view or a trigger, which our journal has not; CONSTRAINT: values that ours would accept
_BROKEN = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
    }
)

_SCHEMA = f"""
PRAGMA journal_mode = WAL;
CREATE TABLE attempt (
    id INTEGER PRIMARY KEY AUTOINCREMENT, began REAL NOT NULL, pid INTEGER NOT NULL, ingress TEXT NOT NULL, way TEXT NOT NULL,
    queue_id TEXT, status INTEGER, action TEXT, code TEXT, sqlstate TEXT, size INTEGER, message TEXT, reason TEXT,
    {", ".join(f"{phase} REAL" for phase in PHASES)}
);
CREATE INDEX attempt_began ON attempt (began);
CREATE TABLE total (
    ingress TEXT, way TEXT, status INTEGER, action TEXT, attempts INTEGER NOT NULL, octets INTEGER NOT NULL, last REAL NOT NULL,
    PRIMARY KEY (ingress, way, status, action)
) WITHOUT ROWID;
CREATE TABLE duration (
    way TEXT, phase TEXT, bound REAL, attempts INTEGER NOT NULL, seconds REAL NOT NULL, PRIMARY KEY (way, phase, bound)
) WITHOUT ROWID;
CREATE TABLE told (fault TEXT PRIMARY KEY, at REAL NOT NULL) WITHOUT ROWID;
"""

_BEGIN = "INSERT INTO attempt (began, pid, ingress, way, queue_id) VALUES (?, ?, ?, ?, ?)"
_END = f"""
UPDATE attempt SET status = ?, action = ?, code = ?, sqlstate = ?, size = ?, message = ?, reason = ?,
       {", ".join(f"{phase} = ?" for phase in PHASES)}
 WHERE id = ?
"""  # noqa: S608 # the names are our own
_FIND_UNFINISHED = "SELECT max(id) FROM attempt WHERE pid = ? AND queue_id IS ? AND status IS NULL"
_REPORT = "INSERT INTO told VALUES (?, ?) ON CONFLICT DO UPDATE SET at = excluded.at WHERE at <= ? OR at > ?"
_ADD_TOTAL = """
INSERT INTO total VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET attempts = attempts + excluded.attempts, octets = octets + excluded.octets, last = max(last, excluded.last)
"""
_ADD_DURATION = """
INSERT INTO duration VALUES (?, ?, ?, 1, ?)
ON CONFLICT DO UPDATE SET attempts = attempts + 1, seconds = seconds + excluded.seconds
"""
_DROPPED = (
    "CREATE TABLE IF NOT EXISTS dropped (destination TEXT PRIMARY KEY, lines INTEGER NOT NULL, last REAL NOT NULL)"
)
"""Lines of the log that a destination did not take. Not in the schema: a journal of version 0.1.0 gets it when it is needed."""
_DROP = "INSERT INTO dropped VALUES (?, 1, ?) ON CONFLICT DO UPDATE SET lines = lines + 1, last = excluded.last"
_OLD = "SELECT max(coalesce((SELECT max(id) FROM attempt WHERE began < ?), 0), (SELECT max(id) FROM attempt) - ?)"
_KILLED = """
SELECT ingress, way, -1, ?, count(*), 0, max(began) FROM attempt WHERE status IS NULL AND id <= ? GROUP BY ingress, way
"""


class Journal:
    """The journal in one state directory, for one process. No method raises an error of the file, or for a value that it cannot
    hold."""

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, NAME)
        self._connection: sqlite3.Connection | None = None
        self._until = 0.0  # time.monotonic() at which a statement is given up
        self._opened: os.stat_result | None = None

    def begin(self, ingress: str, mode: str, queue_id: str, started: float) -> int | None:
        """Record that an attempt begins in this process, and return its number for `end`; None if that failed.

        started: time.monotonic() when it began.
        """
        began = time.time() - time.monotonic() + started
        values = began, os.getpid(), ingress, mode, queue_id or None
        return self._write(lambda database: database.execute(_BEGIN, values).lastrowid)

    def find_unfinished(self, pid: int, queue_id: str) -> int | None:
        """Return the number of the attempt that a dead process began and did not end; None if there is none."""
        return self._write(lambda database: database.execute(_FIND_UNFINISHED, (pid, queue_id or None)).fetchone()[0])

    def end(
        self,
        entry: int | None,
        ingress: str,
        mode: str,
        result: Result,
        size: int | None,
        seconds: dict[str, float],
        dropped: Sequence[str] = (),
    ) -> None:
        """Record that an attempt has ended. size: octets that were read. seconds: the duration of each phase that it reached.

        dropped: the destinations of the log that did not take its line.
        """
        outcome = result.outcome
        texts = result.sqlstate or None, size, result.message or None, result.reason or None
        columns = outcome.status, outcome.name, outcome.code, *texts

        def write(database: sqlite3.Connection) -> None:
            database.execute(_END, (*columns, *(seconds.get(phase) for phase in PHASES), entry))
            database.execute(_ADD_TOTAL, (ingress, mode, outcome.status, outcome.name, 1, size or 0, time.time()))
            for phase, spent in seconds.items():
                database.execute(_ADD_DURATION, (mode, phase, BOUNDS[bisect_left(BOUNDS, spent)], spent))
            if entry is not None and entry % _TRIM_EVERY == 0:
                _trim(database)
            _drop(database, dropped)

        self._write(write)

    def count_dropped(self, destinations: Sequence[str]) -> None:
        """Count a line of the log that these destinations did not take."""
        self._write(lambda database: _drop(database, destinations))

    def should_report(self, fault: str, seconds: float) -> bool:
        """Return whether `fault` was not reported on this host in the last `seconds`; if so, it now counts as reported."""
        now = time.time()
        values = fault, now, now - seconds, now
        return bool(self._write(lambda database: database.execute(_REPORT, values).rowcount > 0))

    def close(self) -> None:
        """Close the file, which must not be open when the process forks."""
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _write(self, work: Callable[[sqlite3.Connection], _T]) -> _T | None:
        """Run `work` in a transaction and return its result; None if the journal cannot be written.

        A file that is not a journal is moved aside, so that the next attempt creates a new one.
        """
        try:
            self._until = time.monotonic() + _WRITE_SECONDS
            if self._connection is not None and not self._has_name():
                self.close()
            database = self._connection or self._open()
            database.execute("BEGIN IMMEDIATE")
            result = work(database)
            database.execute("COMMIT")
        except (sqlite3.Error, OSError, MemoryError, UnicodeError, OverflowError) as error:
            # The last two: a value that SQLite does not take.
            self.close()
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _BROKEN:
                self._put_aside()
            return None
        except BaseException:
            self.close()  # which rolls back
            raise
        return result

    def _has_name(self) -> bool:
        """Return whether the open file is the one in the state directory, which someone may have emptied."""
        try:
            return self._opened is not None and os.path.samestat(os.stat(self._path), self._opened)
        except FileNotFoundError:
            return False

    def _open(self) -> sqlite3.Connection:
        remove_leftovers(os.path.dirname(self._path))
        if any(_is_special(self._path + suffix) for suffix in ("", *_BESIDE)):
            self._put_aside()
        if not os.path.exists(self._path):
            self._create()
        self._connection = sqlite3.connect(self._path, timeout=_LOCK_TIMEOUT, isolation_level=None)
        self._opened = os.stat(self._path)
        self._connection.execute("PRAGMA trusted_schema = OFF")
        self._connection.setlimit(
            sqlite3.SQLITE_LIMIT_LENGTH, _LARGEST_VALUE
        )  # a computed column might take any memory
        self._connection.set_authorizer(_authorize)
        self._connection.set_progress_handler(self._is_late, _STEPS)
        # A power failure may cost the last records, but never the file.
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT}")
        return self._connection

    def _is_late(self) -> bool:
        return time.monotonic() > self._until

    def _create(self) -> None:
        """Create the file under another name and link it into place, so that it is complete even if several processes do so."""
        temporary = f"{self._path}.{os.getpid()}"
        try:
            database = sqlite3.connect(temporary, isolation_level=None)
            try:
                database.executescript(_SCHEMA)
            finally:
                database.close()
            with suppress(FileExistsError):
                os.link(temporary, self._path)
        finally:
            with suppress(OSError):
                os.unlink(temporary)

    def _put_aside(self) -> None:
        with suppress(OSError):
            os.replace(self._path, f"{self._path}.broken")
        for suffix in _BESIDE:  # the new file must not use those of the old one
            with suppress(OSError):
                os.unlink(self._path + suffix)


def _is_special(path: str) -> bool:
    """Whether SQLite might wait for a FIFO there, or follow a link."""
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _authorize(_: int, __: str | None, ___: str | None, ____: str | None, source: str | None) -> int:
    """Let no view and no trigger run, `source`: whoever may write the file could put them there."""
    return sqlite3.SQLITE_OK if source is None else sqlite3.SQLITE_DENY


def _drop(database: sqlite3.Connection, destinations: Sequence[str]) -> None:
    if destinations:
        database.execute(_DROPPED)
        database.executemany(_DROP, [(destination, time.time()) for destination in destinations])


def _trim(database: sqlite3.Connection) -> None:
    """Delete old records. Those of killed attempts are not in the totals yet, so they are added first."""
    (last,) = database.execute(_OLD, (time.time() - _DAYS * 86_400, _RECORDS)).fetchone()
    database.executemany(_ADD_TOTAL, database.execute(_KILLED, (KILLED, last)).fetchall())
    database.execute("DELETE FROM attempt WHERE id <= ?", (last,))
