"""`pipehandler status`: the status of a mail host, as text and as JSON."""

import json
import os
import pwd
import re
import subprocess
from datetime import timedelta

import psycopg
import pytest
from harness import account, preloaded
from harness.database import Database
from harness.days import drop_day, today
from harness.handler import Handler
from harness.preloaded import PROGRAM
from harness.service import Service, bounded, configure, wait_until

from pipehandler.cli.status_text import as_json, bars, headline, lines
from pipehandler.mail import outcome
from pipehandler.mail.outcome import TABLE
from pipehandler.monitor.journal_totals import Exits, JournalTotals, Record
from pipehandler.monitor.snapshot import Snapshot
from pipehandler.monitor.status import failure_hint, status
from pipehandler.monitor.verdict import FLOWING, STOPPED, UNKNOWN
from pipehandler.postfix.postqueue import Queued
from pipehandler.record.journal import KILLED
from pipehandler.store.health import Health

MESSAGE = b"From: a@example.org\nMessage-ID: <1@example.org>\nSubject: x\n\nhello\n"
NOTHING = Snapshot(
    JournalTotals([], [], 0), None, 6, None, None, False, {"database": "no", "queue": "no", "service": "no"}
)


def run(handler: Handler, *arguments: str, status: int = 0, user: str | None = None) -> str:
    """The output of `pipehandler status`; its exit status has to match its first line."""
    # A Postfix that does not exist, so that one on this machine makes no difference.
    words = ["--config", str(handler.config), "status", "--config-directory", "/nonexistent", *arguments]
    if user is None:
        done = preloaded.run_text(*words)
    else:
        done = subprocess.run([PROGRAM, *words], capture_output=True, text=True, user=user)
    assert (done.returncode, done.stderr) == (status, ""), done
    first = {0: "Mail is flowing: ", 1: "Mail is NOT flowing: ", 3: "Whether mail is flowing is unknown: "}
    assert "--json" in arguments or done.stdout.startswith(first[status])
    return done.stdout


def record(ago: float, outcome: str, status: int | None = 75, **values: str) -> Record:
    """An attempt so many seconds before 1,000,000."""
    given = {"code": None, "sqlstate": None, "size": 1, "message": None, "reason": None, "queue_id": None, **values}
    return Record(began=1e6 - ago, ingress="pipe", mode="cold", status=status, outcome=outcome, seconds={}, **given)  # type: ignore[arg-type]


def test_everything_is_well(handler: Handler, database: Database) -> None:
    """Deliveries are counted, the database is up, the quarantine is empty, the workers are running."""
    configure(handler, workers=2)
    with Service(handler) as service:
        handler.deliver(MESSAGE)
        handler.deliver(MESSAGE)
        wait_until(service.ready)
        text = run(handler)
    rows = [line.split() for line in text.splitlines()]
    assert ["delivered", "0", "1", "···········█", "1", "·······················█"] in rows
    assert ["duplicate", "0", "1", "···········█", "1", "·······················█"] in rows
    assert "Workers:    0 of 2 busy, 0 messages waiting; 0 replaced, 0 died since the start" in text
    assert "Quarantine: empty" in text
    assert text.startswith("Mail is flowing: last delivered at 2")
    assert f"Database:   up, schema {database.value('SELECT max(version) FROM pipehandler.migration')}\n" in text
    assert "Delivered:  last 2" in text
    assert "LAST FAILURES" not in text


def test_lost_lines_of_the_log() -> None:
    """Lines that the log did not take are counted, with what to do: `check` finds out about the file alone."""
    dropped = {"syslog": (1, 1e6), "file": (2, 1e6)}
    text = list(lines(status([], NOTHING._replace(journal=JournalTotals([], [], 0, dropped)), 1e6)))
    (syslog,) = (line for line in text if "1 line was not taken by syslog" in line)
    (file,) = (line for line in text if "2 lines were not taken by log.file" in line)
    assert syslog.endswith(": does a syslog daemon run here? log.file names a file for them")
    assert file.endswith(": `pipehandler check`")


