"""Do the indexes still fit the rules by which the server compares text? docs/collation.md has what to do where not."""

from collections.abc import Iterator
from typing import Any

from pipehandler.store.connection import Store

from .finding import Finding
from .role import quoted

_DATABASE_VERSIONS = 150000  # pg_database.datcollversion came with PostgreSQL 15

_DATABASE = """
SELECT d.datname::text AS name, d.datcollversion AS recorded, pg_database_collation_actual_version(d.oid) AS actual
  FROM pg_database d
 WHERE d.datname = current_database()
"""

# Those that indexes of the schema use, and the one that pipehandler.canonical uses, and with it an index.
_COLLATIONS = """
SELECT quote_ident(n.nspname) || '.' || quote_ident(c.collname) AS name, c.collversion AS recorded,
       pg_collation_actual_version(c.oid) AS actual
  FROM pg_collation c
  JOIN pg_namespace n ON n.oid = c.collnamespace
 WHERE c.collversion IS NOT NULL
   AND (n.nspname = 'pipehandler'
        OR c.oid IN (SELECT unnest(i.indcollation)
                       FROM pg_index i
                       JOIN pg_class t ON t.oid = i.indrelid
                       JOIN pg_namespace s ON s.oid = t.relnamespace
                      WHERE s.nspname = 'pipehandler'))
 ORDER BY name
"""


def check_collation(store: Store, about: dict[str, Any]) -> Iterator[Finding]:
    """Compare the versions of collations that were recorded with those that the server has. about: as for check_server.

    Raises StoreError.
    """
    if about["number"] >= _DATABASE_VERSIONS:
        for row in store.rows(_DATABASE):
            if row["recorded"] is not None and row["recorded"] != row["actual"]:
                yield _changed(
                    f"the default collation of database {row['name']}",
                    row,
                    f"DATABASE {quoted(row['name'])} REFRESH COLLATION VERSION",
                )
    for row in store.rows(_COLLATIONS):
        if row["recorded"] != row["actual"]:
            yield _changed(f"collation {row['name']}", row, f"COLLATION {row['name']} REFRESH VERSION")


def _changed(what: str, row: dict[str, Any], refresh: str) -> Finding:
    return Finding(
        "collation",
        f"{what} had version {row['recorded']} when it was created, the server now has {row['actual'] or 'none'}",
        "Indexes may be in another order than the server expects, and not find duplicates and leases: see docs/collation.md.",
        f"REINDEX (CONCURRENTLY) SCHEMA pipehandler; ALTER {refresh};",
    )
