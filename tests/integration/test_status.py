"""`pipehandler status`: the status of a mail host, as text and as JSON."""

import json
import subprocess

import pytest
from harness import account
from harness.console import PROGRAM
from harness.database import Database
from harness.handler import Handler
from harness.service import Service, bounded, configure, wait_until

from pipehandler.cli.status_text import as_json, bars, lines
from pipehandler.mail import outcome
from pipehandler.mail.outcome import TABLE
from pipehandler.monitor.journal_totals import JournalTotals, Record
from pipehandler.monitor.snapshot import Snapshot
from pipehandler.monitor.status import failure_hint, status
from pipehandler.record.journal import KILLED

MESSAGE = b"From: a@example.org\nMessage-ID: <1@example.org>\nSubject: x\n\nhello\n"
NOTHING = Snapshot(
    JournalTotals([], [], 0), None, 6, None, None, False, {"database": "no", "queue": "no", "service": "no"}
)


def run(handler: Handler, *arguments: str) -> str:
    """What `pipehandler status` prints."""
    done = subprocess.run([PROGRAM, "--config", handler.config, "status", *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def record(ago: float, outcome: str, status: int | None = 75, **values: str) -> Record:
    """An attempt so many seconds before 1,000,000."""
    given = {"code": None, "sqlstate": None, "size": 1, "message": None, "reason": None, "queue_id": None, **values}
    return Record(began=1e6 - ago, ingress="pipe", mode="cold", status=status, outcome=outcome, seconds={}, **given)  # type: ignore[arg-type]


def test_everything_is_well(handler: Handler, database: Database) -> None:
    """Deliveries are counted, the database is up, the quarantine is empty, the workers are there."""
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
    assert f"Database:   up, schema {database.value('SELECT max(version) FROM pipehandler.migration')}\n" in text
    assert "Delivered:  last 2" in text
    assert "LAST FAILURES" not in text


def test_what_went_wrong(handler: Handler, database: Database) -> None:
    """A failure is shown with its reason, how often, its last queue id, and what to do; alike ones together."""
    handler.configure(f"host=127.0.0.1 port={account.free_port()} user=pipehandler dbname=mail")
    handler.deliver(MESSAGE, queue_id="first")
    handler.deliver(MESSAGE, queue_id="second")
    handler.deliver(MESSAGE, queue_id="third")
    text = run(handler)
    assert "Database:   DOWN: connection failed" in text
    assert "Outage:     " in text
    assert "outage: 2 in the last hour, 2 in the last day, last " in text
    assert "queue id third\n    the database is known to be down\n    -> " in text
    assert "queue id first\n    connection failed: " in text
    shown = json.loads(run(handler, "--json"))
    assert {action: each["hour"] for action, each in shown["attempts"].items()} == {"store_unavailable": 1, "outage": 2}
    assert [(each["outcome"], each["hour"]) for each in shown["failures"]] == [
        ("outage", 2),
        ("store_unavailable", 1),
    ]
    assert (shown["database"], shown["service"], shown["outage"], shown["under_way"]) == (None, None, True, 0)
    assert set(shown["reasons"]) >= {"database", "service"}


def test_no_journal(handler: Handler) -> None:
    """Before the first attempt the status says so, and a journal that cannot be read is reported."""
    assert "no delivery attempts in the last day" in run(handler)
    (handler.state / "journal.sqlite").mkdir()
    assert "Journal:    not readable: " in run(handler)


def test_an_older_schema(handler: Handler, database: Database) -> None:
    """A schema of another version is reported, with the command that fixes it."""
    database.execute("DELETE FROM pipehandler.migration WHERE version > 4")
    assert "schema 4, but " in run(handler)
    assert "`pipehandler migrate`" in run(handler)


def test_expired_mail_stays(handler: Handler, database: Database) -> None:
    """What has expired should be gone soon; where it is not, the command that removes it is named."""
    database.execute("SELECT pipehandler.lease_address('@example.com', '1 hour')")
    assert handler.deliver(MESSAGE).status == 0
    ended = "UPDATE pipehandler.address SET created_at = now() - interval '1 d', expires_at = now() - interval '{}'"
    database.execute(ended.format("1 min"))
    assert "Expired:" not in run(handler)
    database.execute(ended.format("1 h"))
    assert "Expired:    not removed since " in run(handler)
    assert "is `pipehandler expire` running?" in run(handler)


def test_watch(handler: Handler) -> None:
    """With --watch it is shown again and again until Ctrl-C, and ends without a stack."""
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
    """The greatest count is the highest bar; one is visible beside a million; nothing is nothing."""
    assert bars([0, 1, 4, 8]) == "·▁▄█"
    assert bars([1, 1_000_000]) == "▁█"
    assert bars([0, 0]) == "··"
    assert bars([]) == ""


@pytest.mark.parametrize("action", [*(row.name for row in TABLE if row.status), "quarantined", KILLED])
def test_every_failure_has_a_hint(action: str) -> None:
    """Every kind of failure is shown with what to do, as text and as JSON."""
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