def test_what_went_wrong(handler: Handler, database: Database) -> None:
    """A failure is shown with its reason, count, last queue id and a hint; similar ones are grouped."""
    handler.configure(f"host=127.0.0.1 port={account.free_port()} user=pipehandler dbname=mail")
    handler.deliver(MESSAGE, queue_id="first")
    handler.deliver(MESSAGE, queue_id="second")
    handler.deliver(MESSAGE, queue_id="third")
    text = run(handler, status=1)
    assert text.startswith("Mail is NOT flowing: deliveries find the database down\n\n")
    assert "Database:   DOWN: connection failed" in text
    assert "Outage:     " in text
    assert "outage: 2 in the last hour, 2 in the last day, last " in text
    assert "queue id third\n    the database is known to be down\n    -> " in text
    assert "queue id first\n    connection failed: " in text
    shown = json.loads(run(handler, "--json", status=1))
    assert shown["mail"] == "stopped"
    assert {action: each["hour"] for action, each in shown["attempts"].items()} == {"store_unavailable": 1, "outage": 2}
    assert [(each["outcome"], each["hour"]) for each in shown["failures"]] == [
        ("outage", 2),
        ("store_unavailable", 1),
    ]
    assert (shown["database"], shown["service"], shown["outage"], shown["under_way"]) == (None, None, True, 0)
    assert set(shown["reasons"]) >= {"database", "service"}


def test_a_lock_is_in_the_way(handler: Handler, database: Database) -> None:
    """A database in which another session locks a table is not down: that session is named."""
    assert handler.deliver(MESSAGE).status == 0
    with psycopg.connect(database.admin, application_name="nightly report") as other:
        other.execute("LOCK TABLE pipehandler.delivery")
        pid, text = other.info.backend_pid, run(handler)
    assert f"Database:   blocked by pid {pid} (nightly report, user postgres" in text
    assert "DOWN" not in text


def test_no_journal(handler: Handler) -> None:
    """Before the first attempt the status reports that there was none; a journal that cannot be read is reported."""
    assert "no delivery attempts in the last day" in run(handler, status=3)  # without a queue
    (handler.state / "journal.sqlite").mkdir()
    text = run(handler, status=3)
    assert text.startswith(
        "Whether mail is flowing is unknown: the journal and the queue cannot be read; run this as root\n"
    )
    assert "Journal:    not readable: " in text


def test_an_older_schema(handler: Handler, database: Database) -> None:
    """A schema of another version is reported, with the command that fixes it."""
    assert handler.deliver(MESSAGE).status == 0
    database.execute("INSERT INTO pipehandler.migration VALUES (9999, '9999_new.sql', 'x')")
    assert re.search(r"schema 9999, but \d+ is expected: install the newer pipehandler on this host\n", run(handler))
    database.execute("DELETE FROM pipehandler.migration WHERE version > 4")
    assert re.search(r"schema 4, but \d+ is expected: `pipehandler migrate`\n", run(handler))


def test_expired_mail_stays(handler: Handler, database: Database) -> None:
    """Expired mail should be removed soon; if it is not, the command that removes it is named."""
    database.execute("SELECT pipehandler.lease_address('@example.com', '1 hour')")
    assert handler.deliver(MESSAGE).status == 0
    ended = "UPDATE pipehandler.address SET created_at = now() - interval '1 d', expires_at = now() - interval '{}'"
    database.execute(ended.format("1 min"))
    assert "Expired:" not in run(handler)
    database.execute(ended.format("1 h"))
    assert "Expired:    not removed since " in run(handler)
    assert "is `pipehandler expire` running?" in run(handler)


def test_no_partition(handler: Handler, database: Database) -> None:
    """Days without partitions are reported, as long as `expire` has not created them."""
    assert handler.deliver(MESSAGE).status == 0
    assert "Partitions:" not in run(handler)
    drop_day(database, today() + timedelta(days=1))
    assert "Partitions: none for tomorrow: is `pipehandler expire` running?" in run(handler)


