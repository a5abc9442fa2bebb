"""Expiry: expired mail is invisible at once, and removed from the tables by the next run of `pipehandler expire`;
nothing else ever is."""

import itertools
import json
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from harness.console import Console, everything
from harness.database import Database
from harness.handler import Handler
from harness.preloaded import PROGRAM
from harness.service import bounded, wait_until
from harness.submission import MESSAGE, submission
from psycopg.errors import NoDataFound

from pipehandler.mail.identity import identify
from pipehandler.mail.parsed import ParsedMessage
from pipehandler.mail.sysexits import EX_CONFIG, EX_NOINPUT, EX_UNAVAILABLE
from pipehandler.settings.retention import Rule
from pipehandler.store import expiry, messages, quarantine
from pipehandler.store.errors import StoreError
from pipehandler.store.ids import NoSuchMessage
from pipehandler.store.ingest import Stored
from pipehandler.store.message_store import MessageStore

PICTURE = (
    b"From: News <News@Sender.example>\nMessage-ID: <picture@sender.example>\nList-Id: <Garden.sender.example>\n"
    b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\ntext\n--b\nContent-Type: image/gif\n\nGIF\n--b--\n"
)
INGEST = "SELECT FROM pipehandler.ingest(%s::jsonb, %s::jsonb, %s::text, %s::text, %b::bytea, %b::bytea, %b::bytea[])"
INTERRUPTED = 130


def store(database: Database, raw: bytes, *recipients: str, **changes: Any) -> list[Stored]:
    """Store a message; returns the results, in the order of the deliveries. received_at: also the time when it was
    stored."""
    since = changes.setdefault("received_at", datetime.now(UTC).isoformat())
    with closing(MessageStore(database.conninfo)) as opened:
        rows = sorted(opened.ingest(submission(raw, *recipients, **changes)), key=lambda row: row.delivery)
    database.execute(
        "UPDATE pipehandler.delivery SET stored_at = %s WHERE id = ANY (%s) AND stored_at > %s::timestamptz + interval '1 hour'",
        *(since, [row.delivery for row in rows], since),
    )
    return rows


def age(database: Database, *recipients: str, column: str = "expires_at") -> None:
    """Make these deliveries expire."""
    database.execute(
        f"UPDATE pipehandler.delivery SET {column} = now() - interval '1 s' WHERE recipient = ANY (%s)",
        list(recipients),
    )


def lease(database: Database, address: str, over: bool = False) -> int:
    """Issue an address; over: its lease has already ended."""
    number = database.value("SELECT (pipehandler.lease_address(%s)).lease", address)
    if over:
        end(database, number)
    return int(number)


def end(database: Database, number: int, ago: str = "1 s") -> None:
    """Make a lease end so long ago."""
    database.execute(
        "UPDATE pipehandler.address SET created_at = now() - interval '1 year', expires_at = now() - %s::interval"
        " WHERE lease = %s",
        *(ago, number),
    )


def run(database: Database, *rules: Rule, batch: int = 500) -> dict[str, int]:
    """One whole run, under the maintenance role; returns what it did."""
    total: expiry.Counts = expiry.Counts()
    with upkeep(database) as opened:
        for counts in expiry.expire(opened, rules, batch):
            total.update(counts)
    return dict(+total)


@contextmanager
def upkeep(database: Database) -> Iterator[MessageStore]:
    """A store for the maintenance role."""
    with closing(MessageStore(database.server.conninfo(database.name, user="upkeep"))) as opened:
        yield opened


def recipients(database: Database) -> list[str]:
    """The recipients that have deliveries in the table."""
    return [row.recipient for row in database.rows("SELECT recipient FROM pipehandler.delivery ORDER BY recipient")]


def count(database: Database, table: str, where: str = "true") -> int:
    """The number of rows."""
    return int(database.value(f"SELECT count(*) FROM pipehandler.{table} WHERE {where}"))


@pytest.mark.parametrize("argument", ["recipient", "sender", "from_address", "list_id"])
def test_longest_value_that_a_pattern_matches(untouched: Database, argument: str) -> None:
    """Values of up to 998 octets are compared, in any characters; a longer value matches no pattern."""
    column = "sender" if argument == "from_address" else argument
    others = ", ".join(
        f"{name} => 'x'" for name in ("recipient", "sender", "from_address", "list_id") if name != argument
    )
    with psycopg.connect(untouched.admin) as connection:
        insert = f"INSERT INTO pipehandler.retention (ordinal, {column}, keep) VALUES (1, 'aa%%', '1 day')"
        connection.execute(insert.encode())
        call = f"SELECT count(*) FROM pipehandler.retention_of({others}, {argument} => %s)".encode()
        for value, matches in (("a" * 998, 1), ("a" * 999, 0), ("a" * 996 + "é", 1), ("a" * 997 + "é", 0)):
            assert connection.execute(call, [value]).fetchall() == [(matches,)], (len(value), value[-1])
        connection.rollback()


def test_pages_of_leases(database: Database) -> None:
    """Leases are removed in the order of their ends, and the next call resumes at the last one."""
    ends = []
    for days in (9, 8, 7):
        number = lease(database, f"{days}@example.com")
        end(database, number, f"{days} days")
        ends.append(database.value("SELECT expires_at FROM pipehandler.address WHERE lease = %s", number))
    pages = []
    after = None
    while True:
        (row,) = database.rows(
            "SELECT leases, next_from FROM pipehandler.remove_leases(2, coalesce(%s, '-infinity'::timestamptz))", after
        )
        pages.append(tuple(row))
        after = row.next_from
        if after is None:
            break
    assert pages == [(2, ends[1]), (1, ends[2]), (0, None)]
    assert count(database, "address") == 0


# What is removed, and what is kept.


def test_what_goes(every_database: Database) -> None:
    """A delivery is removed at its time or with its lease, a message with its last delivery, and an empty lease once no
    more mail can arrive for it; nothing else is removed."""
    database = every_database
    leases = {name: lease(database, f"{name}@example.com") for name in ("over", "alive", "old")}
    store(database, MESSAGE, "own@example.com", "over@example.com", "alive@example.com", "none@example.com")
    store(database, PICTURE, "own@example.com", "over@example.com")
    age(database, "own@example.com")
    end(database, leases["over"])
    end(database, leases["old"], "6 days")
    assert run(database) == {"deliveries": 4, "messages": 1, "leases": 1}
    assert recipients(database) == ["alive@example.com", "none@example.com"]
    assert [row.raw for row in database.rows("SELECT raw FROM pipehandler.raw_message")] == [MESSAGE]
    assert count(database, "attachment") == 0
    assert [row.lease for row in database.rows("SELECT lease FROM pipehandler.address ORDER BY lease")] == [
        *(leases["over"], leases["alive"]),
    ]
    assert run(database) == {}


def test_mail_that_was_on_its_way(every_database: Database) -> None:
    """A message that arrives after the end of its lease, because it waited in a queue, is stored but invisible, and the
    next run removes it; the lease is kept until then."""
    over = lease(every_database, "over@example.com", over=True)
    assert run(every_database) == {}
    store(every_database, MESSAGE, "over@example.com")
    assert every_database.value("SELECT lease FROM pipehandler.delivery") == over
    assert count(every_database, "inbox") == 0
    assert run(every_database) == {"deliveries": 1, "messages": 1}


def test_bytes_and_attachments_go_earlier(every_database: Database) -> None:
    """Bytes and contents are removed once no delivery needs them any more, because their time is over or the delivery
    itself is removed; a later delivery restores them."""
    database = every_database
    store(database, PICTURE, "a@example.com", "b@example.com")
    for column in ("raw_until", "attachments_until"):
        age(database, "a@example.com", column=column)
    assert run(database) == {}
    age(database, "b@example.com")
    assert run(database) == {"deliveries": 1, "raw_messages": 1, "attachments": 1}
    assert (count(database, "message"), count(database, "raw_message"), count(database, "attachment")) == (1, 0, 1)
    store(database, PICTURE, "c@example.com")
    assert (count(database, "raw_message"), count(database, "attachment", "content IS NOT NULL")) == (1, 1)
    age(database, "c@example.com", column="attachments_until")
    assert run(database) == {"attachments": 1}
    assert run(database) == {}
    assert count(database, "raw_message") == 1


@pytest.mark.parametrize("batch", [1, 3])
def test_batches(database: Database, batch: int) -> None:
    """However small the batches, everything due is removed, even rows with identical times, and each batch is a
    separate transaction."""
    over = lease(database, "@lease.example")
    for number in range(4):
        store(
            database,
            MESSAGE + b"%d" % number,
            "own@example.com",
            "x@lease.example",
            "y@lease.example",
            "raw@example.com",
        )
    end(database, over)
    age(database, "own@example.com")
    age(database, "raw@example.com", column="raw_until")
    with upkeep(database) as opened:
        first = next(iter(expiry.expire(opened, (), batch)))
    assert 0 <= first["deliveries"] <= batch
    assert count(database, "delivery") == 16 - first["deliveries"]
    run(database, batch=batch)
    assert recipients(database) == ["raw@example.com"] * 4
    assert count(database, "raw_message") == 0


def test_removing_a_lease(every_database: Database) -> None:
    """A role that issues addresses can remove a lease with all its mail at once; messages that others also received
    stay with them."""
    database = every_database
    gone = lease(database, "gone@example.com")
    store(database, MESSAGE, "gone@example.com", "other@example.com")
    store(database, PICTURE, "gone@example.com", "gone+plus@example.com")
    with psycopg.connect(database.server.conninfo(database.name, user="lessor")) as lessor:
        assert lessor.execute("SELECT pipehandler.remove_lease(%s)", [gone]).fetchall() == [(3,)]
        lessor.commit()
        with pytest.raises(NoDataFound, match=f"no lease {gone}"):
            lessor.execute("SELECT pipehandler.remove_lease(%s)", [gone])
    assert recipients(database) == ["other@example.com"]
    assert (count(database, "message"), count(database, "raw_message"), count(database, "address")) == (1, 1, 0)


