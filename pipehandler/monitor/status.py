"""The status of a mail host: outcomes of the last hour and day, the latest failures, and what to do about them."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from ..mail import outcome
from ..mail.sysexits import EX_OK
from ..record.journal import KILLED
from ..store.errors import hint
from .journal_totals import Record
from .snapshot import Observation

DAY = 86_400
"""Seconds of records that a Status wants."""

_HOUR = 3_600
_FAILURES = 5
STATUSES = {each.name: str(each.status) for each in outcome.TABLE}
_ORDER = [*(each.name for each in outcome.TABLE), KILLED]

_CHECK = "`pipehandler check` says what is wrong, and the line that mends it"
_WAYS_OUT = {
    "store_unavailable": "the database does not do what it should: " + _CHECK,
    "outage": "refused without trying, because the database was down a moment before; it is tried again every two seconds",
    "store_full": "make room on the disk of the database, then `postqueue -f`",
    "misconfigured": _CHECK,
    "deadline": "the database or this host is slow; what waits in the database: SELECT * FROM pg_stat_activity",
    "congested": "more comes than the workers can do: raise serve.workers, or look for what makes the database slow",
    "truncated": "Postfix was stopped in the middle of a delivery; it delivers the message again",
    "fault": "this is our fault: the reason names the place in the program; please report it. The message is not lost",
    "exhausted": "the host is out of memory, descriptors or processes, or limits.memory is too small for this message",
    "unknown_recipient": "the recipient is not known here (any more), and the policy is to refuse",
    "too_large": "bounced: let message_size_limit in main.cf not be above limits.message_size",
    "quarantined": "stored as it is; `pipehandler quarantine list`, and after a mend `pipehandler reparse`",
    KILLED: "something killed the process: the kernel (`dmesg`), Postfix's time limit, or a person; it is delivered again",
}


class Failure(NamedTuple):
    """What went wrong in the last day, alike attempts together: how, why, how often in the last hour and day, when last
    (seconds since 1970), with which queue id, and what to do."""

    outcome: str
    sqlstate: str | None
    reason: str | None
    hour: int
    day: int
    last: float
    queue_id: str | None
    way_out: str


class Status(NamedTuple):
    """What is shown. counts: for each outcome that there was, the attempts of the last hour by five minutes, and of the last
    day by hours, oldest first."""

    now: float
    counts: dict[str, tuple[list[int], list[int]]]
    failures: list[Failure]
    seen: Observation


def status(records: Sequence[Record], seen: Observation, now: float | None = None) -> Status:
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
    return Status(now, counts, _failures(records, now), seen)


def _failures(records: Sequence[Record], now: float) -> list[Failure]:
    """Those that came last, newest first."""
    wrong = [record for record in records if record.status != EX_OK or record.outcome == outcome.QUARANTINED.name]
    day = Counter(map(_kind, wrong))
    hour = Counter(_kind(record) for record in wrong if now - record.began < _HOUR)
    newest = {_kind(record): record for record in sorted(wrong, key=lambda record: record.began)}
    return [
        Failure(*kind, hour[kind], day[kind], record.began, record.queue_id, way_out(record))
        for kind, record in sorted(newest.items(), key=lambda item: -item[1].began)[:_FAILURES]
    ]


def _kind(record: Record) -> tuple[str, str | None, str | None]:
    return record.outcome, record.sqlstate, record.reason


def way_out(record: Record) -> str:
    """What to do about a failure."""
    if record.outcome == outcome.STORE_UNAVAILABLE.name and (of_database := hint(record.sqlstate or "")):
        return of_database
    return _WAYS_OUT.get(record.outcome, _CHECK)