def test_wrong_configuration(handler: Handler) -> None:
    """While the configuration cannot be loaded, the status shows the reason at the top, and the figures of the
    journal."""
    assert handler.deliver(MESSAGE).status == 0
    good = handler.config.read_text()
    handler.config.write_text(f"{good}\n[limits]\nmemory = 268435456\n")
    assert handler.deliver(MESSAGE, queue_id="lost").status == 75
    text = run(handler, status=1)
    first = text.partition("\n")[0]
    assert "the configuration cannot be loaded: " in first
    assert "limits.memory = 268435456 is too small" in first
    assert "misconfigured: 1 in the last hour" in text
    assert "queue id lost" in text
    assert "Database:   unknown: " in text
    done = subprocess.run([PROGRAM, "--config", handler.config, "metrics"], capture_output=True, text=True)
    assert done.returncode == 0
    assert "pipehandler_configuration_up 0.0" in done.stdout
    assert 'outcome="misconfigured",status="75"} 1.0' in done.stdout


@pytest.mark.skipif(not account.IS_ROOT, reason="only root becomes another account")
def test_missing_rights(handler: Handler, database: Database) -> None:
    """A server that refuses this account is not reported as down, and the status has a hint how to get access."""
    hba = database.server.data / "pg_hba.conf"
    before = hba.read_text()
    role = pwd.getpwuid(os.geteuid()).pw_name
    hba.write_text(f"local all pipehandler peer map=none\n{before}")
    database.server.reload()
    try:
        assert run(handler, status=3).count("Database:   unknown: ") == 1
        admin = database.server.conninfo(database.name, user="nobody8")
        handler.configure(database.conninfo, database={"admin_conninfo": admin})
        text = run(handler, status=3)
        create = 'CREATE ROLE "nobody8" LOGIN IN ROLE pipehandler_reader, pipehandler_maintenance;'
        assert f"the server is up, and has no such role: {create}" in text
        assert role == "root"
    finally:
        hba.write_text(before)
        database.server.reload()


def test_a_hint_is_given_once() -> None:
    """Failures with the same hint show it once."""
    failures = [record(1, "misconfigured", reason="a"), record(2, "misconfigured", reason="b"), record(3, "fault")]
    shown = list(lines(status(failures, NOTHING, 1e6)))
    assert len([line for line in shown if line.startswith("    -> ")]) == 2


def journal(last: float | None, **queue: Queued) -> Snapshot:
    """The known facts: when a delivery last succeeded, and what is in the queue."""
    exits = [] if last is None else [Exits("pipe", "cold", 0, "delivered", 1, 1, last)]
    return NOTHING._replace(
        journal=JournalTotals(exits, [], 0),
        health=Health(6, 0, None),
        queue=dict(queue),
        reasons={},
        postfix_running=True,
    )


NOW = 1e6
LATER = {"message store unavailable": 1}
REMOTE = {"connect to mx.example.org[192.0.2.1]:25: Connection timed out": 1}
VERDICTS: dict[str, tuple[list[Record], Snapshot, str]] = {
    "all is well": ([], journal(NOW - 5), FLOWING),
    "nothing yet": ([], journal(None), FLOWING),
    "Postfix is down": ([], journal(NOW - 5)._replace(postfix_running=False), STOPPED),
    "an outage": ([], journal(NOW - 5)._replace(outage=True), STOPPED),
    "the database is down": ([], journal(NOW - 5)._replace(health=None), STOPPED),
    "no right to see it": ([], journal(NOW - 5)._replace(health=None, refused=True), FLOWING),
    "a lock is in the way": ([], journal(NOW - 5)._replace(health=None, blocked=True), FLOWING),
    "the configuration": ([], journal(NOW - 5)._replace(reasons={"configuration": "x"}), STOPPED),
    "deferred, then delivered": ([record(9, "fault")], journal(NOW - 5), FLOWING),
    "delivered, then deferred": ([record(3, "fault")], journal(NOW - 5), STOPPED),
    "bounced": ([record(3, "unknown_recipient", 67)], journal(NOW - 5), FLOWING),
    "a fresh message waits": ([], journal(NOW - 600, active=Queued(1, NOW - 5, {})), FLOWING),
    "an old one waits": ([], journal(NOW - 900, deferred=Queued(1, NOW - 600, LATER)), STOPPED),
    "an old one waits, others do not": ([], journal(NOW - 5, deferred=Queued(1, NOW - 600, LATER)), FLOWING),
    "mail for another host": ([], journal(NOW - 900, deferred=Queued(1, NOW - 600, REMOTE)), FLOWING),
    "on hold": ([], journal(NOW - 900, hold=Queued(1, NOW - 600, {})), FLOWING),
    "no journal": ([], journal(None)._replace(journal=None, reasons={"journal": "x"}), UNKNOWN),
}


