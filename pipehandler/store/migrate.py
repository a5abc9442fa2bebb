"""Migrations: the numbered SQL files under sql/, applied in order, each once, all or nothing.

The whole run is one transaction under an advisory lock, so it is safe to run twice and from two hosts at once. What was applied
is recorded with a checksum in pipehandler.migration: a file that was changed afterwards is an error, and so is a
database that is newer than this program. `plan` is the same as a script for psql.
"""

from hashlib import sha256
from typing import NamedTuple

from ..settings.data_files import data_files
from .connection import Store

_LOCK = 0x70697065  # any number will do, the same everywhere; this is "pipe"

_BEGIN = f"""
BEGIN;
SELECT pg_advisory_xact_lock({_LOCK});
"""

_RECORD = """
CREATE SCHEMA IF NOT EXISTS pipehandler;
CREATE TABLE IF NOT EXISTS pipehandler.migration (
    version    integer     PRIMARY KEY,
    name       text        NOT NULL,
    checksum   text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    applied_by text        NOT NULL DEFAULT session_user
);
COMMENT ON TABLE pipehandler.migration IS 'The SQL files that were applied to this schema, recorded by pipehandler migrate.';
COMMENT ON COLUMN pipehandler.migration.version IS 'The number at the begin of the file name.';
COMMENT ON COLUMN pipehandler.migration.name IS 'The file name.';
COMMENT ON COLUMN pipehandler.migration.applied_at IS 'When it was applied.';
COMMENT ON COLUMN pipehandler.migration.applied_by IS 'The role that applied it.';
COMMENT ON COLUMN pipehandler.migration.checksum IS 'SHA-256 of the file, in hexadecimal.';
"""


class MigrationError(Exception):
    """The schema cannot be migrated; the text says why and what to do."""


class Migration(NamedTuple):
    """One file of sql/: its number, its name, and what is in it."""

    version: int
    name: str
    statements: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file, in hexadecimal."""
        return sha256(self.statements.encode()).hexdigest()

    def script(self) -> str:
        """The statements of the file, and the one that records it."""
        record = (
            "INSERT INTO pipehandler.migration (version, name, checksum)"  # noqa: S608 # all three are our own
            f" VALUES ({self.version}, '{self.name}', '{self.checksum}');"
        )
        return f"-- {self.name}\n{self.statements}\n{record}\n"


def migrations() -> list[Migration]:
    """All migrations there are, in order."""
    found = [file for file in (data_files("sql") / "schema").iterdir() if file.name.endswith(".sql")]
    return sorted(Migration(int(file.name[:4]), file.name, file.read_text("utf-8")) for file in found)


def pending(store: Store) -> list[Migration]:
    """The migrations that the database lacks.

    Raises MigrationError where it has others than these, StoreError where it cannot be asked.
    """
    known = {migration.version: migration for migration in migrations()}
    there = store.rows("SELECT to_regclass('pipehandler.migration') IS NOT NULL AS there")[0]["there"]
    applied = store.rows("SELECT version, name, checksum FROM pipehandler.migration") if there else []
    for row in applied:
        migration = known.pop(row["version"], None)
        if migration is None:
            raise MigrationError(
                f"the database has {row['name']}, which this version does not know; install the newer pipehandler here"
            )
        if migration.checksum != row["checksum"]:
            raise MigrationError(
                f"{row['name']} was changed after it was applied (it has {migration.checksum}, the database"
                f" {row['checksum']}); put the released file back"
            )
    return [known[version] for version in sorted(known)]


def migrate(store: Store) -> list[Migration]:
    """Apply what is pending, in one transaction, and return it. Raises MigrationError and StoreError."""
    store.script(_BEGIN)
    try:
        todo = pending(store)
        if todo:
            store.script(_RECORD)
        for migration in todo:
            store.script(migration.script())
    except BaseException:
        store.close()  # which rolls back
        raise
    store.script("COMMIT")
    return todo


def plan(store: Store) -> str:
    """What `migrate` would do now, as a script for psql. Raises MigrationError and StoreError."""
    todo = pending(store)
    if not todo:
        return ""
    return "".join([_BEGIN, _RECORD, *(migration.script() for migration in todo), "COMMIT;\n"])
