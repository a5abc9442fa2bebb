"""The status of a mail host as text for operators, and as JSON for programs."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from pipehandler.mail.sysexits import EX_OK
from pipehandler.monitor.service_status import OTHER_NAMESPACE
from pipehandler.monitor.snapshot import Snapshot
from pipehandler.monitor.status import STATUSES, Status
from pipehandler.monitor.verdict import FLOWING, STOPPED, UNKNOWN

from .command import local
from .terminal import shorten, table

_BARS = "·▁▂▃▄▅▆▇█"
_REASONS = 3
_HEADLINES = {
    FLOWING: "Mail is flowing",
    STOPPED: "Mail is NOT flowing",
    UNKNOWN: "Whether mail is flowing is unknown",
}
_LOGS = {
    "file": ("log.file", "`pipehandler check`"),
    "syslog": ("syslog", "does a syslog daemon run here? log.file names a file for them"),
}
"""The destinations of the log, as operators call them, and what to do about lost lines."""

_OVERDUE = 600  # seconds after which expired mail should have been removed


def lines(status: Status) -> Iterator[str]:
    """Yield the status as text, in at most 100 columns where possible."""
    snapshot = status.snapshot
    yield headline(status)
    yield ""
    if status.counts:
        yield from table(
            ["ATTEMPTS", "STATUS", "HOUR", "BY 5 MINUTES", "DAY", "BY HOURS"],
            [
                [outcome, STATUSES.get(outcome, "-"), sum(hour), bars(hour), sum(day), bars(day)]
                for outcome, (hour, day) in status.counts.items()
            ],
        )
    elif snapshot.journal:
        yield "no delivery attempts in the last day"
    yield ""
    for name, text in _about(status):
        yield f"{name + ':' if name else '':<12}{text}"
    if status.failures:
        yield ""
        yield "LAST FAILURES"
    hinted: set[str] = set()
    for failure in status.failures:
        kind = " ".join(filter(None, [failure.outcome, failure.sqlstate]))
        queue_id = f", queue id {failure.queue_id}" if failure.queue_id else ""
        yield f"{kind}: {failure.hour} in the last hour, {failure.day} in the last day, last {_time(failure.last)}{queue_id}"
        if failure.reason:
            yield f"    {shorten(failure.reason, 160)}"
        if failure.hint not in hinted:
            yield f"    -> {failure.hint}"
            hinted.add(failure.hint)


def headline(status: Status) -> str:
    """Return the answer to: is mail flowing?"""
    state, reason, time = status.verdict
    return f"{_HEADLINES[state]}: {reason.replace('{time}', _time(time) if time else '')}"


def _about(status: Status) -> Iterator[tuple[str, str]]:
    """Yield everything but the attempts, as pairs of a name and a text."""
    snapshot, reasons = status.snapshot, status.snapshot.reasons
    if snapshot.journal is None:
        yield "Journal", f"not readable: {reasons['journal']}"
    else:
        last = max((exits.last for exits in snapshot.journal.exits if exits.status == EX_OK), default=None)
        yield "Delivered", f"last {_time(last)}" if last else "nothing yet"
        for destination, (count, at) in snapshot.journal.dropped.items():
            lost = "1 line was" if count == 1 else f"{count} lines were"
            name, hint = _LOGS.get(destination, (destination, ""))
            yield "Log", f"{lost} not taken by {name}, the last {_time(at)}: {hint}"
        if snapshot.journal.under_way:
            yield "Under way", f"{snapshot.journal.under_way} deliveries"
    if snapshot.health is None:
        state = "unknown" if "configuration" in reasons or snapshot.refused else "DOWN"
        yield "Database", reasons["database"] if snapshot.blocked else f"{state}: {reasons['database']}"
    else:
        version = snapshot.health.schema_version
        yield "Database", f"up, schema {version}{_schema_hint(version, snapshot.schema_expected)}"
        away = {number: why for number, why in enumerate(snapshot.health.shards) if why is not None}
        if snapshot.health.shards:
            yield "Shards", f"{len(snapshot.health.shards) - len(away)} of {len(snapshot.health.shards)} answer"
        for number, why in away.items():
            yield "", f"shard {number} does not, and its mail is deferred: {shorten(why, 160)}"
        if text := _servers(snapshot):
            yield "Servers", text
        oldest = snapshot.health.oldest_quarantined
        count = snapshot.health.quarantined
        since = f"{count}, the oldest from {_time(oldest.timestamp())}" if oldest else f"{count}" if count else "empty"
        yield "Quarantine", f"{since}: `pipehandler quarantine list`" if count else since
        expired = snapshot.health.oldest_expired
        if expired and status.now - expired.timestamp() > _OVERDUE:
            yield "Expired", f"not removed since {_time(expired.timestamp())}: is `pipehandler expire` running?"
        prepared = snapshot.health.days_prepared
        if prepared is not None and prepared < 2:
            day = "tomorrow" if prepared else "today"
            yield "Partitions", f"none for {day}: is `pipehandler expire` running?"
        if snapshot.health.held_since:
            since, deliveries = _time(snapshot.health.held_since.timestamp()), snapshot.health.held_deliveries
            much = (
                "an unknown part" if deliveries is None else f"{deliveries} of {snapshot.health.held_stored} deliveries"
            )
            yield "Retention", f"changed rules wait since {since}: they would remove something of {much} within a day"
            yield "", "correct them, or let them apply: `pipehandler expire --confirm`"
    if snapshot.outage:
        yield "Outage", "deliveries found the database down, and none has succeeded since"
    if snapshot.queue is None:
        yield "Queue", f"unknown: {reasons['queue']}"
    else:
        queues = [
            f"{queued.messages} {name}, the oldest from {_time(queued.oldest)}"
            for name, queued in snapshot.queue.items()
        ]
        down = "" if snapshot.postfix_running is not False else "Postfix does not run; "
        yield "Queue", down + ("; ".join(queues) or "empty")
        delays = Counter[str]()
        for queued in snapshot.queue.values():
            delays.update(queued.reasons)
        for reason, messages in delays.most_common(_REASONS):
            yield "", f"{messages} waiting: {shorten(reason, 120)}"
    if snapshot.service is None:
        yield "Workers", "none: every message is delivered cold"
    else:
        counts = snapshot.service
        yield (
            "Workers",
            (
                f"{counts['busy']} of {counts['workers']} busy, {counts['waiting']} messages waiting;"
                f" {counts['replaced']} replaced, {counts['died']} died since the start"
            ),
        )
        for what in status.workers_stale:
            yield "", f"they {what}: `pipehandler check`"
        if counts.get("other_namespace"):
            yield "", f"{counts['other_namespace']} messages were left to cold deliveries: {OTHER_NAMESPACE}"


def _servers(snapshot: Snapshot) -> str:
    """Return on how many servers acknowledged mail is, "" where no fail-over is planned or nothing is known."""
    found = snapshot.health.replication if snapshot.health else None
    expected = snapshot.servers_expected or 1
    if found is None or max(expected, found.servers) == 1:
        return ""
    by = "one server only" if found.servers == 1 else f"{found.servers} servers"
    if found.servers < expected:
        return f"acknowledged by {by}, {expected} are expected: `pipehandler check`"
    if found.away:
        return (
            f"a commit waits for {found.required} synchronous standbys, {found.synchronous} are connected:"
            " mail is deferred: `pipehandler check`"
        )
    return f"acknowledged by {by}"


def _schema_hint(version: int, expected: int) -> str:
    if version == expected:
        return ""
    todo = "`pipehandler migrate`" if version < expected else "install the newer pipehandler on this host"
    return f", but {expected} is expected: {todo}"


def bars(counts: Sequence[int]) -> str:
    """Return one bar for each count, the full height for the largest; a count above 0 is always visible."""
    largest = max(counts, default=0) or 1
    return "".join(_BARS[-(-count * (len(_BARS) - 1) // largest)] for count in counts)


def as_json(status: Status) -> dict[str, Any]:
    """Return the status as a JSON object."""
    snapshot = status.snapshot
    return {
        "time": datetime.fromtimestamp(status.now, UTC),
        "mail": status.verdict.state,
        "mail_text": headline(status),
        "attempts": {
            outcome: {
                "status": STATUSES.get(outcome),
                "hour": sum(hour),
                "day": sum(day),
                "by_5_minutes": hour,
                "by_hours": day,
            }
            for outcome, (hour, day) in status.counts.items()
        },
        "failures": [
            {**failure._asdict(), "last": datetime.fromtimestamp(failure.last, UTC)} for failure in status.failures
        ],
        "under_way": snapshot.journal.under_way if snapshot.journal else None,
        "log_lines_dropped": {name: count for name, (count, _) in snapshot.journal.dropped.items()}
        if snapshot.journal
        else None,
        "database": _database(snapshot),
        "schema_expected": snapshot.schema_expected,
        "outage": snapshot.outage,
        "postfix_running": snapshot.postfix_running,
        "queue": {name: queued._asdict() for name, queued in snapshot.queue.items()}
        if snapshot.queue is not None
        else None,
        "service": snapshot.service,
        "reasons": snapshot.reasons,
    }


def _database(snapshot: Snapshot) -> dict[str, Any] | None:
    if snapshot.health is None:
        return None
    found = snapshot.health.replication
    servers = {"servers": found.servers, "servers_expected": snapshot.servers_expected} if found else {}
    return {
        **snapshot.health._asdict(),
        "replication": {**found._asdict(), **servers} if found else None,
    }


def _time(seconds: float) -> str:
    return local(datetime.fromtimestamp(seconds, UTC))
