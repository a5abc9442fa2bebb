"""Bring the schema up to date, under an advisory lock: so it is safe to run twice, and from two hosts at once.

What is pending is one transaction, all or nothing, unless a file has to run outside of one (CREATE INDEX CONCURRENTLY):
then it is a transaction before that file, the statements of all such files one by one, and a transaction after them. Each part
leaves a schema that every program works with, and the next run continues after the last one that was recorded. It never
overwrites what a newer program installed. No delivery waits for it for long: a lock that is not free within LOCK_TIMEOUT
is given up together with all others, and the part is tried again after a pause. `plan` is the same as a script for psql.
"""

import itertools
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

PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds between attempts; the last one stays."""

WAIT = 300.0
"""Seconds after which no further attempt is made."""

_LOCK = 0x70697065  # any number, the same everywhere; this is "pipe"

# Objects that other roles planted are not found, and no setting of a role or a database changes what the files do.
# SET is a statement of its own, so nothing can be planted in its place.
_SETTINGS = {
    "search_path": "pg_catalog, pg_temp",
    "standard_conforming_strings": "on",
    "client_min_messages": "warning",
    "datestyle": "'ISO, YMD'",
    "intervalstyle": "postgres",
    "timezone": "'UTC'",
    "check_function_bodies": "on",
    "quote_all_identifiers": "off",
    "default_transaction_isolation": "'read committed'",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "transform_null_equals": "off",
    "statement_timeout": "0",
    "lock_timeout": f"'{LOCK_TIMEOUT}'",
}
_NO_TRANSACTION_TIMEOUT = """
SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings
 WHERE name OPERATOR(pg_catalog.=) 'transaction_timeout';
"""  # PostgreSQL 17 and later
_SET = "".join(f"SET {name} = {value};\n" for name, value in _SETTINGS.items()) + _NO_TRANSACTION_TIMEOUT

_LOCKED = f"SELECT pg_catalog.pg_advisory_lock({_LOCK}::pg_catalog.int8);\n"

# Asked again and again: a session that waits for the lock has a snapshot, for which CREATE INDEX CONCURRENTLY in the session
# that holds the lock would wait in turn.
_TRY = f"SELECT pg_catalog.pg_try_advisory_lock({_LOCK}::pg_catalog.int8)"
_UNLOCK = f"SELECT pg_catalog.pg_advisory_unlock({_LOCK}::pg_catalog.int8)"
_LOCK_SECONDS = 5.0

# A build in the background holds no lock that a delivery waits for, but waits for all older transactions.
_BACKGROUND = "SET lock_timeout = '60s'"
_FOREGROUND = f"SET lock_timeout = '{LOCK_TIMEOUT}'"

# Mail that arrives from now on has partitions; `expire` creates further ones.
_DAYS = "SELECT pipehandler.create_days(1)"

_BUSY = frozenset({LOCK_NOT_AVAILABLE, DEADLOCK_DETECTED})
_OTHER_SHAPE = frozenset({INVALID_FUNCTION_DEFINITION, INVALID_TABLE_DEFINITION})

_PRESENT = """
SELECT pg_catalog.to_regclass('pipehandler.migration') IS NOT NULL AS migration,
       pg_catalog.to_regclass('pipehandler.code') IS NOT NULL AS code,
       pg_catalog.to_regclass('pipehandler.sharding') IS NOT NULL AS sharding,
       pg_catalog.to_regprocedure('pipehandler.code_objects()') IS NOT NULL
       AND pg_catalog.to_regprocedure('pipehandler.code_status()') IS NOT NULL AS status,
       pg_catalog.current_setting('server_encoding') AS encoding, pg_catalog.current_database() AS name,
       pg_catalog.current_setting('server_version_num')::pg_catalog.int4 OPERATOR(pg_catalog./) 10000 AS server
"""

# Whoever owns the schema may put triggers on its tables, which run with the rights of whoever migrates.
_STRANGER = """
SELECT owner.rolname AS owner, own.rolname AS role
  FROM pg_catalog.pg_namespace s
  JOIN pg_catalog.pg_database d ON d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
  JOIN pg_catalog.pg_roles owner ON owner.oid OPERATOR(pg_catalog.=) s.nspowner
  JOIN pg_catalog.pg_roles own ON own.rolname OPERATOR(pg_catalog.=) CURRENT_USER
 WHERE s.nspname OPERATOR(pg_catalog.=) 'pipehandler' AND owner.oid OPERATOR(pg_catalog.<>) own.oid
   AND NOT owner.rolsuper AND NOT pg_catalog.pg_has_role(owner.oid, d.datdba, 'MEMBER')
   AND (own.rolsuper OR NOT pg_catalog.pg_has_role(own.oid, owner.oid, 'MEMBER'))
