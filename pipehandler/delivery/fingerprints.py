"""Recompute the fingerprints of stored deliveries by the current rules, as far as their bytes are still stored.

Each message is one transaction. An interrupted run leaves each delivery with the fingerprint of either version; ingest
recognises both.
"""

from collections.abc import Iterator

from ..mail.fingerprint import fingerprint
from ..store.connection import Store

_BATCH = 100

_CHOSEN = """
  FROM pipehandler.delivery d
 WHERE d.fingerprint_version = 1 AND d.id > %(after)s::bigint
   AND EXISTS (SELECT FROM pipehandler.raw_message r WHERE r.day = d.day AND r.message = d.message)
"""
_IDS = f"SELECT d.id {_CHOSEN} ORDER BY d.id LIMIT {_BATCH}"
_COUNT = f"SELECT count(*) {_CHOSEN}"

_RAW = """
SELECT r.raw
  FROM pipehandler.raw_message r
  JOIN pipehandler.delivery d ON d.day = r.day AND d.message = r.message
 WHERE r.day = (SELECT o.day FROM pipehandler.delivery o WHERE o.id = %(delivery)s::bigint)
   AND d.id = %(delivery)s::bigint AND d.fingerprint_version = 1
"""

# Skip a delivery if another one of the same message has the current fingerprint: that one detects the same duplicates.
_UPDATE = """
UPDATE pipehandler.delivery d
   SET fingerprint = %(fingerprint)b::bytea, fingerprint_version = 2
 WHERE d.message = (SELECT o.message FROM pipehandler.delivery o WHERE o.id = %(delivery)s::bigint)
   AND d.fingerprint_version = 1
   AND NOT EXISTS (SELECT FROM pipehandler.delivery o
                    WHERE o.recipient = d.recipient AND o.fingerprint = %(fingerprint)b::bytea
                      AND coalesce(o.lease, 0) = coalesce(d.lease, 0))
RETURNING d.id
"""


def outdated(store: Store, after: int = 0) -> Iterator[int]:
    """Yield, in order, the numbers of deliveries above `after` that have a fingerprint of version 1 and their bytes."""
    while deliveries := store.values(_IDS, {"after": after}, of=int):
        yield from deliveries
        after = deliveries[-1]


def count(store: Store) -> int:
    """Count the deliveries that `outdated` yields."""
    return store.values(_COUNT, {"after": 0}, of=int)[0]


def renew(store: Store, delivery: int) -> int:
    """Renew the fingerprints of all deliveries of the same message as `delivery`; return their number.

    That is zero if the delivery is gone, was renewed before, or is left unchanged because a newer one of the same
    message exists. Raises StoreError; calling it again is safe.
    """
    rows = store.rows(_RAW, {"delivery": delivery}, binary=True)
    if not rows:
        return 0
    parameters = {"delivery": delivery, "fingerprint": fingerprint(rows[0]["raw"], 0)}
    return len(store.rows(_UPDATE, parameters, binary=True))
