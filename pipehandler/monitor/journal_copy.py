"""A private copy of the journal, for reading it: the state directory belongs to the handler's account, which may be taken over.

Whoever controls that directory can put a link, a FIFO or a file without end in place of the journal, or a database with views,
triggers and expressions that SQLite would run, and can change all of it while it is read. So the file and its write-ahead log are
copied: opened without following links and without blocking, if they are regular files of bounded size. SQLite sees only the copy,
which nothing else changes, executes nothing but queries of the tables, and stops after a limited time.
"""

import fcntl
import os
import sqlite3
import stat
import struct
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..record.journal import NAME

TABLES = ("attempt", "total", "duration", "dropped")
"""The tables that are read. The last is created with its first row."""

_LARGEST = 256 << 20  # octets; 100,000 records take less than 50 million
_SECONDS = 3.0  # of CPU time for all queries; 100,000 records take less than one
_LOCK_SECONDS = 0.2
_STEPS = 10_000  # of SQLite's virtual machine, between two looks at the clock

_CHECKPOINT_LOCK = 121  # the octet of the -shm file that a checkpoint locks (sqlite.org/walformat.html, 2.3.1)

_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 1_000_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 10_000,
    sqlite3.SQLITE_LIMIT_COLUMN: 100,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 50,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 5,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 1,
}


class JournalError(Exception):
    """The journal cannot be read; the text says why and what to do."""


@contextmanager
def opened_copy(directory: str) -> Iterator[sqlite3.Connection]:
    """Open a copy of the journal in the state directory. Raises JournalError, also for errors of SQLite inside the context."""
    path = os.path.join(os.path.abspath(directory), NAME)
    try:
        with tempfile.TemporaryDirectory(prefix="pipehandler-") as folder:
            _copy(directory, folder)
            database = sqlite3.connect(os.path.join(folder, NAME), isolation_level=None)
            try:
                _restrict(database)
                yield database
            finally:
                database.close()
    except FileNotFoundError as error:
        raise JournalError(f"{path}: there is no journal yet; the first delivery creates it") from error
    except (sqlite3.Error, OSError) as error:
        text = error.strerror if isinstance(error, OSError) else str(error)
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
            text = f"reading it takes more than {_SECONDS:g} s"
        raise JournalError(
            f"{path}: {text}; run this as root or as the account of the transport; a broken journal is replaced"
            " by the next delivery"
        ) from error
    except JournalError as error:
        raise JournalError(
            f"{path}: {error}; pipehandler writes no such journal: move it away, and the next delivery creates a new one"
        ) from error


def _copy(directory: str, folder: str) -> None:
    """Copy the file and its write-ahead log while no checkpoint moves pages from one to the other."""
    source = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _no_checkpoint(source):
            _copy_file(source, NAME, folder)
            with suppress(FileNotFoundError):
                _copy_file(source, f"{NAME}-wal", folder)
    finally:
        os.close(source)


def _open(directory: int, name: str) -> int:
    """Open a regular file of the directory."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, dir_fd=directory)
    except OSError as error:
        if stat.S_ISREG(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise
        raise JournalError(f"{name} is not a regular file") from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise JournalError(f"{name} is not a regular file")
    return file


def _copy_file(directory: int, name: str, folder: str) -> None:
    file = _open(directory, name)
    try:
        size = os.fstat(file).st_size
        if size > _LARGEST:
            raise JournalError(f"{name} has {size} octets, more than {_LARGEST}")
        with Path(folder, name).open("wb") as copy:
            while (left := size - copy.tell()) > 0 and (octets := os.read(file, min(left, 1 << 20))):
                copy.write(octets)
    finally:
        os.close(file)


@contextmanager
def _no_checkpoint(directory: int) -> Iterator[None]:
    """Hold SQLite's lock on checkpoints, if it can be had: a delivery that would make one goes on without."""
    try:
        file = _open(directory, f"{NAME}-shm")
    except (OSError, JournalError):
        yield  # no process has the journal open, or it is not SQLite's file
        return
    try:
        until = time.monotonic() + _LOCK_SECONDS
        while not _locked(file) and time.monotonic() < until:
            time.sleep(0.01)
        yield
    finally:
        os.close(file)


def _locked(file: int) -> bool:
    # A lock of this open file, not of the process, which may write to the journal as well.
    lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, _CHECKPOINT_LOCK, 1, 0)
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)
    except OSError:
        return False
    return True


def _restrict(database: sqlite3.Connection) -> None:
    """Let SQLite do nothing but read the tables, and see that they are tables without expressions."""
    until = time.thread_time() + _SECONDS
    for category, limit in _LIMITS.items():
        database.setlimit(category, limit)
    database.set_progress_handler(lambda: time.thread_time() > until, _STEPS)
    database.row_factory = sqlite3.Row
    database.text_factory = lambda octets: octets.decode("utf-8", "replace")
    for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0", "query_only = ON"):
        database.execute(f"PRAGMA {pragma}")
    for table in TABLES:
        kinds = database.execute("SELECT type, sql FROM sqlite_master WHERE name = ? LIMIT 2", (table,)).fetchall()
        if table == "dropped" and not kinds:
            continue
        if len(kinds) != 1 or kinds[0]["type"] != "table" or "virtual" in str(kinds[0]["sql"]).lower():
            raise JournalError(f"{table} is not a table")
        if any(column["hidden"] for column in database.execute(f"PRAGMA table_xinfo({table})")):
            raise JournalError(f"the table {table} has columns that are computed")
    database.set_authorizer(_authorize)


def _authorize(action: int, first: str | None, _: str | None, __: str | None, source: str | None) -> int:
    """Allow SQLite's actions for a query of the tables; `source`: the view or trigger that wants it."""
    allowed = (
        action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_FUNCTION)
        or (action == sqlite3.SQLITE_READ and first in (*TABLES, "sqlite_master"))
    ) and source is None
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY
