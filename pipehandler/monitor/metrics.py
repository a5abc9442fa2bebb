"""What was observed, as metrics for Prometheus: the only module that knows prometheus_client.

METRICS is the list of them: names and units follow Prometheus' conventions, and the README shows the same list. A source that did
not answer leaves its metrics out (a number that is not known is not 0), and its `_up` metric says so. What answers has all its
series from the start, so that the first event of a kind is seen as an increase.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from pipehandler.parse.message import PARSER_VERSION

from .. import __version__
from ..mail.outcome import DUPLICATE, OUTAGE, TABLE
from ..mail.sysexits import EX_OK, NAMES
from ..postfix.postqueue import QUEUES
from ..record.journal import BOUNDS, KILLED
from ..runtime.stopwatch import PHASES
from .journal_totals import Exits, Tally
from .snapshot import Observation

_Values = dict[tuple[str, ...], float]

_INGRESS, _MODES = "pipe", ("cold", "resident")


class Described(NamedTuple):
    """One metric: its name, its type as Prometheus calls it, its labels, and its meaning for people."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


METRICS = {
    metric.name: metric
    for metric in (
        Described(
            "pipehandler_exits_total",
            "counter",
            ("ingress", "mode", "status", "name", "outcome"),
            "Attempts at a message that ended, by exit status, its name in sysexits.h, and outcome;"
            " killed: without a status.",
        ),
        Described(
            "pipehandler_received_bytes_total", "counter", ("ingress", "mode"), "Bytes of messages that were read."
        ),
        Described("pipehandler_duplicates_total", "counter", (), "Attempts that found their message stored before."),
        Described(
            "pipehandler_outage_refusals_total",
            "counter",
            (),
            "Attempts that were deferred at once because the outage breaker was open.",
        ),
        Described(
            "pipehandler_phase_duration_seconds",
            "histogram",
            ("mode", "phase"),
            "How long each phase of an attempt took.",
        ),
        Described("pipehandler_attempts_under_way", "gauge", (), "Attempts that have begun and not ended."),
        Described(
            "pipehandler_last_success_timestamp_seconds",
            "gauge",
            (),
            "When an attempt last ended with status 0; absent if none has.",
        ),
        Described(
            "pipehandler_outage", "gauge", (), "1 while the outage breaker is open: the database was found down."
        ),
        Described("pipehandler_journal_up", "gauge", (), "Whether the journal could be read (1) or not (0)."),
        Described("pipehandler_database_up", "gauge", (), "Whether the database answered (1) or not (0)."),
        Described("pipehandler_schema_version", "gauge", (), "The number of the newest migration in the database."),
        Described(
            "pipehandler_schema_version_expected", "gauge", (), "The number of the newest migration of this program."
        ),
        Described("pipehandler_quarantine_messages", "gauge", (), "Messages that are stored without being parsed."),
        Described(
            "pipehandler_quarantine_oldest_timestamp_seconds",
            "gauge",
            (),
            "When the oldest message in quarantine was received; absent if there is none.",
        ),
        Described(
            "pipehandler_expired_oldest_timestamp_seconds",
            "gauge",
            (),
            "Since when something has expired that was not removed yet; absent if there is nothing.",
        ),
        Described(
            "pipehandler_service_up", "gauge", (), "Whether the resident workers' service answered (1) or not (0)."
        ),
        Described("pipehandler_workers", "gauge", ("state",), "Resident workers that are free or busy."),
        Described("pipehandler_waiting_messages", "gauge", (), "Messages that wait for a free worker."),
        Described(
            "pipehandler_workers_replaced_total",
            "counter",
            ("reason",),
            "Workers that were replaced: spent (serve.max_messages, serve.max_growth, or a fault) or died.",
        ),
        Described(
            "pipehandler_service_congested_total",
            "counter",
            (),
            "Messages that the service deferred because no worker was free in time.",
        ),
        Described(
            "pipehandler_service_sent_back_total",
            "counter",
            (),
            "Messages that the service left to a cold delivery: other code, another configuration, or it was stopping.",
        ),
        Described("pipehandler_queue_up", "gauge", (), "Whether Postfix's queue could be listed (1) or not (0)."),
        Described("pipehandler_queue_messages", "gauge", ("queue",), "Messages in Postfix's queue."),
        Described(
            "pipehandler_queue_oldest_timestamp_seconds",
            "gauge",
            ("queue",),
            "When the oldest message in Postfix's queue arrived; absent if the queue is empty.",
        ),
        Described(
            "pipehandler_build_info",
            "gauge",
            ("version", "parser"),
            "1; its labels are the versions that are installed.",
        ),
    )
}
"""All metrics there are, by name."""


class _Observed(Collector):
    """Makes an observation each time it is collected."""

    def __init__(self, observe: Callable[[], Observation]) -> None:
        self._observe = observe

    def collect(self) -> Iterator[Metric]:
        yield from families(self._observe())


