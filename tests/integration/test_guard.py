"""The guard on `expire`: rules that would remove too much wait for confirmation, and nothing else waits with them."""

import json
from contextlib import closing
from datetime import timedelta

import pytest
from harness.console import Console, everything
from harness.database import Database
from harness.submission import submission

from pipehandler.mail.sysexits import EX_TEMPFAIL
from pipehandler.settings.retention import Rule
from pipehandler.store import expiry
from pipehandler.store.expiry import ATTACHMENTS, CHANGED, DELIVERIES, HELD, MESSAGES, RAW_MESSAGES, STORED, Counts
from pipehandler.store.health import health
from pipehandler.store.message_store import MessageStore

DAY = timedelta(days=1)
MESSAGE = b"Subject: %d\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\ntext\n--b\nContent-Type: image/gif\n\nGIF\n--b--\n"


def fill(database: Database, days: list[float], recipient: str = "user@example.com") -> None:
    """Store a message for each age, in days."""
    with closing(MessageStore(database.conninfo)) as store:
        first = database.value("SELECT count(*) FROM pipehandler.delivery")
        for number, age in enumerate(days, first):
            (stored,) = store.ingest(submission(MESSAGE % number, recipient))
            database.execute(
                "UPDATE pipehandler.delivery SET stored_at = now() - make_interval(secs => %s) WHERE id = %s",
                *(age * 86_400, stored.delivery),
            )


def run(database: Database, *rules: Rule, percent: int = 20) -> Counts:
    """One whole run."""
    total = Counts()
    with closing(MessageStore(database.server.conninfo(database.name, user="upkeep"))) as store:
        for counts in expiry.expire(store, rules, max_percent=percent):
            total.update(counts)
    return +total


def test_too_much(every_database: Database) -> None:
    """Rules that would remove more than the share change nothing, for stored and for new mail, in every run until they
    are confirmed or reverted."""
    database = every_database
    fill(database, [10, 9, 8, 7, 1])
    before = everything(database)
    for _ in range(2):
        assert run(database, Rule(keep=timedelta(seconds=1))) == {HELD: 5, STORED: 5}
        assert everything(database) == before
    assert database.value("SELECT count(*) FROM pipehandler.retention") == 0
    fill(database, [0])
    assert database.value("SELECT count(*) FROM pipehandler.delivery WHERE expires_at IS NULL") == 6
    with closing(MessageStore(database.conninfo)) as store:  # the handler's role may see it
        state = health(store)
    assert (state.held_deliveries, state.held_stored) == (5, 5)
    assert state.held_since
    assert run(database) == {}  # reverted
    with closing(MessageStore(database.conninfo)) as store:
        assert health(store).held_since is None
    assert run(database, Rule(keep=timedelta(days=8, hours=12))) == {
        HELD: 3,
        STORED: 6,
    }  # one of them is due within a day
    assert run(database, Rule(keep=timedelta(days=8, hours=12)), percent=100)[DELIVERIES] == 2
    assert run(database, Rule(keep=timedelta(days=8, hours=12)))[HELD] == 0
    with closing(MessageStore(database.conninfo)) as store:
        assert health(store).held_since is None


@pytest.mark.parametrize(("percent", "held"), [(0, True), (19, True), (20, False), (100, False)])
def test_the_share(database: Database, percent: int, held: bool) -> None:
    """The share is of the stored deliveries: exactly that many are allowed, more are not."""
    fill(database, [10, 1, 1, 1, 1])
    counts = run(database, Rule(keep=timedelta(days=5)), percent=percent)
    assert bool(counts[HELD]) == held
    assert counts[DELIVERIES] == (not held)


def test_many_deliveries(database: Database) -> None:
    """Of many deliveries a sample is counted, which is accurate enough; if none may be removed, all are counted."""
    fill(database, [10])
    database.execute(
        "INSERT INTO pipehandler.delivery"
        " (day, message, recipient, fingerprint, sender, mail_host, ingress, received_at, stored_at)"
        " SELECT day, message, recipient, sha256(n::text::bytea), sender, mail_host, ingress, received_at,"
        "        CASE WHEN n % 4 = 0 THEN stored_at ELSE now() END"
        "   FROM pipehandler.delivery, generate_series(1, 19999) AS n"
    )
    counts = run(database, Rule(keep=timedelta(days=5)))
    assert 19_000 < counts[STORED] < 21_000
    assert 0.23 < counts[HELD] / counts[STORED] < 0.27
    assert run(database, Rule(keep=timedelta(days=6)), percent=0) == {HELD: 5_000, STORED: 20_000}
    assert run(database, Rule(keep=timedelta(days=5)), percent=30)[DELIVERIES] == 5_000


def test_another_share_later(database: Database) -> None:
    """A larger share lets waiting rules pass."""
    fill(database, [10, 10, 1])
    rule = Rule(keep=timedelta(days=5))
    assert run(database, rule)[HELD] == 2
    assert run(database, rule, percent=66)[HELD] == 2
    assert run(database, rule, percent=67)[DELIVERIES] == 2


