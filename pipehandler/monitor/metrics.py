"""The metrics for Prometheus: METRICS lists them, and the docs show the same list.

Names and units follow Prometheus's conventions. exposition.py has their values.
"""

from typing import NamedTuple


class Described(NamedTuple):
    """One metric: its name, its type in Prometheus's terms, its labels, and its help text."""

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
            "Attempts to deliver a message that have ended, by exit status, its name in sysexits.h, and outcome;"
            " killed: without a status.",
        ),
        Described(
            "pipehandler_received_bytes_total", "counter", ("ingress", "mode"), "Bytes of the messages that were read."
        ),
        Described("pipehandler_duplicates_total", "counter", (), "Attempts whose message had been stored already."),
        Described(
            "pipehandler_outage_refusals_total",
            "counter",
            (),
            "Attempts that were deferred at once because the circuit breaker was open.",
        ),
        Described(
            "pipehandler_phase_duration_seconds",
            "histogram",
            ("mode", "phase"),
            "Duration of each phase of an attempt.",
        ),
        Described("pipehandler_attempts_under_way", "gauge", (), "Attempts that have begun and not yet ended."),
        Described(
            "pipehandler_last_success_timestamp_seconds",
            "gauge",
            (),
            "Time at which an attempt last ended with status 0; absent if none has.",
        ),
        Described(
            "pipehandler_outage",
            "gauge",
            (),
            "1 while the circuit breaker is open: a delivery found the database down.",
        ),
        Described(
            "pipehandler_log_lines_dropped_total",
            "counter",
            ("destination",),
            "Lines of the log that syslog or log.file did not take at once; the delivery did not wait.",
        ),
        Described("pipehandler_journal_up", "gauge", (), "Whether the journal could be read (1) or not (0)."),
        Described("pipehandler_database_up", "gauge", (), "Whether the database answered (1) or not (0)."),
        Described(
            "pipehandler_clock_difference_seconds",
            "gauge",
            (),
            "Seconds by which the clock of the database is ahead of the clock of this host; negative: behind.",
        ),
        Described(
            "pipehandler_shard_up",
            "gauge",
            ("shard",),
            "Whether each shard of a sharded database answers through its proxy (1) or not (0).",
        ),
        Described("pipehandler_schema_version", "gauge", (), "Number of the newest migration in the database."),
        Described(
            "pipehandler_schema_version_expected", "gauge", (), "Number of the newest migration of this program."
        ),
        Described("pipehandler_quarantine_messages", "gauge", (), "Messages that are stored without being parsed."),
        Described(
            "pipehandler_quarantine_oldest_timestamp_seconds",
            "gauge",
            (),
            "Time at which the oldest message in quarantine was received; absent if there is none.",
        ),
        Described(
            "pipehandler_expired_oldest_timestamp_seconds",
            "gauge",
            (),
            "Time at which the oldest mail or lease expired that has not been removed yet; absent if there is none.",
        ),
        Described(
            "pipehandler_partitions_prepared",
            "gauge",
            (),
            "Days, from today (UTC) on, whose partitions are there: 8 after `pipehandler expire` has run; 0: that of today is"
            " missing.",
        ),
        Described(
            "pipehandler_retention_held_deliveries",
            "gauge",
            (),
            "Deliveries of which changed rules would remove something, while they wait for `pipehandler expire --confirm`;"
            " 0: no rules wait.",
        ),
        Described(
            "pipehandler_service_up", "gauge", (), "Whether the resident workers' service answered (1) or not (0)."
        ),
        Described(
            "pipehandler_acknowledging_servers",
            "gauge",
            (),
            "Servers that have a message when it is acknowledged: one, and the synchronous standbys that a commit waits for.",
        ),
        Described(
            "pipehandler_acknowledging_servers_expected",
            "gauge",
            (),
            "Servers that should have a message when it is acknowledged (database.servers).",
        ),
        Described(
            "pipehandler_synchronous_standbys",
            "gauge",
            (),
            "Synchronous standbys that are connected; absent where the owner of the database may not see them.",
        ),
        Described("pipehandler_workers", "gauge", ("state",), "Resident workers that are free or busy."),
        Described("pipehandler_waiting_messages", "gauge", (), "Messages that wait for a free worker."),
        Described(
            "pipehandler_workers_replaced_total",
            "counter",
            ("reason",),
            "Workers that were replaced because they were spent (serve.max_messages, serve.max_growth, or a fault) or died.",
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
            "Messages that the service left to a cold delivery: different code or configuration, or it was stopping.",
        ),
        Described(
            "pipehandler_configuration_up",
            "gauge",
            (),
            "Whether the configuration can be loaded (1), or every message is deferred (0).",
        ),
        Described(
            "pipehandler_postfix_up", "gauge", (), "Whether Postfix runs (1) or not (0); absent where that is unknown."
        ),
        Described("pipehandler_queue_up", "gauge", (), "Whether Postfix's queue could be listed (1) or not (0)."),
        Described("pipehandler_queue_messages", "gauge", ("queue",), "Messages in Postfix's queue."),
        Described(
            "pipehandler_queue_oldest_timestamp_seconds",
            "gauge",
            ("queue",),
            "Time at which the oldest message in Postfix's queue arrived; absent if the queue is empty.",
        ),
        Described(
            "pipehandler_maildirs", "gauge", ("state",), "Maildirs of watch.maildirs: watched, unwatched or unreadable."
        ),
        Described(
            "pipehandler_maildir_files",
            "gauge",
            ("state",),
            "Files in these Maildirs: messages that wait in new/ or went to failed/, and files that are left alone.",
        ),
        Described(
            "pipehandler_maildir_oldest_timestamp_seconds",
            "gauge",
            ("state",),
            "Time at which the oldest of these files was written; absent if there is none.",
        ),
        Described(
            "pipehandler_web_up",
            "gauge",
            (),
            "Whether the inbox page answered (1) or not (0); absent where there should be none.",
        ),
        Described(
            "pipehandler_web_database_up",
            "gauge",
            (),
            "Whether the database, or each shard, answers the inbox page (1) or not (0).",
        ),
        Described(
            "pipehandler_web_listening", "gauge", (), "Whether the inbox page gets notifications (1) or polls (0)."
        ),
        Described("pipehandler_web_streams", "gauge", (), "Streams and waiting requests of the inbox page."),
        Described("pipehandler_web_requests_total", "counter", (), "Requests to the inbox page."),
        Described("pipehandler_web_inboxes_opened_total", "counter", (), "Inboxes that visitors opened."),
        Described(
            "pipehandler_web_refused_total",
            "counter",
            ("reason",),
            "Requests that were refused: another name (host), a form of another site (origin), a limit of one network (opened), "
            "of all visitors (full), of streams (streams).",
        ),
        Described(
            "pipehandler_web_html_refused_total",
            "counter",
            ("reason",),
            "Messages shown as text because their HTML was too costly to make safe, or all sanitisers were busy.",
        ),
        Described(
            "pipehandler_web_failures_total",
            "counter",
            ("reason",),
            "Requests that failed: the database was away, or an internal fault.",
        ),
        Described(
            "pipehandler_build_info",
            "gauge",
            ("version", "parser"),
            "Always 1; the labels are the installed versions.",
        ),
    )
}
"""All metrics, by name."""