def test_a_lease_that_is_extended_meanwhile(database: Database) -> None:
    """Mail of a lease that is extended while a run waits for its message is kept."""
    over = lease(database, "over@example.com")
    store(database, MESSAGE, "over@example.com")
    end(database, over)
    done: list[dict[str, int]] = []
    thread = threading.Thread(target=lambda: done.append(run(database)))
    with psycopg.connect(database.admin) as other:
        other.execute("SELECT FROM pipehandler.message FOR KEY SHARE")
        thread.start()
        wait_until(lambda: waiting(database))
        database.execute("SELECT pipehandler.extend_lease(%s)", over)
    thread.join(30)
    assert done == [{}]
    assert recipients(database) == ["over@example.com"]


def test_bytes_that_somebody_begins_to_want(database: Database) -> None:
    """Expired bytes and contents are kept if a delivery that needs them arrives at that moment."""
    store(database, PICTURE, "a@example.com")
    for column in ("raw_until", "attachments_until"):
        age(database, "a@example.com", column=column)
    done: list[dict[str, int]] = []
    thread = threading.Thread(target=lambda: done.append(run(database)))
    with psycopg.connect(database.conninfo) as handler:
        handler.execute(INGEST, submission(PICTURE, "b@example.com").arguments())
        thread.start()
        wait_until(lambda: waiting(database))
    thread.join(30)
    assert done == [{}]
    assert (count(database, "raw_message"), count(database, "attachment", "content IS NOT NULL")) == (1, 1)
    assert run(database) == {}


def test_a_lease_that_gets_mail_while_it_is_removed(database: Database) -> None:
    """A lease that receives a delivery at this moment is left to a later run; the present run does not wait for it."""
    over = lease(database, "over@example.com")
    end(database, over, "10 days")
    with psycopg.connect(database.conninfo) as handler:
        handler.execute(INGEST, submission(PICTURE, "over@example.com").arguments())
        assert run(database) == {}
    assert run(database) == {"deliveries": 1, "messages": 1, "leases": 1}


