"""How it goes, for a person: what the attempts of the last hour and day came to, what stands in the way, and what to do."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ..cli.terminal import cut, table
from ..mail import outcome
from ..mail.sysexits import EX_OK
from ..record.journal import KILLED
from .journal_totals import Record
from .snapshot import Observation

DAY = 86_400
"""Seconds of records that a Status wants."""

_HOUR = 3_600
_BARS = "·▁▂▃▄▅▆▇█"
_FAILURES = 5
_REASONS = 3
_OVERDUE = 600  # seconds after which what has expired should have been removed
_STATUSES = {each.action: str(each.status) for each in outcome.TABLE}
_ORDER = [*(each.action for each in outcome.TABLE), KILLED]

_CHECK = "`pipehandler check` says what is wrong, and the line that mends it"
_WAYS_OUT = {
    "store_unavailable": "the database does not do what it should: " + _CHECK,
    "outage": "refused without trying, because the database was down a moment before; it is tried again every two seconds",
    "store_full": "make room on the disk of the database, then `postqueue -f`",
    "misconfigured": _CHECK,
    "deadline": "the database or this host is slow; what waits in the database: SELECT * FROM pg_stat_activity",
    "congested": "more comes than the workers can do: raise serve.workers, or look for what makes the database slow",
    "cut": "Postfix was stopped in the middle of a delivery; it delivers the message again",
    "fault": "this is our fault: the reason names the place in the program; please report it. The message is not lost",
    "exhausted": "the host is out of memory, descriptors or processes, or limits.memory is too small for this message",
    "unknown_recipient": "the recipient is not known here (any more), and the policy is to refuse",
    "too_large": "bounced: let message_size_limit in main.cf not be above limits.message_size",
    "quarantined": "stored as it is; `pipehandler quarantine list`, and after a mend `pipehandler reparse`",
    KILLED: "something killed the process: the kernel (`dmesg`), Postfix's time limit, or a person; it is delivered again",
}
_BY_SQLSTATE = {
    "28": "the role of the handler may not log in: pg_hba.conf, or the passfile. " + _CHECK,
    "3D": "there is no such database: create it, or mend database.conninfo",
    "3F": "the schema is missing: `pipehandler migrate`",
    "42501": "the role of the handler lacks a right: " + _CHECK,
    "42": "the schema is missing or older than this program: `pipehandler migrate`",
    "53300": "all connections of the database are in use: raise max_connections, or lower maxproc and serve.workers",
    "25006": "the database can only be read; name all servers in database.conninfo, with target_session_attrs=read-write",
    "57014": "the database was too slow, or waited for a lock: SELECT * FROM pg_stat_activity",
    "57P03": "the database is starting or recovering; wait, or look at its log",
    "40": "others lock the same rows; it is tried again",
    "55P03": "others lock the same rows; what waits: SELECT * FROM pg_stat_activity",
}
"""For store_unavailable, by SQLSTATE or its class."""


class Failure(NamedTuple):
    """What went wrong in the last day, alike attempts together: how, why, how often in the last hour and day, when last
    (seconds since 1970), with which queue id, and what to do."""

    action: str
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
    for record in sorted(records, key=lambda record: _ORDER.index(record.action) if record.action in _ORDER else -1):
        hour, day = counts.setdefault(record.action, ([0] * 12, [0] * 24))
        age = max(0.0, now - record.began)
        if age < DAY:
            day[23 - int(age // _HOUR)] += 1
        if age < _HOUR:
            hour[11 - int(age // 300)] += 1
    return Status(now, counts, _failures(records, now), seen)


def _failures(records: Sequence[Record], now: float) -> list[Failure]:
    """Those that came last, newest first."""
    wrong = [record for record in records if record.status != EX_OK or record.action == outcome.QUARANTINED.action]
    day = Counter(map(_kind, wrong))
    hour = Counter(_kind(record) for record in wrong if now - record.began < _HOUR)
    newest = {_kind(record): record for record in sorted(wrong, key=lambda record: record.began)}
    return [
        Failure(*kind, hour[kind], day[kind], record.began, record.queue_id, way_out(record))
        for kind, record in sorted(newest.items(), key=lambda item: -item[1].began)[:_FAILURES]
    ]


def _kind(record: Record) -> tuple[str, str | None, str | None]:
    return record.action, record.sqlstate, record.reason


def way_out(record: Record) -> str:
    """What to do about a failure."""
    code = record.sqlstate or ""
    if record.action == outcome.STORE_UNAVAILABLE.action:
        for key in (code, code[:2]):
            if key in _BY_SQLSTATE:
                return _BY_SQLSTATE[key]
    return _WAYS_OUT.get(record.action, _CHECK)


def lines(status: Status) -> Iterator[str]:
    """The status as text, with no more than 100 columns where that can be."""
    seen = status.seen
    if status.counts:
        yield table(
            ["ATTEMPTS", "STATUS", "HOUR", "BY 5 MINUTES", "DAY", "BY HOURS"],
            [
                [action, _STATUSES.get(action, "-"), sum(hour), bars(hour), sum(day), bars(day)]
                for action, (hour, day) in status.counts.items()
            ],
        )
    elif seen.tally:
        yield "no attempt at a message in the last day"
    yield ""
    for name, text in _about(status):
        yield f"{name + ':' if name else '':<12}{text}"
    if status.failures:
        yield ""
        yield "WHAT WENT WRONG LAST"
    for failure in status.failures:
        what = " ".join(filter(None, [failure.action, failure.sqlstate]))
        queue_id = f", queue id {failure.queue_id}" if failure.queue_id else ""
        yield f"{what}: {failure.hour} in the last hour, {failure.day} in the day, last {_time(failure.last)}{queue_id}"
        if failure.reason:
            yield f"    {cut(failure.reason, 160)}"
        yield f"    -> {failure.way_out}"


def _about(status: Status) -> Iterator[tuple[str, str]]:
    """Everything but the attempts: a name and what is to be said."""
    seen, reasons = status.seen, status.seen.reasons
    if seen.tally is None:
        yield "Journal", f"not readable: {reasons['journal']}"
    else:
        last = max((each.last for each in seen.tally.exits if each.status == EX_OK), default=None)
        yield "Delivered", f"last {_time(last)}" if last else "nothing yet"
        if seen.tally.under_way:
            yield "Under way", f"{seen.tally.under_way} deliveries"
    if seen.health is None:
        yield "Database", f"DOWN: {reasons['database']}"
    else:
        version = seen.health.schema_version
        old = (
            ""
            if version == seen.schema_expected
            else f", but {seen.schema_expected} is expected: `pipehandler migrate`"
        )
        yield "Database", f"up, schema {version}{old}"
        oldest = seen.health.oldest_quarantined
        many = f"{seen.health.quarantined}, the oldest of {_time(oldest.timestamp())}" if oldest else "empty"
        yield "Quarantine", f"{many}: `pipehandler quarantine list`" if oldest else many
        expired = seen.health.oldest_expired
        if expired and status.now - expired.timestamp() > _OVERDUE:
            yield "Expired", f"not removed since {_time(expired.timestamp())}: does `pipehandler expire` run?"
    if seen.outage:
        yield "Outage", "deliveries found the database down, and none has succeeded since"
    if seen.queue is None:
        yield "Queue", f"not known: {reasons['queue']}"
    else:
        each = [
            f"{queued.messages} {name}, the oldest of {_time(queued.oldest)}" for name, queued in seen.queue.items()
        ]
        yield "Queue", "; ".join(each) or "empty"
        often = Counter[str]()
        for queued in seen.queue.values():
            often.update(queued.reasons)
        for reason, messages in often.most_common(_REASONS):
            yield "", f"{messages} wait: {cut(reason, 120)}"
    if seen.service is None:
        yield "Workers", "none: every message is delivered cold"
    else:
        told = seen.service
        yield (
            "Workers",
            (
                f"{told['busy']} of {told['workers']} busy, {told['waiting']} messages waiting;"
                f" {told['replaced']} replaced, {told['died']} died since the start"
            ),
        )


def bars(counts: Sequence[int]) -> str:
    """Small bars, the highest for the greatest count; a count that is not 0 is never invisible."""
    most = max(counts, default=0) or 1
    return "".join(_BARS[-(-count * (len(_BARS) - 1) // most)] for count in counts)


def as_json(status: Status) -> dict[str, Any]:
    """The same for programs."""
    seen = status.seen
    return {
        "time": datetime.fromtimestamp(status.now, UTC),
        "attempts": {
            action: {
                "status": _STATUSES.get(action),
                "hour": sum(hour),
                "day": sum(day),
                "by_5_minutes": hour,
                "by_hours": day,
            }
            for action, (hour, day) in status.counts.items()
        },
        "failures": [
            {**failure._asdict(), "last": datetime.fromtimestamp(failure.last, UTC)} for failure in status.failures
        ],
        "under_way": seen.tally.under_way if seen.tally else None,
        "database": seen.health._asdict() if seen.health else None,
        "schema_expected": seen.schema_expected,
        "outage": seen.outage,
        "queue": {name: queued._asdict() for name, queued in seen.queue.items()} if seen.queue is not None else None,
        "service": seen.service,
        "reasons": seen.reasons,
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds")