@pytest.mark.parametrize("what", VERDICTS)
def test_verdict(what: str) -> None:
    """The verdict whether mail is flowing depends only on certain facts."""
    records, snapshot, expected = VERDICTS[what]
    result = status(records, snapshot, NOW)
    assert result.verdict.state == expected
    assert next(iter(lines(result))) == headline(result)
    assert as_json(result)["mail"] == expected


def test_watch(handler: Handler) -> None:
    """With --watch it is shown repeatedly until Ctrl-C, and ends without a traceback."""
    command = [PROGRAM, "--config", str(handler.config), "status", "--watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout
        assert running.stderr
        with bounded(running):
            shown = (line for line in running.stdout if "refreshed every 2 s; Ctrl-C ends it" in line)
            assert next(shown)
            assert next(shown)
        running.send_signal(2)
        assert "Traceback" not in running.stderr.read()
    program_json = subprocess.run([*command, "--json"], capture_output=True, text=True)
    assert program_json.returncode == 2


def test_counts() -> None:
    """Attempts are counted by the hour and by five minutes, the newest on the right."""
    found = [record(0, "delivered", 0), record(299, "delivered", 0), record(3_599, "delivered", 0)]
    found += [record(3_600, "delivered", 0), record(86_399, "fault"), record(-5, KILLED, None)]
    counts = status(found, NOTHING, 1e6).counts
    assert counts["delivered"] == ([1, *[0] * 10, 2], [*[0] * 22, 1, 3])
    assert counts["fault"] == ([0] * 12, [1, *[0] * 23])
    assert counts[KILLED] == ([*[0] * 11, 1], [*[0] * 23, 1])
    assert list(counts) == ["delivered", "fault", KILLED]


def test_bars() -> None:
    """The greatest count has the highest bar; one is visible next to a million; zero has no bar."""
    assert bars([0, 1, 4, 8]) == "·▁▄█"
    assert bars([1, 1_000_000]) == "▁█"
    assert bars([0, 0]) == "··"
    assert bars([]) == ""


@pytest.mark.parametrize("action", [*(row.name for row in TABLE if row.status), "quarantined", KILLED])
def test_every_failure_has_a_hint(action: str) -> None:
    """Every kind of failure is shown with a hint, as text and as JSON."""
    failure = record(1, action, reason="because\x1b[31m")
    result = status([failure], NOTHING, 1e6)
    shown = list(lines(result))
    assert f"    -> {failure_hint(failure)}" in shown
    assert f"{action}: " in "\n".join(shown)
    assert len(failure_hint(failure)) > 20
    (as_object,) = as_json(result)["failures"]
    assert (as_object["outcome"], as_object["hint"]) == (action, failure_hint(failure))


@pytest.mark.parametrize(
    ("sqlstate", "expected"),
    [
        ("", "pipehandler check"), ("08006", "pipehandler check"), ("28P01", "pg_hba.conf"), ("3D000", "create the database"),
        ("3F000", "migrate"), ("42883", "migrate"), ("42501", "lacks a right"), ("53300", "max_connections"),
        ("25006", "read-write"), ("57014", "pg_stat_activity"), ("57P03", "recovering"), ("40P01", "trying again"),
    ],
)  # fmt: skip
def test_hint_by_sqlstate(sqlstate: str, expected: str) -> None:
    """The SQLSTATE decides the hint."""
    assert expected in failure_hint(record(1, outcome.STORE_UNAVAILABLE.name, sqlstate=sqlstate))
