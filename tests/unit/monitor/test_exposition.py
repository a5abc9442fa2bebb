"""What is exported of a snapshot: every metric of the list, and its numbers."""

import shutil
import subprocess
from datetime import UTC, datetime

import pytest
from harness.missing import missing
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from pipehandler.mail.outcome import TABLE
from pipehandler.maildir.contents import Contents
from pipehandler.monitor.exposition import exposition, families
from pipehandler.monitor.journal_totals import Duration, Exits, JournalTotals
from pipehandler.monitor.maildirs import Maildirs
from pipehandler.monitor.metrics import METRICS
from pipehandler.monitor.snapshot import Snapshot
from pipehandler.monitor.web_status import COUNTS
from pipehandler.postfix.postqueue import QUEUES, Queued
from pipehandler.record.journal import BOUNDS
from pipehandler.store.health import Health
from pipehandler.store.replication import Replication
from pipehandler.web import server

TOTALS = JournalTotals(
    exits=[
        Exits("pipe", "cold", 0, "delivered", 3, 1000, 100.0),
        Exits("pipe", "cold", 0, "duplicate", 2, 500, 300.0),
        Exits("pipe", "resident", 0, "duplicate", 1, 50, 200.0),
        Exits("pipe", "cold", 75, "outage", 7, 0, 400.0),
        Exits("pipe", "resident", None, "killed", 4, 0, 500.0),
        Exits("maildir", "cold", 0, "delivered", 1, 10, 50.0),
        Exits("pipe", "cold", 99, "of another version", 1, 0, 60.0),
    ],
    durations=[Duration("cold", "parse", (1, 1, 2, *(5,) * (len(BOUNDS) - 3)), 0.25)],
    under_way=6,
)
WHOLE = Snapshot(
    journal=TOTALS,
    health=Health(
        *(5, 8, datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, tzinfo=UTC), -6.5),
        replication=Replication(1, 2, 3),
        days_prepared=8,
        shards=(None, None),
    ),
    servers_expected=4,
    schema_expected=6,
    service={
        "workers": 5,
        "free": 3,
        "busy": 2,
        "waiting": 9,
        "delivered": 70,
        "congested": 10,
        "sent_back": 11,
        "replaced": 12,
        "died": 13,
    },
    queue={"deferred": Queued(14, 1000.0), "hold": Queued(1, 2000.0)},
    outage=True,
    reasons={},
    postfix_running=True,
    maildirs=Maildirs(
        {"watched": 1, "unwatched": 2, "unreadable": 3},
        {"waiting": Contents(4, 5.0), "left_alone": Contents(0, None), "failed": Contents(6, 7.0)},
    ),
    web={name: number for number, name in enumerate(COUNTS, 20)} | {"database_up": 1, "listening": 1},
    web_expected=True,
)
EMPTY = WHOLE._replace(
    journal=JournalTotals([], [], 0), health=Health(6, 0, None), service=dict.fromkeys(WHOLE.service or {}, 0), queue={}
)
UNKNOWN = WHOLE._replace(
    journal=None,
    health=None,
    service=None,
    queue=None,
    maildirs=None,
    web=None,
    outage=False,
    postfix_running=None,
    reasons={"configuration": "x"},
)


def exported(snapshot: Snapshot) -> dict[str, Metric]:
    """The samples of a scrape in the text format, by their Prometheus names."""
    found = text_string_to_metric_families(exposition(lambda: snapshot).decode())
    return {f"{each.name}_total" if each.type == "counter" else each.name: each for each in found}


def values(snapshot: Snapshot, name: str) -> dict[str, float]:
    """The series of one metric: the values of its labels, with blanks between them, and the number."""
    found = exported(snapshot).get(name)
    labels = METRICS[name].labels
    return {" ".join(each.labels[label] for label in labels): each.value for each in found.samples} if found else {}


def value(snapshot: Snapshot, name: str) -> float | None:
    """The number of a metric without labels, None where it is not exported."""
    return values(snapshot, name).get("")