def exposition(observe: Callable[[], Observation]) -> bytes:
    """An observation in the text format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Observed(observe))
    return generate_latest(registry)


def families(seen: Observation) -> Iterator[Metric]:
    """The metrics that have at least one value, in the order of METRICS."""
    values = {**_of_journal(seen), **_of_database(seen), **_of_service(seen), **_of_queue(seen)}
    values["pipehandler_build_info"] = {(__version__, PARSER_VERSION): 1}
    for name, (_, kind, labels, meaning) in METRICS.items():
        if kind == "histogram":
            if seen.tally:
                yield _histogram(name, seen.tally)
        elif found := values.get(name):
            family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(name, meaning, labels=labels)
            for label_values, value in found.items():
                family.add_metric(label_values, value)
            yield family


def _of_journal(seen: Observation) -> dict[str, _Values]:
    found: dict[str, _Values] = {"pipehandler_journal_up": {(): seen.tally is not None}}
    if seen.tally is None:
        return found
    ended: Counter[tuple[str, ...]] = Counter()
    octets: Counter[tuple[str, ...]] = Counter()
    for mode in _MODES:
        ended[_INGRESS, mode, KILLED, KILLED, KILLED] = octets[_INGRESS, mode] = 0
        for row in TABLE:
            ended[_INGRESS, mode, str(row.status), NAMES[row.status], row.name] = 0
    for each in seen.tally.exits:
        ended[each.ingress, each.mode, *_status(each), each.outcome] += each.attempts
        octets[each.ingress, each.mode] += each.octets
    by_outcome: Counter[str] = Counter()
    for each in seen.tally.exits:
        by_outcome[each.outcome] += each.attempts
    last = [each.last for each in seen.tally.exits if each.status == EX_OK]
    return found | {
        "pipehandler_exits_total": dict(ended),
        "pipehandler_received_bytes_total": dict(octets),
        "pipehandler_duplicates_total": {(): by_outcome[DUPLICATE.name]},
        "pipehandler_outage_refusals_total": {(): by_outcome[OUTAGE.name]},
        "pipehandler_attempts_under_way": {(): seen.tally.under_way},
        "pipehandler_last_success_timestamp_seconds": {(): max(last)} if last else {},
        "pipehandler_outage": {
            (): seen.outage
        },  # in the same directory: who cannot read the one does not see the other
    }


def _status(exits: Exits) -> tuple[str, str]:
    """The labels status and name."""
    if exits.status is None:
        return KILLED, KILLED
    return str(exits.status), NAMES.get(exits.status, "")


def _histogram(name: str, tally: Tally) -> Metric:
    _, _, labels, meaning = METRICS[name]
    family = HistogramMetricFamily(name, meaning, labels=labels)
    counts = {(each.mode, each.phase): (each.counts, each.seconds) for each in tally.durations}
    never = (0,) * len(BOUNDS), 0.0
    for key in dict.fromkeys([*((mode, phase) for mode in _MODES for phase in PHASES), *counts]):
        cumulative, seconds = counts.get(key, never)
        buckets = [
            ("+Inf" if bound == float("inf") else str(bound), count)
            for bound, count in zip(BOUNDS, cumulative, strict=True)
        ]
        family.add_metric(key, buckets, seconds)
    return family


def _of_database(seen: Observation) -> dict[str, _Values]:
    found: dict[str, _Values] = {
        "pipehandler_database_up": {(): seen.health is not None},
        "pipehandler_schema_version_expected": {(): seen.schema_expected},
    }
    if seen.health:
        oldest, expired = seen.health.oldest_quarantined, seen.health.oldest_expired
        found["pipehandler_schema_version"] = {(): seen.health.schema_version}
        found["pipehandler_quarantine_messages"] = {(): seen.health.quarantined}
        found["pipehandler_quarantine_oldest_timestamp_seconds"] = {(): oldest.timestamp()} if oldest else {}
        found["pipehandler_expired_oldest_timestamp_seconds"] = {(): expired.timestamp()} if expired else {}
    return found


def _of_service(seen: Observation) -> dict[str, _Values]:
    found: dict[str, _Values] = {"pipehandler_service_up": {(): seen.service is not None}}
    if (told := seen.service) is not None:
        found["pipehandler_workers"] = {("free",): told["free"], ("busy",): told["busy"]}
        found["pipehandler_waiting_messages"] = {(): told["waiting"]}
        found["pipehandler_workers_replaced_total"] = {("spent",): told["replaced"], ("died",): told["died"]}
        found["pipehandler_service_congested_total"] = {(): told["congested"]}
        found["pipehandler_service_sent_back_total"] = {(): told["sent_back"]}
    return found


def _of_queue(seen: Observation) -> dict[str, _Values]:
    found: dict[str, _Values] = {"pipehandler_queue_up": {(): seen.queue is not None}}
    if seen.queue is not None:
        names = dict.fromkeys([*QUEUES, *seen.queue])
        found["pipehandler_queue_messages"] = {
            (name,): seen.queue[name].messages if name in seen.queue else 0 for name in names
        }
        found["pipehandler_queue_oldest_timestamp_seconds"] = {
            (name,): each.oldest for name, each in seen.queue.items()
        }
    return found