def waiting(database: Database) -> int:
    """The number of sessions that wait for a lock."""
    return int(
        database.value(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
    )


# Visibility.


def test_nobody_sees_what_has_expired(console: Console, database: Database) -> None:
    """Before the first run, expired mail is in no view and in no result; only recipients that still have the message
    see it."""
    failed = ParsedMessage(error="it failed")
    (shared, mine), (own,), (quarantined,) = (
        store(database, PICTURE, "a@example.com", "b@example.com"),
        store(database, MESSAGE, "a@example.com"),
        store(database, b"broken", "a@example.com", parsed=failed),
    )
    age(database, "a@example.com")
    assert [row["id"] for row in json.loads(console.run("list", "--json").text)] == [mine.delivery]
    assert [row["id"] for row in json.loads(console.run("show", "--json", mine.message).text)["deliveries"]] == [
        mine.delivery
    ]
    assert console.run("raw", mine.delivery).status == 0
    with upkeep(database) as opened:
        for name in (str(shared.delivery), str(own.delivery), own.message, quarantined.message):
            for look in (messages.message, messages.raw, quarantine.message):
                with pytest.raises(NoSuchMessage, match=f"nothing with the id {name} is stored"):
                    look(opened, name)
            with pytest.raises(NoSuchMessage):
                messages.attachment(opened, name, 1)
        assert quarantine.reasons(opened) == []
    assert console.run("quarantine", "drop", "--yes", quarantined.message).status == EX_NOINPUT
    assert console.run("quarantine", "list").text == "the quarantine is empty\n"
    console.run("quarantine", "export", "--all", "--to", console.folder / "out")
    assert list((console.folder / "out").iterdir()) == []
    assert count(database, "delivery") == 4


def test_content_that_is_gone(console: Console, database: Database) -> None:
    """For an attachment whose content was removed, a possible reason is shown, and parsing the message again does not
    restore it."""
    ((stored),) = store(database, PICTURE, "a@example.com", parser="0")
    age(database, "a@example.com", column="attachments_until")
    run(database)
    reported = console.run("attachment", stored.delivery, 1)
    assert reported.status == EX_NOINPUT
    assert "store.attachments was false, or [[retention]] has removed it" in reported.errors
    before = everything(database, "attachment")
    assert console.run("reparse", "--all").text == "1 tried, 0 changed, 1 parsed again\n"
    assert everything(database, "attachment") == before
    database.execute("UPDATE pipehandler.attachment SET file_name = 'other'")
    assert console.run("reparse", "--all").text == "1 tried, 1 changed, 1 parsed again\n"
    assert everything(database, "attachment") == before


# Rules.

RULES = """
expire.max_change_percent = 100
[[retention]]
recipient = "KEEP_%@example.com"
keep = "forever"
[[retention]]
sender = ""
keep = "1h"
[[retention]]
list_id = "garden.*"
keep = "2h"
raw = "1h"
[[retention]]
recipient = "*@bücher.example"
sender = "*@sender.example"
keep = "3h"
attachments = "1h"
[[retention]]
recipient = "*@example.com"
keep = "4h"
"""


@pytest.mark.parametrize("order", ["before", "after"])
def test_rules(console: Console, database: Database, order: str) -> None:
    """The first matching rule decides, in any spelling of an address, with * as the only wildcard; for later mail and
    for mail already stored."""
    console.configure(more=RULES)
    if order == "before":
        assert console.run("expire").text == "removed nothing\n"
    now = datetime.now(UTC).replace(microsecond=0).isoformat()
    plain = MESSAGE.replace(b"a@example.org", b"a@Sender.example")
    cases: dict[tuple[str, str, bytes], list[int | None]] = {
        ("keep_%@Example.com", "", PICTURE): [None, None, None],
        ("keepx%@example.com", "", PICTURE): [1, None, None],
        ("keep_x@example.com", "x@example.org", PICTURE): [2, 1, None],
        ("user@XN--Bcher-KVA.example", "x@example.org", plain): [3, None, 1],
        ("user@xn--bcher-kva.example", "y@SENDER.example", MESSAGE): [3, None, 1],
        ("user@xn--bcher-kva.example", "x@example.org", MESSAGE + b"again"): [None, None, None],
        ("user@EXAMPLE.com", "x@example.org", MESSAGE): [4, None, None],
        ("user@example.com.example", "x@example.org", MESSAGE): [None, None, None],
    }
    ids = [
        store(database, raw, recipient, sender=sender, received_at=now)[0].delivery for recipient, sender, raw in cases
    ]
    if order == "after":
        assert (
            console.run("expire").text
            == "removed nothing; the rules have changed: updated the expiry of 5 deliveries\n"
        )
    hours = "extract(epoch FROM {} - stored_at) / 3600 AS {}"
    columns = ", ".join(hours.format(name, name) for name in ("expires_at", "raw_until", "attachments_until"))
    rows = {row.id: row for row in database.rows(f"SELECT id, {columns} FROM pipehandler.delivery")}
    assert {
        case: [rows[number][1], rows[number][2], rows[number][3]] for case, number in zip(cases, ids, strict=True)
    } == cases
    assert console.run("expire").text == "removed nothing\n"
    console.configure()
    assert console.run("expire").text == "removed nothing; the rules have changed: updated the expiry of 5 deliveries\n"
    assert (count(database, "retention"), count(database, "delivery", "expires_at IS NULL")) == (0, len(cases))


def test_delivered_with_rules(either: Handler, database: Database) -> None:
    """The handler accepts a configuration with rules, and its deliveries follow the rules that `pipehandler expire` has
    loaded into the database: other mail is kept."""
    with either.config.open("a") as file:
        file.write("[[retention]]\nlist_id = '*'\nkeep = '90d'\nraw = '7d'\n")
    subprocess.run([PROGRAM, "--config", either.config, "--conninfo", database.admin, "expire"], check=True)
    for raw in (PICTURE, MESSAGE):
        assert either.deliver(raw).status == 0
    kept = database.rows(
        "SELECT expires_at - stored_at AS mail, raw_until - stored_at AS raw FROM pipehandler.delivery ORDER BY id"
    )
    assert kept == [(timedelta(days=90), timedelta(days=7)), (None, None)]


def test_a_change_goes_on(database: Database) -> None:
    """A run that ends while it applies a change does no harm: the next one resumes there, and removed bytes stay
    removed."""
    numbers = [store(database, MESSAGE + b"%d" % number, "a@example.com")[0].delivery for number in range(5)]
    database.execute("UPDATE pipehandler.delivery SET raw_until = 'epoch' WHERE id = %s", numbers[0])
    rules = (Rule(keep=timedelta(days=1), raw=timedelta(hours=1)),)
    with upkeep(database) as opened:
        first = next(counts for counts in expiry.expire(opened, rules, 2) if counts["applied"])
    assert first == {"applied": 2, "changed": 2}
    assert database.value("SELECT through FROM pipehandler.retention_change") == numbers[1]
    assert run(database, *rules, batch=2) == {"applied": 3, "changed": 3}
    assert count(database, "delivery", "expires_at = stored_at + interval '24 hours'") == 5
    assert count(database, "delivery", "raw_until = 'epoch'") == 1
    assert count(database, "retention_change") == 0


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_delivery_that_read_the_old_rules(database: Database, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """A delivery that read the old rules, before the change or before its commit, and commits after it, still follows
    the new ones."""
    monkeypatch.setattr(expiry, "_PATIENCE", 0.1)
    rules = (Rule(keep=timedelta(days=1)),)
    arguments = submission(MESSAGE, "slow@example.com").arguments()
    with psycopg.connect(database.conninfo) as handler, psycopg.connect(database.admin) as operator:
        if when == "before":
            handler.execute(INGEST, arguments)
        operator.execute("SELECT pipehandler.set_retention(%s)", [json.dumps([{"keep": 86400}])])
        if when == "meanwhile":
            handler.execute(INGEST, arguments)
        operator.commit()
        store(database, PICTURE, "quick@example.com")
        assert run(database, *rules) == {"waiting": 1}
        assert run(database, *rules) == {"waiting": 1}
    # Its retention ended months ago, so it is removed in the same run.
    database.execute("UPDATE pipehandler.delivery SET stored_at = received_at WHERE recipient = 'slow@example.com'")
    assert run(database, *rules) == {"applied": 2, "changed": 1, "deliveries": 1, "messages": 1}
    assert recipients(database) == ["quick@example.com"]


def test_rules_without_a_delivery_to_apply_them_to(database: Database) -> None:
    """Nothing is examined and nothing has changed: without new rules, while an older transaction runs, and at the end."""
    apply = "SELECT applied, changed, waits, skipped FROM pipehandler.apply_rules()"
    assert database.rows(apply) == [(0, 0, False, [])]
    with psycopg.connect(database.admin) as other:
        other.execute("SELECT pg_current_xact_id()")
        database.execute("SELECT pipehandler.set_retention(%s)", json.dumps([{"keep": 86400}]))
        assert database.rows(apply) == [(0, 0, True, [])]
    assert database.rows(apply) == [(0, 0, False, [])]


# The command.


def prepared(database: Database) -> None:
    """Something of each kind is due, by the rule below or already."""
    leases = [lease(database, f"{name}@example.com") for name in ("over", "old", "alive")]
    store(database, MESSAGE, "over@example.com", "alive@example.com", received_at="2026-09-07T10:00:00Z")
    store(database, PICTURE, "raw@example.com", "rule@example.com", received_at="2026-09-07T10:00:00Z")
    store(database, b"due", "due@example.com", "rule@example.com", received_at="2026-09-07T10:00:00Z")
    end(database, leases[0])
    end(database, leases[1], "10 days")
    age(database, "due@example.com")
    for column in ("raw_until", "attachments_until"):
        age(database, "raw@example.com", column=column)


DUE = """
expire.max_change_percent = 100
[[retention]]
recipient = "raw@*"
raw = "1d"
attachments = "1d"
[[retention]]
recipient = "*u*@*"
keep = "1d"
"""
REMOVED = "4 deliveries, 1 message, 1 message's bytes, 1 attachment's content, 1 lease"


def test_dry_run(console: Console, database: Database) -> None:
    """A dry run counts what would be removed, including by rules not yet in force, and changes nothing; then exactly
    that is removed."""
    prepared(database)
    console.configure(more=DUE)
    before = [everything(database), everything(database, "address", "retention", "retention_change")]
    said = console.run("expire", "--dry-run").text
    assert [everything(database), everything(database, "address", "retention", "retention_change")] == before
    assert said == f"would remove {REMOVED}; the rules have changed: would update the expiry of 4 deliveries\n"
    assert console.run("expire").text == said.replace("would remove", "removed").replace("would update", "updated")
    assert console.run("expire", "--dry-run").text == "would remove nothing\n"
    assert console.run("expire", "--dry-run", "--every", "1").status == 2
    assert recipients(database) == ["alive@example.com", "raw@example.com"]


def test_again_and_again(folder: Path, own_database: Database) -> None:
    """With --every it reports that it is ready, removes what comes due, reports failures, survives a restart of the database
    and a broken configuration, and ends at once on a signal."""
    database = own_database
    console = Console(folder, database)
    with console.start("expire", "--every", "1") as running:
        try:
            store(database, MESSAGE, "a@example.com")
            age(database, "a@example.com")
            wait_until(lambda: not recipients(database))
            database.server.stop()
            assert running.stderr
            with bounded(running):
                assert running.stderr.readline() == b"removing expired mail every 1 s\n"
                assert re.search(rb"database: .*; trying again in 1 s\n", running.stderr.readline())
            database.server.start()
            store(database, MESSAGE, "a@example.com")
            console.config.write_text(console.config.read_text() + "[[retention]]\nkeep = 1\n")
            with bounded(running):
                assert any(b"rule 1: keep = 1" in line for line in running.stderr)
            console.configure(more="expire.max_change_percent = 100\n[[retention]]\nraw = '1s'")
            wait_until(lambda: not count(database, "raw_message"))
            running.send_signal(signal.SIGTERM)
            assert running.wait(60) == 0
            assert running.stdout
            assert running.stdout.read().startswith(b"removed 1 delivery, 1 message\n")
        finally:
            running.kill()


def test_interrupted(console: Console, database: Database) -> None:
    """Ctrl-C ends a run that waits for a lock; its batch is rolled back, and nothing is lost."""
    store(database, MESSAGE, "a@example.com")
    age(database, "a@example.com")
    with psycopg.connect(database.admin) as other:
        other.execute("SELECT FROM pipehandler.message FOR KEY SHARE")
        running = console.start("expire")
        wait_until(lambda: waiting(database))
        running.send_signal(signal.SIGINT)
        output, errors = running.communicate(timeout=60)
        wait_until(lambda: not waiting(database))
    assert (running.returncode, output, errors) == (
        *(INTERRUPTED, b"removed nothing\n", b"Error: interrupted; the next run continues\n"),
    )
    assert recipients(database) == ["a@example.com"]


def test_on_a_terminal(console: Console, database: Database) -> None:
    """A progress bar for people, to its end, and then what was removed."""
    for recipient in ("a@example.com", "b@example.com"):
        store(database, MESSAGE, recipient)
        age(database, recipient)
    shown = console.on_a_terminal("expire")
    assert b"100%" in shown
    assert b"removed 2 deliveries, 1 message" in shown.partition(b"100%")[2]


def test_refused(console: Console, database: Database) -> None:
    """A role without the right to remove gets an error that names the role with it; an invalid rule is reported with
    its number."""
    console.configure("reader", "[[retention]]\nkeep = '1d'")
    for arguments in ([], ["--dry-run"]):
        done = console.run("expire", *arguments)
        assert (done.status, done.output) == (EX_UNAVAILABLE, b"")
        assert "permission denied" in done.errors
        assert "pipehandler_maintenance" in done.errors
    console.configure(more="[[retention]]\nkeep = '1d'\n[[retention]]\nkept = '1d'")
    for arguments in ([], ["--dry-run"], ["--every", "1"]):
        done = console.run("expire", *arguments)
        assert (done.status, done.output) == (EX_CONFIG, b"")
        assert "[[retention]], rule 2: kept is not a key" in done.errors


# Concurrency.

RACE = (
    Rule(recipient="short@*", keep=timedelta(seconds=1)),
    Rule(recipient="text@*", raw=timedelta(seconds=1), attachments=timedelta(seconds=1)),
)
PARTIES = (
    (("short", "text"), ("over", "short"), ("kept",)),
    (("short", "over"), ("over", "short"), ("short",)),
    (("short", "text"), ("text",), ("over", "short")),
)
PAST = """
CREATE FUNCTION past() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.stored_at := NEW.stored_at - interval '1 hour';
    NEW.expires_at := NEW.expires_at - interval '1 hour';
    NEW.raw_until := NEW.raw_until - interval '1 hour';
    NEW.attachments_until := NEW.attachments_until - interval '1 hour';
    RETURN NEW;
END
$$;
CREATE TRIGGER past BEFORE INSERT ON pipehandler.delivery FOR EACH ROW EXECUTE FUNCTION past();
"""
"""An hour passes at once: what the rules keep for a second is due when it is stored."""
WHOLE: tuple[list[tuple[bool, bool]], ...] = ([(True, True)], [], [(False, False)])
"""The recipients of one message that three threads deliver at the same time, for three messages in turn, and what is
left of each: (bytes, contents). Mail stored an hour ago is due at once: all mail for short, and the bytes for text.
over is a lease that ends and is issued again, kept is a recipient that keeps its mail."""


def test_against_deliveries(database: Database) -> None:
    """While the same few messages are delivered, expire, lose and regain their bytes, and their leases end and are
    removed: nothing is lost that was reported as stored and is not due, no message is left without a delivery, and
    every delivery that needs bytes has them."""
    over = threading.Event()
    failures: list[str] = []
    answered: set[int] = set()
    removed: expiry.Counts = expiry.Counts()
    together = threading.Barrier(len(PARTIES))
    turns: list[int] = []
    run(database, *RACE)
    database.execute(PAST)

    def guarded(work: Callable[[int], None], number: int) -> threading.Thread:
        def guard() -> None:
            try:
                work(number)
            except Exception as error:  # noqa: BLE001 # record whatever ends a thread
                failures.append(f"{work.__name__}: {type(error).__name__}: {error}")

        return threading.Thread(target=guard)

    def deliver(number: int) -> None:
        with closing(MessageStore(database.conninfo)) as opened:
            chance = random.Random(number)
            for turn in range(3000):
                together.wait(60)
                if turn >= 60 and removed["messages"] and removed["raw_messages"]:
                    break
                together.wait(60)
                if number == 0:
                    turns.append(turn)
                time.sleep(chance.uniform(0, 0.01))
                made = submission(
                    PICTURE + b"%d" % turn, *(f"{name}@example.com" for name in PARTIES[turn % 3][number])
                )
                for _ in range(20):
                    try:
                        rows = opened.ingest(made)
                        break
                    except StoreError as error:
                        if error.sqlstate not in ("40001", "40P01", "23503"):
                            raise
                else:
                    raise AssertionError("a delivery was never taken")
                answered.update(row.delivery for row in rows if row.recipient == "kept@example.com")

    def expire(number: int) -> None:
        with upkeep(database) as opened:
            while not over.is_set():
                for counts in expiry.expire(opened, RACE, 3 + number):
                    removed.update(counts)
                opened.rows("SELECT * FROM pipehandler.remove_leases(5, '-infinity', '0')")

    def give(_: int) -> None:
        while not over.is_set():
            try:
                number = lease(database, "over@example.com")
                time.sleep(0.005)
                end(database, number)
                if number % 4 == 0:
                    database.execute("SELECT pipehandler.remove_lease(%s)", number)
            except (psycopg.errors.UniqueViolation, psycopg.errors.NoDataFound, psycopg.errors.DeadlockDetected):
                pass

    deliverers = [guarded(deliver, number) for number in range(3)]
    others = [guarded(expire, 0), guarded(expire, 1), guarded(give, 0)]
    for thread in (*deliverers, *others):
        thread.start()
    for thread in deliverers:
        thread.join()
    over.set()
    for thread in others:
        thread.join()
    assert failures == []
    assert removed["deliveries"] > 0
    assert removed["messages"] > 0
    assert removed["raw_messages"] > 0
    database.execute("SELECT pipehandler.remove_lease(lease) FROM pipehandler.address")
    database.execute(
        "UPDATE pipehandler.delivery SET expires_at = now() WHERE recipient = 'over@example.com'"
    )  # belongs to no lease
    run(database, *RACE)

    there = {
        row.id for row in database.rows("SELECT id FROM pipehandler.delivery WHERE recipient = 'kept@example.com'")
    }
    assert answered == there
    assert not set(recipients(database)) & {"short@example.com", "over@example.com"}
    assert (
        count(
            database,
            "message m",
            "NOT EXISTS (SELECT FROM pipehandler.delivery d WHERE d.day = m.day AND d.message = m.id)",
        )
        == 0
    )
    whole = """
    SELECT EXISTS (SELECT FROM pipehandler.raw_message r WHERE r.day = m.day AND r.message = m.id) AS raw,
           EXISTS (SELECT FROM pipehandler.attachment a
                    WHERE a.day = m.day AND a.message = m.id AND a.content IS NOT NULL) AS content
      FROM pipehandler.message m
     WHERE m.id = %s::uuid
    """
    found = {turn: [tuple(row) for row in database.rows(whole, identify(PICTURE + b"%d" % turn).id)] for turn in turns}
    assert found == {turn: WHOLE[turn % 3] for turn in turns}


SPOILED = """
CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'damaged' USING ERRCODE = 'XX001'; END $$;
CREATE TRIGGER spoil BEFORE UPDATE OR DELETE ON pipehandler.delivery FOR EACH ROW WHEN (OLD.recipient = 'bad@example.com')
EXECUTE FUNCTION spoil();
"""
"""Rows that can neither be changed nor removed, as on a damaged disk."""


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_a_bad_row_stops_nothing(database: Database, batch: int) -> None:
    """A row that fails is skipped and reported once; new rules are applied to all others, all others are removed, and
    the run ends."""
    bad = []
    for number in range(7):
        (row,) = store(database, MESSAGE + b"%d" % number, f"{'bad' if number in (0, 3, 4) else 'good'}@example.com")
        bad += [row.delivery] if number in (0, 3, 4) else []
    database.execute(SPOILED)
    skipped: list[int] = []
    with upkeep(database) as opened:
        counts = expiry.Counts()
        for each in expiry.expire(opened, (Rule(keep=timedelta(days=1)),), batch, skipped.append):
            counts.update(each)
    assert (counts["applied"], counts["changed"], counts["skipped"], sorted(skipped)) == (7, 4, 3, bad)
    assert count(database, "retention_change") == 0
    # All come due at the same moment.
    database.execute(
        "ALTER TABLE pipehandler.delivery DISABLE TRIGGER spoil; UPDATE pipehandler.delivery SET expires_at = now();"
        " ALTER TABLE pipehandler.delivery ENABLE TRIGGER spoil"
    )
    skipped.clear()
    with upkeep(database) as opened:
        counts = expiry.Counts()
        for each in expiry.expire(opened, (Rule(keep=timedelta(days=1)),), batch, skipped.append):
            counts.update(each)
    assert recipients(database) == ["bad@example.com"] * 3
    assert (counts["deliveries"], counts["messages"]) == (4, 4)
    assert sorted(skipped) == bad
    assert count(database, "message") == 3


@pytest.mark.parametrize("batch", [1, 100])
def test_a_row_that_a_session_keeps_stops_nothing(database: Database, batch: int) -> None:
    """A handler that was taken over delivers its own mail again, and leaves the transaction open: all other mail is removed, and
    that row by the first run after it."""
    kept = submission(MESSAGE, "kept@example.com")
    skipped: list[int] = []
    store(database, MESSAGE, "kept@example.com")
    for number in range(3):
        store(database, MESSAGE + b"%d" % number, "good@example.com")
    database.execute("UPDATE pipehandler.delivery SET expires_at = now()")
    with psycopg.connect(database.conninfo) as handler:
        handler.execute(INGEST, kept.arguments())
        with upkeep(database) as opened:
            opened.longest_lock = 0.2
            for _ in expiry.expire(opened, (), batch, skipped.append):
                pass
        assert (recipients(database), len(skipped)) == (["kept@example.com"], 1)
    run(database)
    assert recipients(database) == []
    assert count(database, "message") == 0


KEPT_BY = {
    "foreign key": """
        CREATE TABLE public.ticket (delivery bigint REFERENCES pipehandler.delivery (id));
        INSERT INTO public.ticket SELECT id FROM pipehandler.delivery WHERE recipient = 'bad@example.com'
    """,
    "trigger": """
        CREATE FUNCTION public.keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
        CREATE TRIGGER keep BEFORE UPDATE OR DELETE ON pipehandler.delivery FOR EACH ROW
        WHEN (OLD.recipient = 'bad@example.com') EXECUTE FUNCTION public.keep()
    """,
    "rule": """
        CREATE RULE keep AS ON DELETE TO pipehandler.delivery WHERE old.recipient = 'bad@example.com' DO INSTEAD NOTHING
    """,
}
"""What an application may have added that keeps a row: the first with an error, the others without one."""


@pytest.mark.parametrize("column", ["expires_at", "raw_until"])
@pytest.mark.parametrize("batch", [1, 100])
@pytest.mark.parametrize("kept_by", KEPT_BY)
def test_a_row_that_an_application_keeps_stops_nothing(
    database: Database, kept_by: str, batch: int, column: str
) -> None:
    """It is skipped and reported, by the command and in SQL; all else is removed, and the run ends."""
    bad = [store(database, MESSAGE + b"bad%d" % number, "bad@example.com")[0].delivery for number in range(2)]
    for number in range(3):
        store(database, MESSAGE + b"%d" % number, "good@example.com")
    database.execute(f"UPDATE pipehandler.delivery SET {column} = now()")
    database.execute(KEPT_BY[kept_by])
    keeps = column == "expires_at" or kept_by == "trigger"
    skipped: list[int] = []
    with upkeep(database) as opened:
        rounds = list(itertools.islice(expiry.expire(opened, (), batch, skipped.append), 30))
    assert len(rounds) < 30
    assert sorted(skipped) == (bad if keeps else [])
    if column == "expires_at":
        assert recipients(database) == ["bad@example.com"] * 2
        assert count(database, "raw_message") == 2
    else:
        assert count(database, "raw_message") == 0
    next_from, calls = "-infinity", 0
    while next_from is not None and calls < 30:
        next_from = database.value("SELECT next_from::text FROM pipehandler.expire(%s, %s)", batch, next_from)
        calls += 1
    assert calls < 30


@pytest.mark.parametrize("batch", [1, 100])
def test_a_lease_that_an_application_refers_to_stops_nothing(database: Database, batch: int) -> None:
    """An application keeps the numbers of leases, perhaps with a foreign key: the other leases are removed."""
    numbers = [lease(database, f"{number}@example.com") for number in range(4)]
    for number in numbers:
        end(database, number, "6 days")
    database.execute("CREATE TABLE public.member (lease bigint REFERENCES pipehandler.address (lease))")
    database.execute("INSERT INTO public.member VALUES (%s), (%s)", numbers[0], numbers[2])
    assert run(database, batch=batch) == {"leases": 2}
    assert [row.lease for row in database.rows("SELECT lease FROM pipehandler.address ORDER BY 1")] == numbers[::2]


def test_the_command_reports_a_bad_row(console: Console, database: Database) -> None:
    """Skipped rows are named on standard error, and counted in the summary."""
    (row,) = store(database, MESSAGE, "bad@example.com")
    store(database, MESSAGE, "good@example.com")
    age(database, "bad@example.com", "good@example.com")
    database.execute(SPOILED)
    done = console.run("expire")
    assert (done.status, done.output) == (0, b"removed 1 delivery; skipped 1 delivery\n")
    assert done.errors.startswith(f"delivery {row.delivery} was skipped: ")