@pytest.mark.parametrize("snapshot", [WHOLE, EMPTY, UNKNOWN], ids=["whole", "empty", "unknown"])
def test_promtool_finds_nothing(snapshot: Snapshot) -> None:
    """Prometheus' own checker reports nothing."""
    if shutil.which("promtool") is None:
        missing("promtool")
    done = subprocess.run(["promtool", "check", "metrics"], input=exposition(lambda: snapshot), capture_output=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_all_are_exported() -> None:
    """Each metric of the list is exported with its type, its help and its labels, and no other."""
    found = exported(WHOLE)
    assert list(found) == list(METRICS)
    for name, metric in found.items():
        described = METRICS[name]
        assert (metric.type, metric.documentation) == (described.kind, described.meaning)
        for sample in metric.samples:
            assert sample.labels.keys() - {"le"} == set(described.labels)


def test_exits() -> None:
    """Each outcome is a separate series; an outcome without a name in the journal is exported all the same."""
    found = values(WHOLE, "pipehandler_exits_total")
    assert {key: number for key, number in found.items() if number} == {
        "pipe cold 0 EX_OK delivered": 3,
        "pipe cold 0 EX_OK duplicate": 2,
        "pipe resident 0 EX_OK duplicate": 1,
        "pipe cold 75 EX_TEMPFAIL outage": 7,
        "pipe resident killed killed killed": 4,
        "maildir cold 0 EX_OK delivered": 1,
        "pipe cold 99  of another version": 1,
    }


def test_all_ways_to_end_are_there_from_the_start() -> None:
    """A series that starts at 1 is not an increase for Prometheus; so it starts at 0, before anything has happened."""
    found = values(EMPTY, "pipehandler_exits_total")
    assert set(found.values()) == {0}
    assert len(found) == 2 * (len(TABLE) + 1)
    assert values(EMPTY, "pipehandler_received_bytes_total") == {"pipe cold": 0, "pipe resident": 0}
    assert values(EMPTY, "pipehandler_queue_messages") == dict.fromkeys(QUEUES, 0)
    assert values(EMPTY, "pipehandler_workers_replaced_total") == {"spent": 0, "died": 0}
    assert value(EMPTY, "pipehandler_duplicates_total") == value(EMPTY, "pipehandler_outage_refusals_total") == 0
    sums = [
        each for each in exported(EMPTY)["pipehandler_phase_duration_seconds"].samples if each.name.endswith("_sum")
    ]
    assert [each.value for each in sums] == [0] * 8


def test_of_the_journal() -> None:
    """Bytes by ingress and mode, duplicates, refusals, running attempts, and the last success of all."""
    assert values(WHOLE, "pipehandler_received_bytes_total") == {
        "pipe cold": 1500,
        "pipe resident": 50,
        "maildir cold": 10,
    }
    assert value(WHOLE, "pipehandler_duplicates_total") == 3
    assert value(WHOLE, "pipehandler_outage_refusals_total") == 7
    assert value(WHOLE, "pipehandler_attempts_under_way") == 6
    assert value(WHOLE, "pipehandler_last_success_timestamp_seconds") == 300
    assert value(EMPTY, "pipehandler_last_success_timestamp_seconds") is None
    assert value(WHOLE, "pipehandler_outage") == 1


def test_histogram() -> None:
    """The buckets are cumulative, in the journal's bounds, the last of them without a bound; sum and count agree."""
    samples = [
        each
        for each in exported(WHOLE)["pipehandler_phase_duration_seconds"].samples
        if (each.labels["mode"], each.labels["phase"]) == ("cold", "parse")
    ]
    buckets = {each.labels["le"]: each.value for each in samples if each.name.endswith("_bucket")}
    assert [float(bound) for bound in buckets] == list(BOUNDS)
    assert list(buckets)[-1] == "+Inf"
    assert list(buckets.values()) == [1, 1, 2, *[5] * (len(BOUNDS) - 3)]
    rest = {each.name.rpartition("_")[2]: each.value for each in samples if not each.name.endswith("_bucket")}
    assert rest == {"count": 5, "sum": 0.25}


def test_of_the_database() -> None:
    """The present and the expected schema version, the quarantine with the time of its oldest message, and overdue
    removals."""
    assert value(WHOLE, "pipehandler_clock_difference_seconds") == -6.5
    assert value(EMPTY, "pipehandler_clock_difference_seconds") == 0
    assert value(WHOLE, "pipehandler_schema_version") == 5
    assert values(WHOLE, "pipehandler_shard_up") == {"0": 1, "1": 1}
    assert values(EMPTY, "pipehandler_shard_up") == {}
    assert value(WHOLE, "pipehandler_schema_version_expected") == 6
    assert value(WHOLE, "pipehandler_acknowledging_servers") == 2
    assert value(WHOLE, "pipehandler_acknowledging_servers_expected") == 4
    assert value(WHOLE, "pipehandler_synchronous_standbys") == 2
    assert value(EMPTY._replace(servers_expected=None), "pipehandler_acknowledging_servers") is None
    assert value(WHOLE, "pipehandler_partitions_prepared") == 8
    assert value(EMPTY, "pipehandler_partitions_prepared") is None
    assert value(WHOLE, "pipehandler_quarantine_messages") == 8
    assert value(WHOLE, "pipehandler_quarantine_oldest_timestamp_seconds") == 1767225600
    assert value(EMPTY, "pipehandler_quarantine_oldest_timestamp_seconds") is None
    assert value(WHOLE, "pipehandler_expired_oldest_timestamp_seconds") == 1767312000
    assert value(EMPTY, "pipehandler_expired_oldest_timestamp_seconds") is None


def test_of_the_workers() -> None:
    """Free, busy, waiting, replaced, turned away."""
    assert values(WHOLE, "pipehandler_workers") == {"free": 3, "busy": 2}
    assert value(WHOLE, "pipehandler_waiting_messages") == 9
    assert values(WHOLE, "pipehandler_workers_replaced_total") == {"spent": 12, "died": 13}
    assert value(WHOLE, "pipehandler_service_congested_total") == 10
    assert value(WHOLE, "pipehandler_service_sent_back_total") == 11


def test_of_the_queue() -> None:
    """Every queue by name, also an empty one; the oldest message where there is one."""
    expected = {**dict.fromkeys(QUEUES, 0), "deferred": 14, "hold": 1}
    assert values(WHOLE, "pipehandler_queue_messages") == expected
    assert values(WHOLE, "pipehandler_queue_oldest_timestamp_seconds") == {"deferred": 1000, "hold": 2000}


def test_of_the_maildirs() -> None:
    """All Maildirs together; the oldest file where there is one."""
    assert values(WHOLE, "pipehandler_maildirs") == {"watched": 1, "unwatched": 2, "unreadable": 3}
    assert values(WHOLE, "pipehandler_maildir_files") == {"waiting": 4, "left_alone": 0, "failed": 6}
    assert values(WHOLE, "pipehandler_maildir_oldest_timestamp_seconds") == {"waiting": 5, "failed": 7}


def test_what_is_not_known_is_not_zero() -> None:
    """Without an answer only its absence is exported: a counter that fell to 0 would rise again."""
    found = exported(UNKNOWN)
    assert {name: value(UNKNOWN, name) for name in found if name != "pipehandler_build_info"} == {
        "pipehandler_journal_up": 0,
        "pipehandler_database_up": 0,
        "pipehandler_schema_version_expected": 6,
        "pipehandler_service_up": 0,
        "pipehandler_configuration_up": 0,
        "pipehandler_queue_up": 0,
        "pipehandler_web_up": 0,
    }
    assert "pipehandler_web_up" not in exported(UNKNOWN._replace(web_expected=False))
    assert value(WHOLE._replace(postfix_running=False), "pipehandler_postfix_up") == 0
    assert {each for name in METRICS if name.endswith("_up") for each in values(WHOLE, name).values()} == {1}


def test_page() -> None:
    """What the page counts: each number once, under its name."""
    assert values(WHOLE, "pipehandler_web_refused_total") == {
        "host": 23,
        "origin": 24,
        "opened": 25,
        "full": 26,
        "streams": 27,
    }
    assert values(WHOLE, "pipehandler_web_html_refused_total") == {"busy": 28, "costly": 29}
    assert values(WHOLE, "pipehandler_web_failures_total") == {"database": 30, "fault": 31}
    assert (value(WHOLE, "pipehandler_web_requests_total"), value(WHOLE, "pipehandler_web_streams")) == (20, 32)
    assert set(COUNTS) <= {*server.COUNTS, "open_streams", "database_up", "listening"}


def test_no_content() -> None:
    """Labels are fixed words and versions: no address, no queue id, no reason."""
    snapshot = WHOLE._replace(reasons={"database": "password of someone@example.com"})
    assert b"@" not in exposition(lambda: snapshot)
    assert len(list(families(snapshot))) == len(METRICS)
