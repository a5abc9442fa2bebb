"""Deliveries to addresses with a lifetime: what is stored, rejected and logged. Cold and resident."""

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from harness.console import Console
from harness.database import Database
from harness.handler import Ended, Handler
from harness.service import stuck
from harness.submission import submission

from pipehandler.mail.sysexits import EX_NOUSER, EX_OK
from pipehandler.settings.config import Recipients
from pipehandler.store.message_store import MessageStore

MESSAGE = b"From: A <a@example.org>\nMessage-ID: <%s@example.org>\nSubject: one\n\nbody\n"
REJECTED = Ended(EX_NOUSER, "5.1.1 recipient unknown\n")


def lease(database: Database, address: str, ttl: str | None = None) -> int:
    """Issue an address."""
    return int(database.value("SELECT lease FROM pipehandler.lease_address(%s, %s)", address, ttl))


def stored(database: Database) -> list[tuple[str, int | None, str | None]]:
    """Recipient, lease and extension of each delivery, in order."""
    rows = database.rows("SELECT recipient, lease, extension FROM pipehandler.delivery ORDER BY id")
    return [tuple(row) for row in rows]


def line(ended: Ended) -> str:
    """The output line of a stored message, without its id."""
    assert ended.status == EX_OK
    return ended.output.rpartition(" ")[0]


def test_known_and_reject(either: Handler, database: Database) -> None:
    """If only live leases are accepted, the message is stored for the recipients with a live lease; the status is 67
    only if there is none. A message stored before is a duplicate, even if the lease has expired since: its sender never
    gets a bounce."""
    either.configure(database.conninfo, recipients={"policy": "known", "expired": "reject"})
    user, gone = lease(database, "user@example.com"), lease(database, "gone@example.com", "1 us")
    catch = lease(database, "@catch.example")

    assert either.deliver(MESSAGE % b"1", "nobody@example.com") == REJECTED
    assert either.deliver(MESSAGE % b"1", "nobody@example.com", "gone@example.com") == REJECTED
    assert not database.value("SELECT count(*) FROM pipehandler.message")

    recipients = ("nobody@example.com", "User+Ext@example.com", "gone@example.com", "any@catch.example")
    assert line(either.deliver(MESSAGE % b"2", *recipients)) == "2.0.0 stored"
    assert line(either.deliver(MESSAGE % b"2", *recipients)) == "2.0.0 stored before"
    both = [("User+Ext@example.com", user, "Ext"), ("any@catch.example", catch, None)]
    assert sorted(stored(database)) == both
    fields = [dict(word.split("=", 1) for word in each.split(" reason=")[0].split()) for each in either.log_lines()]
    assert [each["outcome"] for each in fields] == ["unknown_recipient"] * 2 + ["delivered", "duplicate"]
    assert 'reason="2 of 4 recipients have no live lease"' in either.log_lines()[2]

    database.execute("SELECT pipehandler.expire_lease(%s)", user)
    assert line(either.deliver(MESSAGE % b"2", "User+Ext@example.com")) == "2.0.0 stored before"
    assert either.deliver(MESSAGE % b"3", "User+Ext@example.com") == REJECTED
    assert sorted(stored(database)) == both
    assert gone


def test_given_out_again(either: Handler, database: Database) -> None:
    """The same message for an address that was issued again is a delivery of the new holder, who sees nothing of the
    old one's; a message that cannot be parsed is also the new holder's."""
    either.configure(database.conninfo, recipients={"policy": "known", "expired": "store"})
    old = lease(database, "user@example.com")
    assert line(either.deliver(MESSAGE % b"1")) == "2.0.0 stored"
    database.execute("SELECT pipehandler.expire_lease(%s)", old)
    assert line(either.deliver(MESSAGE % b"late")) == "2.0.0 stored"
    new = lease(database, "user@example.com")
    visible = "SELECT count(*) FROM pipehandler.inbox"
    assert database.value(visible) == 0
    assert line(either.deliver(MESSAGE % b"1")) == "2.0.0 stored"
    assert line(either.deliver(MESSAGE % b"1")) == "2.0.0 stored before"
    assert database.value(visible) == 1

    database.execute("ALTER TABLE pipehandler.message ADD CHECK (subject <> 'refused')")
    refused = either.deliver(MESSAGE.replace(b"one", b"refused") % b"4", "user@example.com", "nobody@example.com")
    assert line(refused) == "2.0.0 stored, not parsed"
    assert [row[1] for row in stored(database)] == [old, old, new, new]
    assert either.deliver(MESSAGE % b"5", "nobody@example.com") == REJECTED