"""


class MigrationError(Exception):
    """The schema cannot be migrated; the text gives the reason and the way out."""


class LocksNotFree(MigrationError):
    """Other sessions held locks for too long; a later attempt may succeed."""


def pending(store: Store) -> list[Step]:
    """What the database lacks: files of sql/schema, and the functions and views where they are older, missing or damaged.

    Raises MigrationError where the database has others than this program, StoreError where it cannot be asked.
    """
    for row in store.rows(_STRANGER):
        raise MigrationError(
            f"the schema pipehandler belongs to {row['owner']}, who is neither a superuser nor the owner of the database and"
            f" could have code run by {row['role']}; migrate as {row['owner']}, or drop the schema if it is not yours"
        )
    (present,) = store.rows(_PRESENT)
    if present["encoding"] != "UTF8":
        raise MigrationError(
            f"the database {present['name']} has the encoding {present['encoding']}, which cannot hold all mail; create one"
            " with createdb -E UTF8 -T template0"
        )
    steps: list[Step] = list(_pending_migrations(store) if present["migration"] else migrations())
    if steps or not present["code"] or _code_is_due(store, present):
        steps.append(code(present["sharding"] and _is_proxy(store)))
    return steps


def _is_proxy(store: Store) -> bool:
    return bool(store.rows("SELECT 1 AS one FROM pipehandler.sharding s WHERE s.shard IS NULL"))


def migrate(
    store: Store,
    report: Callable[[str], object] = lambda line: None,
    wait: float = WAIT,
    again: bool = False,
) -> list[Step]:
    """Apply what is pending, and return it. `report` is called with a line when locks are not free.

    wait: seconds for which it tries again then; an attempt that has begun is always finished. 0: there is one attempt.
    again: apply the functions, the views and all rights even if nothing is pending, and create the group roles that are
    missing: a dump has neither roles nor, where they are missing, rights.

    Raises LocksNotFree after that time, MigrationError and StoreError; then nothing was applied.
    """
    end = time.monotonic() + wait
    for attempt, pause in enumerate(itertools.chain(PAUSES, itertools.repeat(PAUSES[-1])), 1):
        with observed(store) as blockers:
            try:
                return _attempt(store, again)
            except StoreError as error:
                if error.sqlstate not in _BUSY:
                    raise
        waiting = _waiting(blockers)
        pause = min(pause, end - time.monotonic())  # the last one ends with the time
        if pause <= 0:
            raise LocksNotFree(
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
    before, outside, after = _divided(steps)
    text = [_SET, _LOCKED, "BEGIN;\n", preparation(), *(step.script() for step in before)]
    if outside:
        text += ["COMMIT;\n", "\n\n".join(outside), "\nBEGIN;\n"]
    return "".join([*text, *(step.script() for step in after), f"{_DAYS};\n", "COMMIT;\n"])


def _attempt(store: Store, again: bool) -> list[Step]:
    try:
        store.script(_SET)
        _lock(store)
        steps = pending(store) or ([code(_is_proxy(store))] if again else [])
        if steps:
            before, outside, after = _divided(steps)
            store.script("BEGIN")
            store.script(preparation())
            for step in before:
                _apply(store, step)
            if outside:
                store.script("COMMIT")
                _apply_outside(store, outside)
                store.script("BEGIN")
            for step in after:
                _apply(store, step)
            store.script(_DAYS)
            store.script("COMMIT")
        else:
            store.script(_DAYS)
        store.script(_UNLOCK)
    except BaseException:
        store.close()  # which rolls back, and gives the lock up
        raise
    return steps


def _lock(store: Store) -> None:
    """Become the only one that migrates. Raises StoreError like a statement that waits too long for a lock."""
    end = time.monotonic() + _LOCK_SECONDS
    while store.values(_TRY, of=bool) != [True]:
        if time.monotonic() > end:
            store.script(f"SET lock_timeout = '1s'; {_LOCKED}")  # waits, so that the session that holds it is seen
            return
        time.sleep(0.1)


def _divided(steps: Sequence[Step]) -> tuple[list[Step], list[str], list[Step]]:
    """The steps of a first transaction, the statements outside of one, and the steps of a second transaction.

    All statements outside of a transaction come together, because only the second transaction ends with the functions: a
    file may drop some of them for it.
    """
    files = [step for step in steps if isinstance(step, Migration) and step.concurrent]
    first = steps.index(files[0]) if files else 0
    return list(steps[:first]), [part for file in files for part in file.parts()], list(steps[first:])


def _apply_outside(store: Store, parts: Sequence[str]) -> None:
    for part in parts:
        store.script(_BACKGROUND if " CONCURRENTLY " in part else _FOREGROUND)
        store.script(part)
    store.script(_FOREGROUND)


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
