"""Which sessions another session waits for: observed from a second connection, because a waiting session cannot ask."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from .connection import Store
from .errors import StoreError

_INTERVAL = 0.5  # seconds

_SESSIONS = """
SELECT b.pid, coalesce(a.application_name, '') AS application, coalesce(a.usename::text, '') AS "user",
       coalesce(a.state, '') AS state, extract(epoch FROM clock_timestamp() - a.query_start)::float8 AS query_age
  FROM (SELECT DISTINCT pid FROM {pids}) AS b
  LEFT JOIN pg_stat_activity a ON a.pid = b.pid
 ORDER BY b.pid
"""
_BLOCKERS = _SESSIONS.format(pids="unnest(pg_blocking_pids(%s)) AS pid")

# A reader waits for a session that locks a table altogether, or that waits for this behind others.
_HOLDERS = _SESSIONS.format(
    pids="""(
    SELECT unnest(CASE WHEN l.granted THEN ARRAY[coalesce(l.pid, 0)] ELSE pg_blocking_pids(l.pid) || l.pid END) AS pid
      FROM pg_locks l
      JOIN pg_class c ON c.oid = l.relation
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_database d ON d.oid = l.database
     WHERE n.nspname = 'pipehandler' AND d.datname = current_database() AND l.mode = 'AccessExclusiveLock') AS locks"""
)


class Blocker(NamedTuple):
    """A session that holds a lock, or waits for one before us: its columns of pg_stat_activity, "" and None where the
    server does not show them. `query_age`: seconds since its last statement began. pid 0 is a prepared transaction."""

    pid: int
    application: str
    user: str
    state: str
    query_age: float | None

    def __str__(self) -> str:
        if not self.pid:
            return "a prepared transaction (see pg_prepared_xacts)"
        age = None if self.query_age is None else f"its last query began {self.query_age:.0f} s ago"
        known = (self.application, self.user and f"user {self.user}", self.state, age)
        return f"pid {self.pid} (" + ", ".join(word for word in known if word) + ")"


def holders(store: Store) -> list[Blocker]:
    """Return the sessions that a reader of our tables waits for, after it has given up. Raises StoreError."""
    return store.rows(_HOLDERS, row=Blocker)


class Blockers:
    """The sessions that were last seen blocking."""

    def __init__(self) -> None:
        self.seen: list[Blocker] = []


@contextmanager
def observed(store: Store) -> Iterator[Blockers]:
    """Observe what the session of `store` waits for while the block runs.

    Only an aid: without a second connection it sees nothing, and the block runs all the same. Raises StoreError where
    the session of `store` itself fails.
    """
    (pid,) = store.values("SELECT pg_backend_pid()", of=int)
    blockers = Blockers()
    ended = threading.Event()

    def observe() -> None:
        second = store.another()
        try:
            while not ended.wait(_INTERVAL):
                blockers.seen = second.rows(_BLOCKERS, [pid], row=Blocker) or blockers.seen
        except StoreError:
            return
        finally:
            second.close()

    observer = threading.Thread(target=observe, daemon=True)
    observer.start()
    try:
        yield blockers
    finally:
        ended.set()
        observer.join()
