"""The health of the database, for roles that deliver or read: one call of the SQL function pipehandler.health."""

from datetime import datetime
from typing import NamedTuple

from .connection import Store


class Health(NamedTuple):
    """What the database reports.

    schema_version:     the number of the newest migration.
    quarantined:        messages in state failed.
    oldest_quarantined: when the first of them was received.
    oldest_expired:     the earliest expiry of what is still stored; None, too, from a schema that does not report it.
    """

    schema_version: int
    quarantined: int
    oldest_quarantined: datetime | None
    oldest_expired: datetime | None = None


def health(store: Store) -> Health:
    """Query the database. Raises StoreError; with 42883 or 3F000 the schema is older than this function."""
    (row,) = store.rows("SELECT * FROM pipehandler.health()")
    # A newer schema may return more.
    return Health(**{name: row[name] for name in Health._fields if name in row})
