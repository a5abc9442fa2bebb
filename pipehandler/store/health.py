"""The state of the database, for every role that may deliver or read: the SQL functions health and code_status."""

import time
from datetime import datetime
from typing import Any, NamedTuple

from .connection import Store
from .errors import UNDEFINED_FUNCTION, StoreError
from .message_store import IS_PROXY
from .readable import Unreadable, tolerant_rows
from .replication import Replication, replication
from .shard_health import of_shards


class Health(NamedTuple):
    """What the database reports.

    schema_version:     the number of the newest migration.
    quarantined:        messages in state failed.
    oldest_quarantined: when the first of them was received.
    oldest_expired:     the earliest expiry of what is still stored; None, too, from a schema that does not report it.
    clock_difference:   seconds that the clock of the database is ahead of ours (negative: behind), 0 where the time of the
                        round trip hides it.
    held_since:         since when changed rules of retention wait for `pipehandler expire --confirm`; None: none do.
    held_deliveries:    how many deliveries they would remove something of; held_stored: of how many. None where that is not
                        known.
    replication:        the standbys; None from a schema that does not report them. Of several shards, those of the one whose
                        mail is on the fewest servers.
    days_prepared:      of how many days, from today (UTC) on, the partitions are there; None from a schema without them. Of
                        several shards, the fewest.
    shards:             why each shard is away, None if it answers; empty where the database is not the proxy of shards. The
                        numbers are those of the shards that answer, added up.
    """

    schema_version: int
    quarantined: int
    oldest_quarantined: datetime | None
    oldest_expired: datetime | None = None
    clock_difference: float = 0.0
    held_since: datetime | None = None
    held_deliveries: int | None = None
    held_stored: int | None = None
    replication: Replication | None = None
    days_prepared: int | None = None
    shards: tuple[str | None, ...] = ()


_HELD = (
    "SELECT since AS held_since, deliveries AS held_deliveries, stored AS held_stored FROM pipehandler.retention_held()"
)
_DAYS_PREPARED = "SELECT pipehandler.days_prepared()"
_CLOCK = (
    "SELECT extract(epoch FROM pg_catalog.clock_timestamp())::pg_catalog.float8 AS clock,"  # noqa: S608 # a constant
    f" {IS_PROXY} AS is_proxy"
)


def health(store: Store) -> Health:
    """Query the database. Raises StoreError; with 42883 or 3F000 the schema is older than this function."""
    store.connect()
    before = time.time()
    (now,) = store.rows(_CLOCK)
    difference = max(now["clock"] - time.time(), 0.0) + min(now["clock"] - before, 0.0)
    if now["is_proxy"]:
        return Health(**of_shards(store), clock_difference=difference)
    (row,) = tolerant_rows(store, "SELECT * FROM pipehandler.health()")
    try:
        row |= next(iter(tolerant_rows(store, _HELD)), {})
    except StoreError as error:
        if error.sqlstate != UNDEFINED_FUNCTION:  # the schema is older
            raise
    # A newer schema may return more. A time that no datetime can hold is as good as none.
    values: dict[str, Any] = {
        name: None if isinstance(row[name], Unreadable) else row[name] for name in Health._fields if name in row
    }
    values["clock_difference"] = difference
    try:
        values["replication"] = replication(store)
        (values["days_prepared"],) = store.values(_DAYS_PREPARED, of=int)
    except StoreError as error:
        if error.sqlstate != UNDEFINED_FUNCTION:  # the schema is older
            raise
    return Health(**values)


_CODE_STATUS = "SELECT version, checksum, server, digest, damaged, unknown FROM pipehandler.code_status()"


class CodeStatus(NamedTuple):
    """The functions and views of the schema.

    version:  of the sql/code that `migrate` applied last.
    checksum: of the same, SHA-256 in hexadecimal.
    server:   the major version of PostgreSQL that it was applied on.
    digest:   of what is there now.
    damaged:  what is missing, or differs from what was applied, as "function NAME(TYPES)" or "view NAME".
    unknown:  what was not applied by `migrate`.
    """

    version: int
    checksum: str
    server: int
    digest: str
    damaged: list[str]
    unknown: list[str]


def code_status(store: Store) -> CodeStatus | None:
    """Compare the functions and views with those that `migrate` applied; None where it never recorded any.

    Raises StoreError; with SQLSTATE 42883 the schema is older than this function, or the function was dropped.
    """
    rows = store.rows(_CODE_STATUS, row=CodeStatus)
    return rows[0] if rows else None


_DATA_STATUS = "SELECT incomplete, doubled FROM pipehandler.data_status()"


class DataStatus(NamedTuple):
    """What is not as it should be among the rows.

    incomplete: deliveries whose message or bytes are missing although retention has not removed them.
    doubled:    rows of pipehandler.doubled.
    """

    incomplete: int
    doubled: int


def data_status(store: Store) -> DataStatus:
    """Query the database, which reads all deliveries. Raises StoreError; with 42883 the schema is older than this function."""
    (row,) = store.rows(_DATA_STATUS, row=DataStatus)
    return row
