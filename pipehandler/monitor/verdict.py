"""Is mail flowing? One answer from all sources, for the first line of `status` and for its exit status."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from ..mail.sysexits import EX_DATAERR, EX_NOUSER, EX_OK
from .journal_totals import Record
from .snapshot import Snapshot

FLOWING, STOPPED, UNKNOWN = "flowing", "stopped", "unknown"

_PATIENCE = 60
"""Seconds for which a message may be in the queue before it counts as waiting."""

_ELSEWHERE = re.compile(
    r"connect to |\bsaid:|Host or domain name|name service|conversation with|lost connection|refused to talk",
    re.IGNORECASE,
)
"""Postfix's reasons for mail that waits for another host."""


class Verdict(NamedTuple):
    """state: FLOWING, STOPPED or UNKNOWN. reason: what it follows from; times in it are seconds since 1970, as {time}."""

    state: str
    reason: str
    time: float | None = None


def verdict(records: Sequence[Record], snapshot: Snapshot, now: float) -> Verdict:
    """Judge from the records of the last day and the snapshot: the first reason that is certain decides."""
    reasons = snapshot.reasons
    if "configuration" in reasons:
        return Verdict(
            STOPPED,
            f"every message is deferred, because the configuration cannot be loaded: {reasons['configuration']}",
        )
    if snapshot.postfix_running is False:
        return Verdict(STOPPED, "Postfix does not run: `postfix start`")
    if snapshot.outage:
        return Verdict(STOPPED, "deliveries find the database down")
    if snapshot.health is None and not snapshot.refused and not snapshot.blocked:
        return Verdict(STOPPED, "the database does not answer")
    ended = max(
        (record for record in records if record.status is not None), key=lambda record: record.began, default=None
    )
    last = _last_success(snapshot)
    if ended and ended.status != EX_OK and ended.status not in _BOUNCED and (last is None or last < ended.began):
        return Verdict(STOPPED, f"the last attempt, at {{time}}, was deferred: {ended.outcome}", ended.began)
    if waiting := _waiting(snapshot, last, now):
        return waiting
    unavailable = [name for name in ("journal", "queue") if name in reasons]
    if unavailable and last is None:
        return Verdict(UNKNOWN, f"the {' and the '.join(unavailable)} cannot be read; run this as root")
    if last is None:
        return Verdict(FLOWING, "nothing has arrived yet, and nothing is in its way")
    return Verdict(FLOWING, "last delivered at {time}", last)


_BOUNCED = (EX_DATAERR, EX_NOUSER)
"""Statuses that return a message by a policy: the delivery worked."""


def _last_success(snapshot: Snapshot) -> float | None:
    exits = snapshot.journal.exits if snapshot.journal else []
    return max((each.last for each in exits if each.status == EX_OK), default=None)


def _waiting(snapshot: Snapshot, last: float | None, now: float) -> Verdict | None:
    """Return that mail for this host waits in the queue, if nothing was delivered since the oldest of it came."""
    for name in ("incoming", "active", "deferred"):
        queued = (snapshot.queue or {}).get(name)
        if queued is None or now - queued.oldest < _PATIENCE or (last is not None and last > queued.oldest):
            continue
        ours = [reason for reason in queued.reasons if not _ELSEWHERE.search(reason)]
        if ours or not queued.reasons:
            return Verdict(
                STOPPED, f"{queued.messages} messages wait in the queue, the oldest since {{time}}", queued.oldest
            )
    return None
