"""From version 1 of the fingerprint to version 2: mail stored before is recognised, and a forgery is not."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from harness import previous_release
from harness.console import Console
from harness.database import Database
from harness.postgresql import PostgreSQL
from harness.service import wait_until
from harness.submission import submission

from pipehandler.mail.identity import identify
from pipehandler.store.ingest import Stored
from pipehandler.store.message_store import MessageStore
from pipehandler.store.migrate import migrate

GENUINE = b"Message-ID: <1@example.org>\nFrom: a@example.org\nSubject: one\n\nPay to account 1\n"
FORGED = GENUINE.replace(b"\n\n", b"\nContent-Transfer-Encoding: base64\n\n")
AGAIN = b"Received: by mx.example.net; Mon, 7 Sep 2026 10:05:00 +0900\n" + GENUINE


def test_the_forgery_had_the_same_fingerprint() -> None:
    """The premise of this file."""
    genuine, forged, again = identify(GENUINE), identify(FORGED), identify(AGAIN)
    assert genuine.former_fingerprint == forged.former_fingerprint == again.former_fingerprint
    assert genuine.fingerprint == again.fingerprint != forged.fingerprint


@pytest.fixture
def store(database: Database) -> Iterator[MessageStore]:
    """The store with the rights of a handler."""
    opened = MessageStore(database.conninfo)
    yield opened
    opened.close()


def by_previous_release(database: Database, raw: bytes, *recipients: str) -> list[Stored]:
    """Store a message as the handler of the previous release does: with a fingerprint of version 1 only."""
    request = submission(raw, *recipients)
    delivery, *others = request.arguments()
    envelope = json.loads(delivery)
    del envelope["fingerprint_2"]
    with psycopg.connect(database.conninfo, autocommit=True) as handler:
        return [
            Stored(*row) for row in handler.execute(request.statement(), [json.dumps(envelope), *others]).fetchall()
        ]


def versions(database: Database) -> list[int]:
    """The versions of all stored fingerprints, in the order of their deliveries."""
    rows = database.rows("SELECT fingerprint_version FROM pipehandler.delivery ORDER BY id")
    return [row.fingerprint_version for row in rows]


def redelivered(database: Database) -> list[Stored]:
    """Deliver everything that is stored once more, with another Received field; returns the results."""
    rows = database.rows(
        "SELECT d.recipient, d.prepended, r.raw FROM pipehandler.delivery d"
        "  JOIN pipehandler.raw_message r ON r.day = d.day AND r.message = d.message"
        " WHERE (SELECT o.lease FROM pipehandler.lease_of(d.recipient, '+') AS o) IS NOT DISTINCT FROM d.lease"
    )
    assert rows
    store = MessageStore(database.conninfo)
    done = [store.ingest(submission((row.prepended or b"") + row.raw, row.recipient))[0] for row in rows]
    store.close()
    return done


def renew(database: Database, folder: Path) -> int:
    """Run `pipehandler reparse --fingerprints`; returns how many it has renewed."""
    done = Console(folder, database).run("reparse", "--fingerprints", "--json")
    return int(json.loads(done.text)["summary"]["renewed"])


def test_redelivered_after_the_upgrade(server: PostgreSQL, folder: Path) -> None:
    """Mail stored by the previous release is a duplicate for this one, before and after its fingerprints are renewed;
    and its handler computed the same version 1 as we do."""
    with previous_release.database(server, "fingerprints") as database:
        previous_release.send(database, "fill")
        store = MessageStore(database.admin, statement_timeout=60)
        migrate(store)
        assert set(versions(database)) == {1}
        rows = database.rows(
            "SELECT d.fingerprint, d.prepended, r.raw FROM pipehandler.delivery d"
            "  JOIN pipehandler.raw_message r ON r.day = d.day AND r.message = d.message"
        )
        for row in rows:
            assert identify((row.prepended or b"") + row.raw).former_fingerprint == row.fingerprint
        assert all(stored.duplicate for stored in redelivered(database))
        assert renew(database, folder) == len(rows)
        assert renew(database, folder) == 0
        assert set(versions(database)) == {2}
        assert all(stored.duplicate for stored in redelivered(database))
        store.close()


def test_the_genuine_message_after_a_forged_one(database: Database, store: MessageStore) -> None:
    """The message is stored, and then it is a duplicate; the order makes no difference."""
    assert not store.ingest(submission(FORGED))[0].duplicate
    assert not store.ingest(submission(GENUINE))[0].duplicate
    assert store.ingest(submission(AGAIN))[0].duplicate
    assert store.ingest(submission(FORGED))[0].duplicate
    assert versions(database) == [2, 2]


def test_a_forged_one_from_before_the_upgrade(database: Database, store: MessageStore, folder: Path) -> None:
    """The forgery hides the genuine message until its fingerprint is renewed (docs/limits.md)."""
    by_previous_release(database, FORGED)
    assert store.ingest(submission(GENUINE))[0].duplicate
    assert renew(database, folder) == 1
    assert not store.ingest(submission(GENUINE))[0].duplicate
    assert store.ingest(submission(AGAIN))[0].duplicate
    assert versions(database) == [2, 2]


def test_without_bytes_a_fingerprint_stays(database: Database, store: MessageStore, folder: Path) -> None:
    """The fingerprint cannot be computed; the delivery is still recognised."""
    by_previous_release(database, GENUINE)
    database.execute("UPDATE pipehandler.delivery SET raw_until = 'epoch'; DELETE FROM pipehandler.raw_message")
    assert renew(database, folder) == 0
    assert versions(database) == [1]
    assert store.ingest(submission(AGAIN))[0].duplicate


def test_two_programs_at_a_time(database: Database, store: MessageStore, folder: Path) -> None:
    """Mail hosts are upgraded one after the other. The program of this release recognises what either has stored. The
    previous one recognises only its own, so at worst it stores one more copy; renewing leaves that copy unchanged."""
    recipients = ("a@example.com", "b@example.com")
    assert not any(stored.duplicate for stored in by_previous_release(database, GENUINE, *recipients))
    assert all(stored.duplicate for stored in by_previous_release(database, AGAIN, *recipients))
    assert [stored.duplicate for stored in store.ingest(submission(AGAIN, *recipients, "c@example.com"))].count(
        True
    ) == 2
    (copy,) = by_previous_release(database, GENUINE, "c@example.com")
    assert not copy.duplicate
    assert versions(database) == [1, 1, 2, 1]
    for renewed in (2, 0):
        assert len(done := store.ingest(submission(AGAIN, *recipients, "c@example.com"))) == 3
        assert all(stored.duplicate for stored in done)
        assert renew(database, folder) == renewed
    assert versions(database) == [2, 2, 2, 1]


def test_rejected_only_if_it_was_not_stored(database: Database, store: MessageStore) -> None:
    """Mail that the previous release has stored is not rejected when it is redelivered."""
    by_previous_release(database, GENUINE)
    request = submission(AGAIN)
    known = submission(AGAIN, recipients=request.recipients.__class__(policy="known"))
    assert [stored.duplicate for stored in store.ingest(known)] == [True]
    assert store.ingest(submission(FORGED.replace(b"one", b"two"), recipients=known.recipients)) == []


@pytest.mark.parametrize("end", ["ROLLBACK", "COMMIT"])
def test_redelivered_while_it_is_renewed(database: Database, store: MessageStore, end: str) -> None:
    """The delivery waits for the transaction, and is a duplicate whether that commits or not."""
    by_previous_release(database, GENUINE)
    done: list[Stored] = []
    identity = identify(GENUINE)
    with psycopg.connect(database.admin) as renewing:
        renewing.execute(
            "UPDATE pipehandler.delivery SET fingerprint = %s, fingerprint_version = 2 WHERE fingerprint = %s",
            [identity.fingerprint, identity.former_fingerprint],
        )
        thread = threading.Thread(target=lambda: done.extend(store.ingest(submission(GENUINE))))
        thread.start()
        wait_until(lambda: bool(done) or database.value("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        renewing.execute(end)
        thread.join(30)
    assert [stored.duplicate for stored in done] == [True]
    assert versions(database) == [1 if end == "ROLLBACK" else 2]
