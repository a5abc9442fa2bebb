"""The status of a mail host: outcomes of the last hour and day, the latest failures, and what to do about them."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ..mail import outcome
from ..mail.sysexits import EX_OK
from ..record.journal import KILLED
from ..store.hints import hint
from .journal_totals import Record
from .snapshot import Snapshot
from .verdict import Verdict, verdict

DAY = 86_400
"""Seconds of records that `status` takes."""

STATUSES = {row.name: str(row.status) for row in outcome.TABLE}
"""The exit status of each outcome, as text."""

_HOUR = 3_600
_FAILURES = 5
_ORDER = [*(row.name for row in outcome.TABLE), KILLED]

_CHECK = "`pipehandler check` reports the problem, and a command that fixes it"
_HINTS = {
    "store_unavailable": "the database failed: " + _CHECK,
    "outage": "deferred without trying, because the database was down a moment before; it is tried again every two seconds",
    "store_full": "free space on the disk of the database, then `postqueue -f`",
    "misconfigured": _CHECK,
    "deadline": "the database or this host is slow; to see what the database waits for: SELECT * FROM pg_stat_activity",
    "congested": "more mail, or large mail, arrives at once than the host can deliver: raise serve.workers, or find what is slow",
    "truncated": "Postfix was stopped in the middle of a delivery; it delivers the message again",
    "fault": "this is a bug: the reason names the place in the program; please report it. The message is not lost",
    "exhausted": "the host is out of memory, descriptors or processes, or limits.memory is too small for this message",
    "unknown_recipient": "the recipient has no lease, or no longer has one, and recipients.policy or .expired rejects it",
    "too_large": "bounced: message_size_limit in main.cf must not exceed limits.message_size",
    "quarantined": "stored without being parsed: `pipehandler quarantine list`; after a fix, `pipehandler reparse`",
    KILLED: "the process was killed by the kernel (`dmesg`), Postfix's time limit, or a person; the message is delivered again",
}
"""What to do, by outcome."""


class Failure(NamedTuple):
    """Failed attempts of the last day with the same outcome, SQLSTATE and reason.

    hour, day: their number in the last hour and in the last day. last, queue_id: the time of the newest (in seconds since 1970)
    and its queue id. hint: what to do.
    """

    outcome: str
    sqlstate: str | None
    reason: str | None
    hour: int
    day: int
    last: float
    queue_id: str | None
    hint: str


class Status(NamedTuple):
    """The status of a mail host at the time `now`.

    counts: for each outcome that occurred, the attempts of the last hour in steps of five minutes, and those of the last day
    in steps of an hour, oldest first. failures: the latest, newest first. verdict: whether mail is flowing.
    workers_stale: see service_status.stale.
    """

    now: float
    counts: dict[str, tuple[list[int], list[int]]]
    failures: list[Failure]
    snapshot: Snapshot
    verdict: Verdict
    workers_stale: tuple[str, ...] = ()


def status(records: Sequence[Record], snapshot: Snapshot, now: float | None = None) -> Status:
    """Add up the `records` of the last DAY."""
    now = time.time() if now is None else now
    counts: dict[str, tuple[list[int], list[int]]] = {}
    for record in sorted(records, key=lambda record: _ORDER.index(record.outcome) if record.outcome in _ORDER else -1):
        hour, day = counts.setdefault(record.outcome, ([0] * 12, [0] * 24))
        age = max(0.0, now - record.began)
        if age < DAY:
            day[23 - int(age // _HOUR)] += 1
        if age < _HOUR:
            hour[11 - int(age // 300)] += 1
    return Status(now, counts, _failures(records, now), snapshot, verdict(records, snapshot, now))


def _failures(records: Sequence[Record], now: float) -> list[Failure]:
    """Group the failed attempts and return the latest groups, newest first."""
    failed = [record for record in records if record.status != EX_OK or record.outcome == outcome.QUARANTINED.name]
    day = Counter(map(_kind, failed))
    hour = Counter(_kind(record) for record in failed if now - record.began < _HOUR)
    newest = {_kind(record): record for record in sorted(failed, key=lambda record: record.began)}
    return [
        Failure(*kind, hour[kind], day[kind], record.began, record.queue_id, failure_hint(record))
        for kind, record in sorted(newest.items(), key=lambda item: -item[1].began)[:_FAILURES]
    ]


def _kind(record: Record) -> tuple[str, str | None, str | None]:
    return record.outcome, record.sqlstate, record.reason


def failure_hint(record: Record) -> str:
    """Return what to do about a failed attempt."""
    if record.outcome == outcome.STORE_UNAVAILABLE.name and (database_hint := hint(record.sqlstate or "")):
        return database_hint
    if record.outcome == outcome.MISCONFIGURED.name and (record.reason or "").startswith(outcome.INCOMPLETE):
        return "create the environment again, in a new folder, and rename a link to it (docs/upgrade.md)"
    return _HINTS.get(record.outcome, _CHECK)
