"""Check that the partitions of today and tomorrow are there. `expire` creates them; only where a table that is not attached
has the name of one, it cannot."""

import os
from collections.abc import Iterator
from datetime import date, timedelta

from pipehandler.postfix.templates import PROGRAM
from pipehandler.store.connection import Store
from pipehandler.store.errors import INSUFFICIENT_PRIVILEGE, StoreError
from pipehandler.store.health import health

from .finding import Finding

# Also where DETACH PARTITION ... CONCURRENTLY was interrupted: no row can go there any more.
_NOT_ATTACHED = """
SELECT o.name, c.relname::text AS leaf, o.day, i.inhrelid IS NOT NULL AS is_pending
  FROM (SELECT t.name, n.day, t.name || to_char(n.day, '_YYYYMMDD') AS leaf
          FROM unnest(ARRAY['message', 'raw_message', 'attachment']) AS t (name),
               LATERAL (SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date + d AS day FROM generate_series(0, 1) AS d) AS n) AS o
  JOIN pg_class c ON c.relnamespace = 'pipehandler'::regnamespace AND c.relname = o.leaf
  LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
 WHERE i.inhrelid IS NULL OR i.inhdetachpending
 ORDER BY o.day, o.name
"""

_UNITS = "pipehandler-expire.service pipehandler-expire.timer"


def check_days(store: Store, path: str) -> Iterator[Finding]:
    """Report missing partitions of today and tomorrow. path: of the configuration. Raises StoreError."""
    try:
        prepared = health(store).days_prepared
    except StoreError as error:
        if error.sqlstate != INSUFFICIENT_PRIVILEGE:  # which check_role reports
            raise
        return
    if prepared is None or prepared >= 2:
        return
    missing = f"the tables have no partitions for {'tomorrow' if prepared else 'today'} (UTC): "
    detached = store.rows(_NOT_ATTACHED)
    yield Finding(
        "partition-missing",
        missing + ", ".join(f"pipehandler.{each['leaf']} is not attached" for each in detached)
        if detached
        else f"{missing}`pipehandler expire` creates them",
        "Nothing is deferred: such mail is stored without a day. Retention removes it row by row, at a much greater cost.",
        " ".join(_attach(**each) for each in detached) or start_expire(path),
    )


def _attach(name: str, leaf: str, day: date, is_pending: bool) -> str:
    table = f"ALTER TABLE pipehandler.{name}"
    finalize = f"{table} DETACH PARTITION pipehandler.{leaf} FINALIZE; " if is_pending else ""
    bounds = f"FROM ('{day}') TO ('{day + timedelta(days=1)}')"
    return f"{finalize}{table} ATTACH PARTITION pipehandler.{leaf} FOR VALUES {bounds};"


def start_expire(path: str) -> str:
    """Return the command that runs `expire` from now on, with the configuration at `path`."""
    return (
        f"for unit in {_UNITS}; do {PROGRAM} --config {path} postfix $unit > /etc/systemd/system/$unit; done"
        " && systemctl enable --now pipehandler-expire.timer"
        if os.path.isdir("/run/systemd/system")
        else "# run `pipehandler expire --every 60` under your supervisor, or `pipehandler expire` from cron"
    )
