"""Turn a snapshot into the text format of Prometheus; the only module that uses prometheus_client.

A source that does not answer has no metrics (an unknown number is not 0), and its `_up` metric is 0. A source that answers
has all its series from the start, so that the first event of a kind shows as an increase.
"""

from collections import Counter
from collections.abc import Callable, Iterator

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
from .journal_totals import Exits, JournalTotals
from .metrics import METRICS
from .snapshot import Snapshot

_Values = dict[tuple[str, ...], float]

_INGRESS, _MODES = "pipe", ("cold", "resident")


class _SnapshotCollector(Collector):
    """A collector that takes a snapshot each time it is collected."""

    def __init__(self, take: Callable[[], Snapshot]) -> None:
        self._take = take

    def collect(self) -> Iterator[Metric]:
        yield from families(self._take())


def exposition(take: Callable[[], Snapshot]) -> bytes:
    """Take a snapshot and return it in the text format of Prometheus."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_SnapshotCollector(take))
    return generate_latest(registry)


def families(snapshot: Snapshot) -> Iterator[Metric]:
    """Yield the metrics that have at least one value, in the order of METRICS."""
    values = {**_of_journal(snapshot), **_of_database(snapshot), **_of_service(snapshot), **_of_queue(snapshot)}
    values |= _of_maildirs(snapshot) | _of_web(snapshot)
    values["pipehandler_build_info"] = {(__version__, PARSER_VERSION): 1}
    for name, (_, kind, labels, meaning) in METRICS.items():
        if kind == "histogram":
            if snapshot.journal:
                yield _histogram(name, snapshot.journal)
        elif series := values.get(name):
            family = (CounterMetricFamily if kind == "counter" else GaugeMetricFamily)(name, meaning, labels=labels)
            for label_values, value in series.items():
                family.add_metric(label_values, value)
            yield family


def _of_journal(snapshot: Snapshot) -> dict[str, _Values]:
    journal = snapshot.journal
    up: dict[str, _Values] = {"pipehandler_journal_up": {(): journal is not None}}
    if journal is None:
        return up
    ended: Counter[tuple[str, ...]] = Counter()
    octets: Counter[tuple[str, ...]] = Counter()
    for mode in _MODES:
        ended[_INGRESS, mode, KILLED, KILLED, KILLED] = octets[_INGRESS, mode] = 0
        for row in TABLE:
            ended[_INGRESS, mode, str(row.status), NAMES[row.status], row.name] = 0
    by_outcome: Counter[str] = Counter()
    for exits in journal.exits:
        ended[exits.ingress, exits.mode, *_status(exits), exits.outcome] += exits.attempts
        octets[exits.ingress, exits.mode] += exits.octets
        by_outcome[exits.outcome] += exits.attempts
    last = [exits.last for exits in journal.exits if exits.status == EX_OK]
    return up | {
        "pipehandler_exits_total": dict(ended),
        "pipehandler_received_bytes_total": dict(octets),
        "pipehandler_duplicates_total": {(): by_outcome[DUPLICATE.name]},
        "pipehandler_outage_refusals_total": {(): by_outcome[OUTAGE.name]},
        "pipehandler_log_lines_dropped_total": {
            (name,): journal.dropped.get(name, (0, 0.0))[0] for name in ("syslog", "file")
        },
        "pipehandler_attempts_under_way": {(): journal.under_way},
        "pipehandler_last_success_timestamp_seconds": {(): max(last)} if last else {},
        # In the same directory as the journal, so it is unknown as well where that cannot be read.
        "pipehandler_outage": {(): snapshot.outage},
    }


def _status(exits: Exits) -> tuple[str, str]:
    """Return the labels status and name."""
    if exits.status is None:
        return KILLED, KILLED
    return str(exits.status), NAMES.get(exits.status, "")


def _histogram(name: str, journal: JournalTotals) -> Metric:
    _, _, labels, meaning = METRICS[name]
    family = HistogramMetricFamily(name, meaning, labels=labels)
    counts = {(duration.mode, duration.phase): (duration.counts, duration.seconds) for duration in journal.durations}
    none = (0,) * len(BOUNDS), 0.0
    for key in dict.fromkeys([*((mode, phase) for mode in _MODES for phase in PHASES), *counts]):
        cumulative, seconds = counts.get(key, none)
        buckets = [
            ("+Inf" if bound == float("inf") else str(bound), count)
            for bound, count in zip(BOUNDS, cumulative, strict=True)
        ]
        family.add_metric(key, buckets, seconds)
    return family


def _of_database(snapshot: Snapshot) -> dict[str, _Values]:
    values: dict[str, _Values] = {
        "pipehandler_database_up": {(): snapshot.health is not None},
        "pipehandler_schema_version_expected": {(): snapshot.schema_expected},
    }
    if snapshot.health:
        oldest, expired = snapshot.health.oldest_quarantined, snapshot.health.oldest_expired
        values["pipehandler_clock_difference_seconds"] = {(): snapshot.health.clock_difference}
        values["pipehandler_schema_version"] = {(): snapshot.health.schema_version}
        values["pipehandler_shard_up"] = {
            (str(number),): away is None for number, away in enumerate(snapshot.health.shards)
        }
        values["pipehandler_quarantine_messages"] = {(): snapshot.health.quarantined}
        values["pipehandler_quarantine_oldest_timestamp_seconds"] = {(): oldest.timestamp()} if oldest else {}
        held = snapshot.health.held_deliveries or 1 if snapshot.health.held_since else 0
        values["pipehandler_retention_held_deliveries"] = {(): held}
        values["pipehandler_expired_oldest_timestamp_seconds"] = {(): expired.timestamp()} if expired else {}
        prepared = snapshot.health.days_prepared
        values["pipehandler_partitions_prepared"] = {} if prepared is None else {(): prepared}
        if standbys := snapshot.health.replication:
            values["pipehandler_acknowledging_servers"] = {(): standbys.servers}
            connected = standbys.synchronous
            values["pipehandler_synchronous_standbys"] = {} if connected is None else {(): connected}
        if snapshot.servers_expected is not None:
            values["pipehandler_acknowledging_servers_expected"] = {(): snapshot.servers_expected}
    return values


def _of_service(snapshot: Snapshot) -> dict[str, _Values]:
    counts = snapshot.service
    values: dict[str, _Values] = {"pipehandler_service_up": {(): counts is not None}}
    if counts is not None:
        values["pipehandler_workers"] = {("free",): counts["free"], ("busy",): counts["busy"]}
        values["pipehandler_waiting_messages"] = {(): counts["waiting"]}
        values["pipehandler_workers_replaced_total"] = {("spent",): counts["replaced"], ("died",): counts["died"]}
        values["pipehandler_service_congested_total"] = {(): counts["congested"]}
        values["pipehandler_service_sent_back_total"] = {(): counts["sent_back"]}
    return values


def _of_queue(snapshot: Snapshot) -> dict[str, _Values]:
    values: dict[str, _Values] = {
        "pipehandler_configuration_up": {(): "configuration" not in snapshot.reasons},
        "pipehandler_queue_up": {(): snapshot.queue is not None},
        "pipehandler_postfix_up": {} if snapshot.postfix_running is None else {(): snapshot.postfix_running},
    }
    if snapshot.queue is not None:
        names = dict.fromkeys([*QUEUES, *snapshot.queue])
        values["pipehandler_queue_messages"] = {
            (name,): snapshot.queue[name].messages if name in snapshot.queue else 0 for name in names
        }
        values["pipehandler_queue_oldest_timestamp_seconds"] = {
            (name,): queued.oldest for name, queued in snapshot.queue.items()
        }
    return values


def _of_maildirs(snapshot: Snapshot) -> dict[str, _Values]:
    if snapshot.maildirs is None:
        return {}
    folders, files = snapshot.maildirs
    return {
        "pipehandler_maildirs": {(state,): number for state, number in folders.items()},
        "pipehandler_maildir_files": {(kind,): found.files for kind, found in files.items()},
        "pipehandler_maildir_oldest_timestamp_seconds": {
            (kind,): found.oldest for kind, found in files.items() if found.oldest is not None
        },
    }


def _of_web(snapshot: Snapshot) -> dict[str, _Values]:
    counts = snapshot.web
    if counts is None:
        return {"pipehandler_web_up": {(): 0}} if snapshot.web_expected else {}
    return {
        "pipehandler_web_up": {(): 1},
        "pipehandler_web_database_up": {(): counts["database_up"]},
        "pipehandler_web_listening": {(): counts["listening"]},
        "pipehandler_web_streams": {(): counts["open_streams"]},
        "pipehandler_web_requests_total": {(): counts["requests"]},
        "pipehandler_web_inboxes_opened_total": {(): counts["opened"]},
        "pipehandler_web_refused_total": {
            (reason,): counts[f"refused_{reason}"] for reason in ("host", "origin", "opened", "full", "streams")
        },
        "pipehandler_web_html_refused_total": {
            ("costly",): counts["sanitiser_refused"],
            ("busy",): counts["sanitiser_busy"],
        },
        "pipehandler_web_failures_total": {("database",): counts["unavailable"], ("fault",): counts["faults"]},
    }
