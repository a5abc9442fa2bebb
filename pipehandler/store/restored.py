"""What a restored database needs, behind `pipehandler restored`: no number that was given out before is given out again,
and nothing waits for transactions of another cluster.

Each step can run again. The last one records the cluster, so that `check` asks until all have run.
"""

from collections.abc import Iterator
from typing import NamedTuple

from .connection import Store

DUMP, CLUSTER, TIMELINE = "dump", "cluster", "timeline"
"""Why a database needs it: its tables come from a dump; another cluster has them; a standby was promoted, or the cluster
recovered to a point in time."""


class Moved(NamedTuple):
    """A sequence, the last number that it may have given out as far as this database knows, and the next one."""

    sequence: str
    before: int
    after: int


def changed(store: Store) -> str | None:
    """Why `pipehandler restored` should run, None if it need not. Raises StoreError; with 42883 the schema is older."""
    (reason,) = store.values("SELECT changed FROM pipehandler.cluster_status()", of=lambda value: value)
    return None if reason is None else str(reason)


def move_numbers(store: Store) -> list[Moved]:
    """Let every sequence go on with numbers that were never given out. Raises StoreError."""
    return store.rows("SELECT sequence, before, after FROM pipehandler.move_numbers()", row=Moved)


def replace_cursors(store: Store) -> bool:
    """Refuse the cursors of the stream that were returned in another cluster; whether there is one. Raises StoreError."""
    (prefix,) = store.values("SELECT pipehandler.replace_cursors()", of=lambda value: value)
    return prefix is not None


def adopt_deliveries(store: Store) -> Iterator[int]:
    """Take over the deliveries with transaction numbers of another cluster; yields how many in each batch. Raises StoreError."""
    while adopted := store.values("SELECT pipehandler.adopt_deliveries()", of=int)[0]:
        yield adopted


def record(store: Store) -> None:
    """This cluster is the right one from now on. Raises StoreError."""
    store.script("SELECT pipehandler.record_cluster()")
