"""Bring the schema up to date: all or nothing, in one transaction under an advisory lock.

So it is safe to run twice, and from two hosts at once. It never overwrites what a newer program installed. No delivery
waits for it for long: a lock that is not free within LOCK_TIMEOUT is given up together with all others, and the whole
transaction is tried again after a pause. `plan` is the same as a script for psql.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from .blockers import Blockers, observed
from .connection import Store
from .errors import (
    DEADLOCK_DETECTED,
    INVALID_FUNCTION_DEFINITION,
    INVALID_TABLE_DEFINITION,
    LOCK_NOT_AVAILABLE,
    StoreError,
)
from .sql_files import Migration, Step, code, migrations, preparation

LOCK_TIMEOUT = "5s"
"""So long the migration waits for a lock, and so long a delivery may wait behind it. As PostgreSQL writes it."""

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, *[30.0] * 10)
"""Seconds between attempts; after the last one it gives up."""

_LOCK = 0x70697065  # any number, the same everywhere; this is "pipe"

# Nothing is waited for before the timeout is set.
_BEGIN = f"""
BEGIN;
SET LOCAL lock_timeout = '{LOCK_TIMEOUT}';
SELECT pg_advisory_xact_lock({_LOCK});
"""

_BUSY = frozenset({LOCK_NOT_AVAILABLE, DEADLOCK_DETECTED})
_OTHER_SHAPE = frozenset({INVALID_FUNCTION_DEFINITION, INVALID_TABLE_DEFINITION})

_PRESENT = """
SELECT to_regclass('pipehandler.migration') IS NOT NULL AS migration,
       to_regclass('pipehandler.code') IS NOT NULL AS code,
       to_regprocedure('pipehandler.code_objects()') IS NOT NULL
       AND to_regprocedure('pipehandler.code_status()') IS NOT NULL AS status,
       current_setting('server_version_num')::integer / 10000 AS server
"""


class MigrationError(Exception):
    """The schema cannot be migrated; the text gives the reason and the way out."""


def pending(store: Store) -> list[Step]:
    """What the database lacks: files of sql/schema, and the functions and views where they are older, missing or damaged.

    Raises MigrationError where the database has others than this program, StoreError where it cannot be asked.
    """
    (present,) = store.rows(_PRESENT)
    steps: list[Step] = list(_pending_migrations(store) if present["migration"] else migrations())
    if steps or not present["code"] or _code_is_due(store, present):
        steps.append(code())
    return steps


def migrate(
    store: Store, report: Callable[[str], object] = lambda line: None, pauses: Sequence[float] = PAUSES
) -> list[Step]:
    """Apply what is pending, and return it. `report` is called with a line when locks are not free.

    Raises MigrationError and StoreError; then nothing was applied.
    """
    for attempt, pause in enumerate([*pauses, None], 1):
        with observed(store) as blockers:
            try:
                return _attempt(store)
            except StoreError as error:
                if error.sqlstate not in _BUSY:
                    raise
        waiting = _waiting(blockers)
        if pause is None:
            raise MigrationError(
                f"{waiting}; gave up after {attempt} attempt{'s' if attempt > 1 else ''}, and nothing was changed"
            )
        report(f"{waiting}; the next attempt is in {pause:g} s")
        time.sleep(pause)
    raise AssertionError("unreachable")


def plan(store: Store) -> str:
    """What `migrate` would do now, as a script for psql. Raises MigrationError and StoreError."""
    steps = pending(store)
    if not steps:
        return ""
    return "".join([_BEGIN, preparation(), *(step.script() for step in steps), "COMMIT;\n"])


def _attempt(store: Store) -> list[Step]:
    try:
        store.script(_BEGIN)
        steps = pending(store)
        if steps:
            store.script(preparation())
        for step in steps:
            _apply(store, step)
        store.script("COMMIT")
    except BaseException:
        store.close()  # which rolls back
        raise
    return steps


def _apply(store: Store, step: Step) -> None:
    try:
        store.script(step.script())
    except StoreError as error:
        if isinstance(step, Migration) or error.sqlstate not in _OTHER_SHAPE:
            raise
        raise MigrationError(
            f"a function or view was replaced by one that `migrate` cannot replace again: {error}; drop it first"
            " (`pipehandler check` names those that differ)"
        ) from error


def _pending_migrations(store: Store) -> list[Migration]:
    known = {migration.version: migration for migration in migrations()}
    for row in store.rows("SELECT version, name, checksum FROM pipehandler.migration"):
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


def _code_is_due(store: Store, present: dict[str, Any]) -> bool:
    """Whether the functions and views are to be applied again, though no file of sql/schema is pending."""
    recorded = store.rows("SELECT version, checksum, server FROM pipehandler.code ORDER BY version DESC LIMIT 1")
    if not recorded:
        return True
    own, (row,) = code(), recorded
    if row["version"] > own.version:
        raise MigrationError(
            f"the database has version {row['version']} of the functions and views, this program has {own.version};"
            " install the newer pipehandler here"
        )
    if row["version"] == own.version and row["checksum"] != own.checksum:
        raise MigrationError(
            f"the database has version {own.version} of the functions and views from another build of pipehandler"
            f" (checksum {row['checksum']}, not {own.checksum}); install the released files here, or there"
        )
    if row["version"] < own.version or row["server"] != present["server"] or not present["status"]:
        return True
    return bool(store.rows("SELECT damaged FROM pipehandler.code_status()")[0]["damaged"])


def _waiting(blockers: Blockers) -> str:
    if not blockers.seen:
        return f"a lock was not free within {LOCK_TIMEOUT}"
    sessions = ", ".join(map(str, blockers.seen))
    return f"a lock was not free within {LOCK_TIMEOUT}; it is held by {sessions}"
