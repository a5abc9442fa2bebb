"""`pipehandler remove`, and the SQL function behind it: mail is removed with all that belongs to it, and nothing else
is."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from harness.console import Console, everything
from harness.database import Database
from harness.submission import submission

from pipehandler.mail.sysexits import EX_NOINPUT, EX_UNAVAILABLE
from pipehandler.store import removal
from pipehandler.store.filters import Filters
from pipehandler.store.ids import NoSuchMessage, delivery_ids, message_id
from pipehandler.store.ingest import Stored
from pipehandler.store.message_store import MessageStore

PICTURE = (
    b"From: News <news@sender.example>\nSubject: %d\nMessage-ID: <%d@sender.example>\n"
    b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\ntext\n--b\nContent-Type: image/gif\n\nGIF\n--b--\n"
)


def deliver(database: Database, number: int, *recipients: str, **changes: Any) -> list[Stored]:
    """Store a message with an attachment, as the handler does."""
    with closing(MessageStore(database.conninfo)) as store:
        return store.ingest(submission(PICTURE % (number, number), *recipients, **changes))


def left(database: Database) -> dict[str, int]:
    """The number of rows in each table."""
    return {table: len(rows) for table, rows in everything(database).items()}


@pytest.fixture
def upkeep(database: Database) -> Iterator[MessageStore]:
    """A connection of the role that removes."""
    with closing(MessageStore(database.server.conninfo(database.name, user="upkeep"))) as store:
        yield store


def test_by_id(console: Console, database: Database) -> None:
    """A number selects one delivery, a UUID all deliveries of a message; the message, its bytes and its attachments are
    removed with the last one."""
    one, two = deliver(database, 1, "a@example.com", "b@example.com")
    (other,) = deliver(database, 2, "a@example.com")
    (kept,) = deliver(database, 3, "a@example.com")
    assert console.run("remove", "--yes", one.delivery).text == "removed 1 delivery, 0 messages\n"
    assert left(database) == {"message": 3, "raw_message": 3, "attachment": 3, "delivery": 3}
    done = console.run("remove", "--yes", "--json", two.message, other.message[:8], two.delivery)
    assert json.loads(done.text) == {"deliveries": 2, "messages": 2, "dry_run": False}
    assert left(database) == {"message": 1, "raw_message": 1, "attachment": 1, "delivery": 1}
    done = console.run("remove", "--yes", kept.delivery, one.delivery)
    assert (done.status, done.errors) == (
        EX_NOINPUT,
        f"Error: nothing with the id {one.delivery} is stored; `pipehandler list` shows what is\n",
    )
    assert left(database)["delivery"] == 1


def test_the_question(console: Console, database: Database) -> None:
    """It reports how much it would remove and whose, and any answer but yes removes nothing; so does --dry-run."""
    deliver(database, 1, *(f"{letter}@example.com" for letter in "abcdefghijkl"))
    (last,) = deliver(database, 2, "l@example.com")
    before = everything(database)
    for answer in (b"n\n", b"", b"x\n\n"):
        done = console.run("remove", "--sender", "news@sender.example", stdin=answer)
        assert done.status == 1
        assert re.search(
            r"Permanently remove 13 deliveries, 2 messages, to l@example.com, a@example.com, .* and 2 more\? \[y/N\]:",
            done.errors,
        )
        assert done.errors.endswith("Error: nothing was removed; --yes removes without asking\n")
        assert everything(database) == before
    assert console.run("remove", "--dry-run", "--recipient", "L@EXAMPLE.com").text == (
        "would remove 2 deliveries, 1 message\n"
    )
    dry = json.loads(console.run("remove", "--dry-run", "--json", last.message[:10]).text)
    assert dry == {"deliveries": 1, "messages": 1, "dry_run": True}
    assert everything(database) == before
    assert console.run("remove", "--recipient", "none@example.com").text == "nothing found\n"
    assert console.run("remove", "--lease", "7", "--json").text.split() == [
        *("{", '"deliveries":', "0,", '"messages":', "0,", '"dry_run":', "false", "}"),
    ]
    done = console.run("remove", "--sender", "NEWS", stdin=b"y\n")
    assert done.output == b"removed 13 deliveries, 2 messages\n"
    assert not any(left(database).values())


@pytest.mark.parametrize(
    ("options", "subjects"),
    [
        (["--lease", "1"], "3"),
        (["--recipient", "ann@example.com"], "1"),
        (["--recipient", "ann"], "12"),
        (["--recipient", "*ann@*", "--subject", "2"], "2"),
        (["--before", "2026-09-01"], "1"),
        (["--after", "2026-09-01", "--before", "2026-09-09"], "23"),
        (["--stored-since", "1h", "--ingress", "import"], "2"),
        (["--state", "failed"], ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_selections(console: Console, database: Database, options: list[str], subjects: str) -> None:
    """Each option narrows what is removed; a whole address matches exactly, and not a longer one that ends with it."""
    database.execute("SELECT pipehandler.lease_address('ben@example.com')")
    deliver(database, 1, "ann@example.com", received_at="2026-08-01T00:00:00Z")
    deliver(database, 2, "joann@example.com", ingress="import")
    deliver(database, 3, "ben@example.com")
    before = database.rows("SELECT subject FROM pipehandler.message ORDER BY subject")
    assert "".join(row.subject for row in before) == "123"
    console.run("remove", "--yes", *options)
    after = database.rows("SELECT subject FROM pipehandler.message ORDER BY subject")
    assert {row.subject for row in before} - {row.subject for row in after} == set(subjects)


def test_expired_mail(console: Console, database: Database) -> None:
    """Expired mail is invisible, and can be removed: by its number, with its message, and by a filter."""
    (one,) = deliver(database, 1)
    (two,) = deliver(database, 2)
    deliver(database, 3)
    database.execute("UPDATE pipehandler.delivery SET expires_at = now()")
    assert console.run("show", one.delivery).status == EX_NOINPUT
    assert "removed 2 deliveries, 2 messages" in console.run("remove", "--yes", one.delivery, two.message[:8]).text
    assert "removed 1 delivery, 1 message" in console.run("remove", "--yes", "--sender", "news").text


def test_removed_mail_that_comes_again(console: Console, database: Database) -> None:
    """A message that was removed and arrives again is stored again: no trace of it was kept."""
    deliver(database, 1)
    console.run("remove", "--yes", "--recipient", "user@example.com")
    assert [row.duplicate for row in deliver(database, 1)] == [False]


def test_nothing_that_came_later(database: Database, upkeep: MessageStore) -> None:
    """Mail that arrives between the count and the removal is kept, because it was not counted."""
    deliver(database, 1)
    filters = Filters(sender="news")
    found = removal.selection(upkeep, filters)
    deliver(database, 2)
    assert found.last
    assert [batch.deliveries for batch in removal.remove(upkeep, filters, found.last)] == [1]
    assert database.value("SELECT subject FROM pipehandler.message") == "2"


def test_many(database: Database, upkeep: MessageStore) -> None:
    """A large removal is several transactions."""
    deliver(database, 1, *(f"{number}@example.com" for number in range(1100)))
    found = removal.selection(upkeep, Filters(recipient="*"))
    assert (found.deliveries, found.messages, found.recipients) == (1100, 1, 1100)
    assert found.last
    batches = [tuple(batch) for batch in removal.remove(upkeep, Filters(recipient="*"), found.last)]
    assert batches == [(500, 0), (500, 0), (100, 1)]
    assert not any(left(database).values())


def test_while_it_is_delivered_again(database: Database, upkeep: MessageStore) -> None:
    """A delivery for another recipient that arrives at that moment keeps the message."""
    (stored,) = deliver(database, 1)
    request = submission(PICTURE % (1, 1), "late@example.com")
    with psycopg.connect(database.conninfo) as connection:
        connection.execute(request.statement(), request.arguments())
        done: list[removal.Removed] = []
        thread = threading.Thread(
            target=lambda: done.extend(removal.remove(upkeep, Filters(ids=[stored.delivery]), stored.delivery))
        )
        thread.start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename = 'upkeep'"
        while not database.value(waiting):
            assert thread.is_alive()
        connection.commit()
        thread.join(30)
    assert [tuple(each) for each in done] == [(1, 0)]
    assert left(database) == {"message": 1, "raw_message": 1, "attachment": 1, "delivery": 1}


def test_rights(console: Console, database: Database) -> None:
    """A reader may count, and the error names the role that may remove; the handler may not even call the function."""
    (stored,) = deliver(database, 1)
    console.configure("reader")
    assert "would remove 1 delivery" in console.run("remove", "--dry-run", stored.delivery).text
    done = console.run("remove", "--yes", stored.delivery)
    assert done.status == EX_UNAVAILABLE
    assert "pipehandler_maintenance" in done.errors
    with psycopg.connect(database.conninfo) as handler, pytest.raises(psycopg.errors.InsufficientPrivilege):
        handler.execute("SELECT pipehandler.remove_deliveries('{1}')")
    assert left(database)["delivery"] == 1


def test_by_an_application(database: Database) -> None:
    """The function returns what it removed, and ignores a number that no delivery has."""
    one, two = deliver(database, 1, "a@example.com", "b@example.com")
    with psycopg.connect(database.server.conninfo(database.name, user="upkeep")) as application:
        call = "SELECT deliveries, messages FROM pipehandler.remove_deliveries(%s)"
        assert application.execute(call, [[one.delivery, one.delivery, 999]]).fetchall() == [(1, 0)]
        assert application.execute(call, [[two.delivery]]).fetchall() == [(1, 1)]
        assert application.execute(call, [[two.delivery]]).fetchall() == [(0, 0)]
        assert application.execute(call, [[]]).fetchall() == [(0, 0)]


@pytest.mark.parametrize("arguments", [[], ["1", "--recipient", "a@example.com"]], ids=["neither", "both"])
def test_wrong_use(console: Console, arguments: list[str]) -> None:
    """Either ids or options are required."""
    done = console.run("remove", *arguments)
    assert done.status == 2
    assert "give the ids of mail, or options that select it" in done.errors


def test_ids(database: Database, upkeep: MessageStore) -> None:
    """A UUID may be given by its beginning of eight digits or more; several with the same are an error that names them."""
    database.execute("ALTER SEQUENCE pipehandler.delivery_id_seq RESTART 10000000")
    (stored,) = deliver(database, 1)
    copies = [f"{stored.message[:9]}ffff-8000-8000-00000000000{number}" for number in range(7)]
    assert message_id(upkeep, stored.message[:8].upper()) == stored.message
    assert message_id(upkeep, stored.message.replace("-", "")) == stored.message
    for number, uuid in enumerate(copies):
        database.execute(
            "INSERT INTO pipehandler.message SELECT (jsonb_populate_record(m, jsonb_build_object('id', %s::text))).*"
            "  FROM pipehandler.message m WHERE id = %s",
            *(uuid, stored.message),
        )
        database.execute(
            "INSERT INTO pipehandler.delivery (message, recipient, fingerprint, sender, mail_host, ingress, received_at)"
            " VALUES (%s, 'x', sha256(int4send(%s)), '', 'mx', 'pipe', now())",
            *(uuid, number),
        )
    with pytest.raises(NoSuchMessage, match=r"the beginning of several ids: .* and more; pass more digits") as refused:
        message_id(upkeep, stored.message[:8])
    assert sum(uuid in str(refused.value) for uuid in [stored.message, *copies]) == 5
    assert message_id(upkeep, copies[3]) == copies[3]
    assert delivery_ids(upkeep, "10000000") == [10_000_000]
    for name in ("20000000", "1000000", "ffffffff"):
        with pytest.raises(NoSuchMessage, match=f"nothing with the id {name} is stored"):
            message_id(upkeep, name)
    for name in ("1234567g", "abcdef0", "", stored.message + "0"):
        with pytest.raises(
            NoSuchMessage, match=r"is not an id: pass a delivery's number, or a message's UUID or at least 8"
        ):
            message_id(upkeep, name)
