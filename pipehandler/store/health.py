"""How the database goes, for whoever may deliver or read: one call of the SQL function pipehandler.health."""

from datetime import datetime
from typing import NamedTuple

from .connection import Store


class Health(NamedTuple):
    """schema_version: the number of the newest migration. quarantined: messages in state failed; oldest_quarantined: when the
    first of them was received. oldest_expired: since when something has expired that is still stored; not known to an older schema."""

    schema_version: int
    quarantined: int
    oldest_quarantined: datetime | None
    oldest_expired: datetime | None = None


def health(store: Store) -> Health:
    """Ask the database. Raises StoreError; with SQLSTATE 42883 or 3F000 the schema is older than this function."""
    (row,) = store.rows("SELECT * FROM pipehandler.health()")
    return Health(**row)
