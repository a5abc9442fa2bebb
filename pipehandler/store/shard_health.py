"""The state of the shards behind a proxy, each asked through the proxy; one that is away costs the others nothing."""

import re
import time
from contextlib import closing
from typing import Any

from ..mail.outcome import STORE_UNAVAILABLE
from .connection import Store
from .errors import INSUFFICIENT_PRIVILEGE, UNDEFINED_FUNCTION, StoreError
from .replication import Replication

_SHARDS = "SELECT s.shard FROM pipehandler.shards() AS s"
_HEALTH = "SELECT * FROM pipehandler.on_shard_health(%s)"

_SECONDS = 1
"""For one shard, whose server may be frozen."""

_ALL_SECONDS = 3.0
"""For all of them, as `metrics` has to answer before a scrape ends."""

_BY_PROXY = re.compile(r"^PL/Proxy function \S+: \[[^]]*\] (?:PQ\w+: )?")
"""What PL/Proxy puts in front of the reason."""


def of_shards(store: Store) -> dict[str, Any]:
    """The columns of Health, of all shards that answer. Raises StoreError where none does, or the proxy itself does not."""
    away: list[str | None] = []
    rows: list[dict[str, Any]] = []
    end = time.monotonic() + _ALL_SECONDS
    with closing(store.another(_SECONDS)) as asking:
        for shard in store.values(_SHARDS, of=int):
            if time.monotonic() > end:
                away.append("not asked: other shards took too long to answer")
                continue
            try:
                rows += asking.rows(_HEALTH, [shard])
                away.append(None)
            except StoreError as error:
                if error.sqlstate in (INSUFFICIENT_PRIVILEGE, UNDEFINED_FUNCTION) and not error.of_shard:
                    raise
                away.append(_BY_PROXY.sub("", str(error)))
    if not rows:
        raise StoreError(STORE_UNAVAILABLE, f"no shard answers: {away[0]}")
    fewest = min(rows, key=lambda row: (min(row["required"], row["synchronous"] or 0), row["connected"]))
    held = [row for row in rows if row["held_since"]]
    return {
        "schema_version": min(row["schema_version"] for row in rows),
        "quarantined": sum(row["quarantined"] for row in rows),
        "oldest_quarantined": _first(rows, "oldest_quarantined"),
        "oldest_expired": _first(rows, "oldest_expired"),
        "held_since": _first(rows, "held_since"),
        "held_deliveries": sum(row["held_deliveries"] or 0 for row in held) or None,
        "held_stored": sum(row["held_stored"] or 0 for row in held) or None,
        "replication": Replication(fewest["required"], fewest["synchronous"], fewest["connected"]),
        "days_prepared": min(row["days_prepared"] for row in rows),
        "shards": tuple(away),
    }


def _first(rows: list[dict[str, Any]], name: str) -> Any:
    return min((row[name] for row in rows if row[name] is not None), default=None)
