"""The alert rules among the examples: Prometheus accepts them, they use existing metrics, and each fires when it
should."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from harness.missing import missing

from pipehandler import cli
from pipehandler.mail.outcome import TABLE
from pipehandler.monitor.metrics import METRICS
from pipehandler.postfix.postqueue import QUEUES

RULES = Path(__file__).parents[3] / "pipehandler" / "examples" / "prometheus" / "pipehandler.rules.yml"
TEXT = RULES.read_text("utf-8")
ALERTS = re.findall(r"^      - alert: (\w+)$", TEXT, re.MULTILINE)


def promtool(*arguments: str) -> str:
    """Run it; returns what it prints."""
    if shutil.which("promtool") is None:
        missing("promtool")
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_them() -> None:
    """Expressions and templates are valid."""
    assert f"SUCCESS: {len(ALERTS)} rules found" in promtool("check", "rules", str(RULES))


def test_they_speak_of_what_is_exported() -> None:
    """A rule on a metric, an outcome or a queue that does not exist would never fire."""
    named = {re.sub("_bucket$", "", name) for name in re.findall(r"\bpipehandler_\w+", TEXT)}
    assert named <= METRICS.keys()
    known = {"outcome": {row.name for row in TABLE}, "queue": set(QUEUES)}
    for label, kind, text in re.findall(r'(\w+)(=~|!=|!~|=)"([^"]*)"', TEXT):
        words = text.split("|") if "~" in kind else [text]
        assert label not in known or set(words) <= known[label]
        if label == "status":
            assert set(words) <= {"killed", *(str(row.status) for row in TABLE)}


@pytest.mark.parametrize("alert", ALERTS)
def test_they_say_what_to_do(alert: str) -> None:
    """Each has a severity, a summary, and a description that names a command; those of ours exist."""
    rule = TEXT.partition(f"- alert: {alert}\n")[2].partition("- alert:")[0]
    assert re.search(r"severity: (critical|warning|info)\b", rule)
    assert re.search(r"^          summary: \".+\"$", rule, re.MULTILINE)
    (description,) = re.findall(r"^          description: \"(.+)\"$", rule, re.MULTILINE)
    assert re.search(r"`(pipehandler|postqueue|postfix|journalctl|systemctl) [^`]+`", description)
    commands = set(re.findall(r"`pipehandler (\w+)[^`]*`", rule))
    assert commands <= set(cli.COMMANDS)


# When they fire. Time starts at 0 and advances by minutes; a series is written in promtool's notation: first+step x
# times.

MINUTES = 240
NOW = "3h"
QUIET, OFTEN, ONE, TWO, FRESH = (f"{each}x{MINUTES}" for each in ("0+0", "0+10", "1+0", "2+0", "0+60"))
ONCE = f"0x170 1x{MINUTES - 170}"  # ten minutes ago


def exits(outcome: str, status: str, mode: str = "cold") -> str:
    """A series of attempts."""
    return f'pipehandler_exits_total{{ingress="pipe",mode="{mode}",outcome="{outcome}",status="{status}"}}'


def bucket(bound: str) -> str:
    """A series of the histogram."""
    return f'pipehandler_phase_duration_seconds_bucket{{mode="cold",phase="store",le="{bound}"}}'


TEXTFILE = 'node_textfile_mtime_seconds{file="/var/lib/prometheus/node-exporter/pipehandler.prom"}'
DELIVERED, DELIVERED_RESIDENT = exits("delivered", "0"), exits("delivered", "0", "resident")
DEFERRED, OLDEST = (
    f'pipehandler_queue_{each}{{queue="deferred"}}' for each in ("messages", "oldest_timestamp_seconds")
)
HELD, OLDEST_HELD = (f'pipehandler_queue_{each}{{queue="hold"}}' for each in ("messages", "oldest_timestamp_seconds"))
EXPIRED = "pipehandler_expired_oldest_timestamp_seconds"
CLOCK = "pipehandler_clock_difference_seconds"
PREPARED = "pipehandler_partitions_prepared"
DIED = 'pipehandler_workers_replaced_total{reason="died"}'
UNWATCHED, IN_FAILED = 'pipehandler_maildirs{state="unwatched"}', 'pipehandler_maildir_files{state="failed"}'
WAITING, LEFT_ALONE = (
    f'pipehandler_maildir_oldest_timestamp_seconds{{state="{each}"}}' for each in ("waiting", "left_alone")
)
DROPPED = 'pipehandler_log_lines_dropped_total{destination="syslog"}'

HEALTHY = {
    DROPPED: QUIET,
    **dict.fromkeys((DELIVERED, DELIVERED_RESIDENT, bucket("5.0"), bucket("+Inf")), OFTEN),
    **dict.fromkeys((exits("store_unavailable", "75"), exits("fault", "75"), exits("outage", "75")), QUIET),
    **dict.fromkeys((exits("too_large", "65"), exits("killed", "killed"), DIED, "pipehandler_outage"), QUIET),
    **dict.fromkeys(("pipehandler_service_congested_total", "pipehandler_service_sent_back_total"), QUIET),
    **dict.fromkeys(
        (f"pipehandler_{each}_up" for each in ("journal", "database", "service", "queue", "postfix", "configuration")),
        ONE,
    ),
    **dict.fromkeys(("pipehandler_build_info", "pipehandler_schema_version", DEFERRED), ONE),
    **dict.fromkeys((TEXTFILE, OLDEST, EXPIRED), FRESH),
    "pipehandler_schema_version_expected": ONE,
    **dict.fromkeys((f"pipehandler_acknowledging_servers{each}" for each in ("", "_expected")), TWO),
    "pipehandler_synchronous_standbys": ONE,
    'pipehandler_shard_up{shard="2"}': ONE,
    CLOCK: QUIET,
    PREPARED: TWO,
    "pipehandler_quarantine_messages": QUIET,
    HELD: QUIET,
    OLDEST_HELD: QUIET,
    'pipehandler_maildirs{state="watched"}': ONE,
    UNWATCHED: QUIET,
    IN_FAILED: QUIET,
    **dict.fromkeys((WAITING, LEFT_ALONE), FRESH),
}

TROUBLE: dict[str, tuple[dict[str, str], set[str]]] = {
    "nothing": ({}, set()),
    "Postfix was stopped": ({"pipehandler_postfix_up": QUIET}, {"PostfixDown"}),
    "a wrong configuration": ({"pipehandler_configuration_up": QUIET}, {"Configuration"}),
    "a message deferred once": ({exits("store_unavailable", "75"): ONCE}, set()),
    "deferred again and again": ({exits("store_unavailable", "75"): FRESH}, {"MailDeferred"}),
    "refused in the outage": ({exits("outage", "75"): FRESH}, set()),
    "nothing delivered": (
        {DELIVERED: QUIET, DELIVERED_RESIDENT: QUIET, DEFERRED: OFTEN},
        {"NothingDelivered"},
    ),
    "nothing to deliver": ({DELIVERED: QUIET, DELIVERED_RESIDENT: QUIET}, set()),
    "a burst": ({DEFERRED: OFTEN}, set()),
    "database down": ({"pipehandler_database_up": QUIET}, {"DatabaseDown"}),
    "outage": ({"pipehandler_outage": ONE}, {"Outage"}),
    "the inbox page down": ({"pipehandler_web_up": QUIET}, {"WebDown"}),
    "the inbox page fails": ({'pipehandler_web_failures_total{reason="fault"}': FRESH}, {"WebFailing"}),
    "no room for inboxes": ({'pipehandler_web_refused_total{reason="full"}': FRESH}, {"InboxesFull"}),
    "bounced": ({exits("too_large", "65"): ONCE}, {"MailBounced"}),
    "fault": ({exits("fault", "75"): ONCE}, {"Fault"}),
    "killed": ({exits("killed", "killed"): ONCE}, {"AttemptsKilled"}),
    "the first one killed in the resident mode": (
        {exits("killed", "killed", "resident"): ONCE},
        {"AttemptsKilled"},
    ),
    "a shard is away": ({'pipehandler_shard_up{shard="2"}': QUIET}, {"ShardDown"}),
    "old schema": ({"pipehandler_schema_version_expected": f"2x{MINUTES}"}, {"SchemaTooOld"}),
    "newer schema": ({"pipehandler_schema_version": f"2x{MINUTES}"}, set()),
    "no synchronous standby": (
        {"pipehandler_acknowledging_servers": ONE, "pipehandler_synchronous_standbys": QUIET},
        {"OneServerOnly"},
    ),
    "one server, as expected": (
        {
            "pipehandler_acknowledging_servers": ONE,
            "pipehandler_acknowledging_servers_expected": ONE,
            "pipehandler_synchronous_standbys": QUIET,
        },
        set(),
    ),
    "the standby is away": ({"pipehandler_synchronous_standbys": QUIET}, {"StandbyAway"}),
    "clock ahead": ({CLOCK: f"6x{MINUTES}"}, {"ClockDifference"}),
    "clock behind": ({CLOCK: f"-6x{MINUTES}"}, {"ClockDifference"}),
    "clock nearly right": ({CLOCK: f"4x{MINUTES}"}, set()),
    "old message": ({OLDEST: QUIET}, {"QueueOld"}),
    "slow": ({bucket("5.0"): QUIET, bucket("10.0"): OFTEN}, {"Slow"}),
    "quarantine": ({"pipehandler_quarantine_messages": f"3x{MINUTES}"}, {"Quarantine"}),
    "quarantine grows": ({"pipehandler_quarantine_messages": OFTEN}, {"Quarantine", "QuarantineGrows"}),
    "expiry": ({EXPIRED: QUIET}, {"ExpiredMailStays"}),
    "no partition for tomorrow": ({PREPARED: ONE}, {"PartitionMissing"}),
    "rules that wait": ({"pipehandler_retention_held_deliveries": ONE}, {"RetentionHeld"}),
    "nothing has expired": ({EXPIRED: f"_x{MINUTES}"}, set()),
    "service down": ({"pipehandler_service_up": QUIET}, {"ServiceDown"}),
    "no service wanted": ({"pipehandler_service_up": QUIET, DELIVERED_RESIDENT: QUIET}, set()),
    "workers die": ({DIED: OFTEN}, {"WorkersDying"}),
    "congested": ({"pipehandler_service_congested_total": OFTEN}, {"Congested"}),
    "sent back for a moment": ({"pipehandler_service_sent_back_total": ONCE}, set()),
    "sent back": ({"pipehandler_service_sent_back_total": OFTEN}, {"SentBack"}),
    "a line dropped": ({DROPPED: ONCE}, {"LogLinesDropped"}),
    "a Maildir without a watcher": ({UNWATCHED: ONE}, {"MaildirUnwatched"}),
    "an old file in a Maildir": ({WAITING: QUIET}, {"MaildirOld"}),
    "a file in failed/": ({IN_FAILED: ONE}, {"MaildirFailed"}),
    "rejected from a Maildir": (
        {exits("too_large", "65").replace('"pipe"', '"maildir"'): ONCE, IN_FAILED: ONE},
        {"MaildirFailed"},
    ),
    "a file of another account": ({LEFT_ALONE: QUIET}, {"MaildirLeftAlone"}),
    "journal": ({"pipehandler_journal_up": QUIET}, {"JournalUnreadable"}),
    "queue": ({"pipehandler_queue_up": QUIET}, {"QueueUnknown"}),
    "absent": ({"pipehandler_build_info": f"_x{MINUTES}"}, {"MetricsAbsent"}),
    "stale": ({TEXTFILE: QUIET}, {"TextfileStale"}),
}


def with_host(series: str) -> str:
    """A series with the label that a scrape adds."""
    return series[:-1] + ',instance="mx"}' if series.endswith("}") else series + '{instance="mx"}'


def group(name: str, series: dict[str, str], fired: dict[str, set[str]]) -> dict[str, object]:
    """A test for promtool: exactly these alerts fire at each time."""
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": with_host(each), "values": text} for each, text in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": now,
                "exp_samples": [{"labels": f'{{alertname="Pipehandler{each}"}}', "value": 1} for each in sorted(names)],
            }
            for now, names in fired.items()
        ],
    }


def test_they_fire(tmp_path: Path) -> None:
    """For each kind of problem exactly the right alerts fire; mail on hold is not a problem before a day has passed."""
    groups = [group(name, HEALTHY | overrides, {NOW: fired}) for name, (overrides, fired) in TROUBLE.items()]
    times = 60 * 26
    held = {name: re.sub(r"x\d+$", f"x{times}", each) for name, each in HEALTHY.items()} | {HELD: f"1x{times}"}
    groups.append(group("on hold", held, {"23h": set(), "25h": {"MailHeld"}}))
    file = tmp_path / "test.yml"  # JSON is YAML
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "5m", "tests": groups}))
    promtool("test", "rules", str(file))


def test_every_alert_was_seen() -> None:
    """Every rule has a test."""
    seen = {f"Pipehandler{name}" for _, fired in TROUBLE.values() for name in fired}
    assert seen | {"PipehandlerMailHeld"} == set(ALERTS)