def test_the_moment_of_its_end(database: Database) -> None:
    """At the very moment at which a lease ends it has ended: for Postfix, for a delivery, for readers and for its address."""
    recipients = Recipients(policy="known", expired="reject")
    first, second = submission(recipients=recipients), submission(MESSAGE % b"2", recipients=recipients)
    with psycopg.connect(database.admin) as connection:  # one transaction, so a single timestamp
        cursor = connection.cursor()
        number = cursor.execute("SELECT lease FROM pipehandler.lease_address('user@example.com')").fetchone()
        assert cursor.execute(first.statement().encode(), first.arguments()).fetchall()[0][3] is False
        cursor.execute("SELECT pipehandler.expire_lease(%s)", number)
        assert cursor.execute("SELECT expires_at = now() FROM pipehandler.address").fetchall() == [(True,)]
        assert cursor.execute("SELECT * FROM pipehandler.lookup('user@example.com')").fetchall() == []
        assert cursor.execute(second.statement().encode(), second.arguments()).fetchall() == [
            ("user@example.com", None, None, None)
        ]
        assert cursor.execute("SELECT count(*) FROM pipehandler.current_delivery").fetchall() == [(0,)]
        assert cursor.execute("SELECT oldest_expired = now() FROM pipehandler.health()").fetchall() == [(True,)]
        assert cursor.execute("SELECT deliveries, messages FROM pipehandler.expire()").fetchall() == [(1, 1)]
        # A lease may be kept for a while; only remaining mail is overdue.
        assert cursor.execute("SELECT oldest_expired FROM pipehandler.health()").fetchall() == [(None,)]
        assert cursor.execute("SELECT leases FROM pipehandler.remove_leases(grace => '0')").fetchall() == [(1,)]
        assert cursor.execute(
            "SELECT lease > %s FROM pipehandler.lease_address('user@example.com')", number
        ).fetchall() == [(True,)]


def test_any(handler: Handler, database: Database) -> None:
    """Without a policy everything is stored, with its lease if there is one; another recipient delimiter works as
    well."""
    user, gone = lease(database, "user@example.com"), lease(database, "gone@example.com", "1 us")
    recipients = ("user@example.com", "user+x@example.com", "nobody@example.com", "gone@example.com")
    assert line(handler.deliver(MESSAGE % b"1", *recipients)) == "2.0.0 stored"
    assert {row[0]: row[1:] for row in stored(database)} == {
        "user@example.com": (user, None),
        "user+x@example.com": (user, "x"),
        "nobody@example.com": (None, None),
        "gone@example.com": (gone, None),
    }
    handler.configure(database.conninfo, recipients={"delimiter": "-"})
    assert line(handler.deliver(MESSAGE % b"2", "user-y@example.com", "user+y@example.com")) == "2.0.0 stored"
    assert sorted(stored(database)[-2:]) == [("user+y@example.com", None, None), ("user-y@example.com", user, "y")]


@pytest.mark.parametrize("policy", ["any", "known"])
def test_removed_at_this_very_moment(database: Database, policy: str) -> None:
    """A lease that is removed during a delivery to it: the delivery is retried, and sees the present state."""
    number = lease(database, "user@example.com")
    store = MessageStore(database.conninfo)
    with psycopg.connect(database.admin) as remover, ThreadPoolExecutor() as executor:
        remover.execute("SELECT pipehandler.remove_lease(%s)", [number])
        storing = executor.submit(store.ingest, submission(recipients=Recipients(policy=policy)))
        stuck(database)
        remover.commit()
        assert [each.recipient for each in storing.result()] == (["user@example.com"] if policy == "any" else [])
    store.close()
    assert stored(database) == ([("user@example.com", None, None)] if policy == "any" else [])


@pytest.mark.parametrize("expired", ["store", "reject"])
def test_import_stores_what_it_is_given(console: Console, database: Database, expired: str) -> None:
    """An import is the operator's decision: whatever the policy for deliveries, the message is stored, with the lease
    of its recipient."""
    console.configure(more=f"recipients.policy = 'known'\nrecipients.expired = '{expired}'")
    gone = lease(database, "gone@example.com", "1 us")
    arguments = ("import", "--recipient", "nobody@example.com", "--recipient", "gone@example.com", "-")
    assert console.run(*arguments, stdin=MESSAGE % b"1").text.splitlines()[-1] == "1 delivered"
    assert sorted(stored(database)) == [("gone@example.com", gone, None), ("nobody@example.com", None, None)]