def test_time_and_leases_go_on(database: Database) -> None:
    """Mail that is due by the present rules or a lease is removed while other rules wait, however much it is."""
    database.execute("SELECT pipehandler.lease_address('shop@example.com')")
    fill(database, [6] * 3, "shop@example.com")
    fill(database, [6] * 3)
    assert run(database, Rule(keep=9 * DAY))[CHANGED] == 6
    assert run(database, Rule(keep=DAY))[HELD] == 6
    database.execute("SELECT pipehandler.expire_lease(1)")
    database.execute("UPDATE pipehandler.delivery SET expires_at = now() WHERE lease IS NULL")
    assert run(database, Rule(keep=DAY)) == {DELIVERIES: 6, MESSAGES: 6, HELD: 6, STORED: 6}


def test_what_goes_anyway_does_not_count(database: Database) -> None:
    """Mail of a lease that ends within a day, and mail that expires within a day, is not a reason to wait."""
    database.execute("SELECT pipehandler.lease_address('shop@example.com', '1 hour')")
    fill(database, [0.1] * 5, "shop@example.com")
    fill(database, [0.1] * 5)
    database.execute("UPDATE pipehandler.delivery SET expires_at = now() + interval '2 hours' WHERE lease IS NULL")
    assert run(database, Rule(keep=timedelta(hours=1)), percent=0)[DELIVERIES] == 10


@pytest.mark.parametrize("lost", ["raw", "attachments"])
def test_bytes_and_attachments(database: Database, lost: str) -> None:
    """The exact bytes and the attachments are stored as well: rules that would remove only these also wait."""
    fill(database, [2] * 5)
    rule = Rule()._replace(**{lost: DAY})  # type: ignore[arg-type]
    assert run(database, rule) == {HELD: 5, STORED: 5}
    assert run(database, rule, percent=100)[{"raw": RAW_MESSAGES, "attachments": ATTACHMENTS}[lost]] == 5
    assert run(database, Rule()._replace(**{lost: timedelta(hours=1)}))[HELD] == 0  # type: ignore[arg-type] # nothing is left


def test_rows_out_of_range(database: Database) -> None:
    """A time at the end of the calendar does not stop the count."""
    fill(database, [10, 10, 0])
    database.execute(
        "ALTER TABLE pipehandler.delivery DROP CONSTRAINT delivery_times"
    )  # as for rows of an earlier release
    for value, held in {"294276-12-31": 2, "infinity": 2, "-infinity": 3}.items():
        database.execute("UPDATE pipehandler.delivery SET stored_at = %s WHERE id = 3", value)
        assert run(database, Rule(keep=5 * DAY))[HELD] == held
        assert run(database) == {}


def test_the_commands(console: Console, database: Database) -> None:
    """The command reports what waits, with status 75; `status`, its JSON and the metrics report it as well; --confirm
    applies the rules."""
    fill(database, [10, 10, 10, 1])
    database.execute("UPDATE pipehandler.delivery SET expires_at = now() WHERE id = 1")
    console.configure(more='[[retention]]\nkeep = "1s"')
    dry = console.run("expire", "--dry-run")
    assert (dry.status, dry.output) == (EX_TEMPFAIL, b"would remove 1 delivery, 1 message\n")
    held = (
        "the rules have changed, and do not apply yet: they would remove mail, bytes or attachments of 3 of 3 deliveries within a"
        " day, more than expire.max_change_percent allows; correct them, or let them apply with `pipehandler expire --confirm`\n"
    )
    done = console.run("expire")
    assert (done.status, done.output, done.errors) == (EX_TEMPFAIL, b"removed 1 delivery, 1 message\n", held)
    status = console.run("status")
    assert "Retention:  changed rules wait since 2" in status.output.decode()
    assert "they would remove something of 3 of 3 deliveries within a day\n" in status.output.decode()
    state = json.loads(console.run("status", "--json").output)["database"]
    assert (state["held_deliveries"], state["held_stored"]) == (3, 3)
    assert "\npipehandler_retention_held_deliveries 3.0\n" in console.run("metrics").output.decode()
    assert console.run("expire", "--dry-run", "--confirm").text.startswith("would remove 3 deliveries, 3 messages;")
    assert console.run("expire", "--confirm").text.startswith("removed 3 deliveries, 3 messages;")
    assert console.run("expire").text == "removed nothing\n"
    assert "\npipehandler_retention_held_deliveries 0.0\n" in console.run("metrics").output.decode()
    assert console.run("expire", "--every", "5", "--confirm").status == 2


def test_the_key(console: Console, database: Database) -> None:
    """expire.max_change_percent is the share."""
    fill(database, [10, 1])
    console.configure(more='expire.max_change_percent = 50\n[[retention]]\nkeep = "5d"')
    assert console.run("expire").text.startswith("removed 1 delivery, 1 message;")
