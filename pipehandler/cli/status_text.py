"""The status of a mail host as text for people, and as JSON for programs."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from pipehandler.mail.sysexits import EX_OK
from pipehandler.monitor.status import STATUSES, Status

from .terminal import cut, table

_BARS = "·▁▂▃▄▅▆▇█"
_REASONS = 3
_OVERDUE = 600  # seconds after which what has expired should have been removed


def lines(status: Status) -> Iterator[str]:
    """The status as text, with no more than 100 columns where that can be."""
    seen = status.seen
    if status.counts:
        yield table(
            ["ATTEMPTS", "STATUS", "HOUR", "BY 5 MINUTES", "DAY", "BY HOURS"],
            [
                [outcome, STATUSES.get(outcome, "-"), sum(hour), bars(hour), sum(day), bars(day)]
                for outcome, (hour, day) in status.counts.items()
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
        what = " ".join(filter(None, [failure.outcome, failure.sqlstate]))
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
