"""After an incomplete restore: missing mail is stored again when it is redelivered, and nothing waits for the
transactions of another cluster."""

from contextlib import closing
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from harness.console import Console
from harness.database import Database
from harness.submission import submission

from pipehandler.settings.retention import Rule
from pipehandler.store import expiry
from pipehandler.store.ingest import Stored
from pipehandler.store.message_store import MessageStore

PICTURE = (
    b"From: News <News@Sender.example>\nMessage-ID: <picture@sender.example>\n"
    b"Content-Type: multipart/mixed; boundary=b\n\n--b\n\ntext\n--b\nContent-Type: image/gif\n\nGIF\n--b--\n"
)
OTHER_WAY = b"Received: from elsewhere by here; Mon, 7 Sep 2026 10:00:00 +0900\n" + PICTURE
"""The same message, transmitted again: the same fingerprint, other bytes."""

LOSSES = {
    "raw": "DELETE FROM pipehandler.raw_message",
    "content": "UPDATE pipehandler.attachment SET content = NULL",
    "message": "SET session_replication_role = replica; DELETE FROM pipehandler.message;"
    " DELETE FROM pipehandler.raw_message; DELETE FROM pipehandler.attachment",
}


def deliver(database: Database, raw: bytes = PICTURE, *recipients: str) -> list[Stored]:
    """Store a message as the handler does."""
    with closing(MessageStore(database.conninfo)) as store:
        return store.ingest(submission(raw, *recipients))


def bytes_of(database: Database) -> list[tuple[bytes, bytes | None]]:
    """What can be read of each delivery: the bytes, and the content of the attachment."""
    rows = database.rows(
        "SELECT coalesce(d.prepended, '') || r.raw AS raw, a.content FROM pipehandler.delivery d"
        "  JOIN pipehandler.message m ON m.day = d.day AND m.id = d.message"
        " JOIN pipehandler.raw_message r ON r.day = m.day AND r.message = m.id"
        "  JOIN pipehandler.attachment a ON a.day = m.day AND a.message = m.id ORDER BY d.id"
    )
    return [(row.raw, row.content) for row in rows]


@pytest.mark.parametrize(
    ("loss", "again"),
    [*((loss, PICTURE) for loss in LOSSES), *((loss, OTHER_WAY) for loss in LOSSES if loss != "content")],
    ids=lambda value: value if isinstance(value, str) else "same bytes" if value == PICTURE else "other bytes",
)
def test_what_is_missing_is_stored_again(every_database: Database, loss: str, again: bytes) -> None:
    """A delivery whose message or bytes are missing is not a duplicate, remains one delivery, and is complete
    afterwards."""
    database = every_database
    (first,) = deliver(database)
    complete = bytes_of(database)
    database.execute(LOSSES[loss])
    assert bytes_of(database) != complete
    (second,) = deliver(database, again)
    assert (second.delivery, second.duplicate) == (first.delivery, False)
    ((raw, content),) = bytes_of(database)
    assert raw in (PICTURE, again)
    assert content == complete[0][1]
    (third,) = deliver(database, again)
    assert third.duplicate
    assert database.value("SELECT count(*) FROM pipehandler.delivery") == 1


@pytest.mark.parametrize("loss", LOSSES)
def test_an_import_repairs(console: Console, database: Database, folder: Path, loss: str) -> None:
    """`import` of an archive stores what is missing again, reports it as delivered, and a second time as a duplicate."""
    archive = folder / "archive"
    archive.mkdir()
    (archive / "1.eml").write_bytes(b"Delivered-To: user@example.com\n" + PICTURE)
    assert console.run("import", archive).text.endswith("\n1 delivered\n")
    complete, delivery = bytes_of(database), database.value("SELECT id FROM pipehandler.delivery")
    database.execute(LOSSES[loss])
    assert bytes_of(database) != complete
    assert console.run("import", archive).text.endswith("\n1 delivered\n")
    assert bytes_of(database) == complete
    assert database.value("SELECT id FROM pipehandler.delivery") == delivery
    assert console.run("import", archive).text.endswith("\n1 duplicate\n")


def test_an_import_brings_nothing_back_that_retention_removed(
    console: Console, database: Database, folder: Path
) -> None:
    """What is missing because it was to be kept no longer stays away."""
    path = folder / "1.eml"
    path.write_bytes(b"Delivered-To: user@example.com\n" + PICTURE)
    console.run("import", path)
    database.execute("UPDATE pipehandler.delivery SET raw_until = 'epoch', attachments_until = 'epoch'")
    database.execute("DELETE FROM pipehandler.raw_message; UPDATE pipehandler.attachment SET content = NULL")
    assert console.run("import", path).text.endswith("\n1 duplicate\n")
    assert database.value("SELECT count(*) FROM pipehandler.raw_message") == 0
    assert database.value("SELECT count(content) FROM pipehandler.attachment") == 0


@pytest.mark.parametrize(
    ("loss", "again"),
    [
        (LOSSES["content"], OTHER_WAY),
        ("DELETE FROM pipehandler.attachment", PICTURE),
        ("DELETE FROM pipehandler.attachment", OTHER_WAY),
    ],
)
def test_what_the_bytes_have_comes_from_them(database: Database, loss: str, again: bytes) -> None:
    """If the bytes exist, another transmission does not replace them: reparse restores the lost columns."""
    (first,) = deliver(database)
    complete = bytes_of(database)
    database.execute(loss)
    (second,) = deliver(database, again)
    assert (second.message, second.duplicate) == (first.message, True)
    _, parsed, text, html, _, _, contents = submission(PICTURE).arguments()
    database.rows("SELECT pipehandler.reparse(%s, %s, %s, %s, %b)", first.message, parsed, text, html, contents)
    assert bytes_of(database) == complete


def test_each_recipient_by_itself(database: Database) -> None:
    """What one delivery restores is back for all deliveries of the message; a new recipient is stored as usual."""
    deliver(database, PICTURE, "a@example.com", "b@example.com")
    database.execute(LOSSES["raw"])
    found = {row.recipient: row.duplicate for row in deliver(database, PICTURE, "a@example.com", "c@example.com")}
    assert found == {"a@example.com": False, "c@example.com": False}
    assert [row.duplicate for row in deliver(database, PICTURE, "b@example.com")] == [True]
    assert [raw for raw, _ in bytes_of(database)] == [PICTURE] * 3


def test_what_retention_removed_stays_away(database: Database) -> None:
    """Bytes and contents that retention removed do not come back with a duplicate."""
    deliver(database)
    database.execute("UPDATE pipehandler.delivery SET raw_until = 'epoch', attachments_until = 'epoch'")
    database.execute("DELETE FROM pipehandler.raw_message; UPDATE pipehandler.attachment SET content = NULL")
    for raw in (PICTURE, OTHER_WAY):
        assert [row.duplicate for row in deliver(database, raw)] == [True]
    assert database.value("SELECT count(*) FROM pipehandler.raw_message") == 0
    assert database.value("SELECT count(content) FROM pipehandler.attachment") == 0


def test_rules_that_changed_in_another_cluster(database: Database) -> None:
    """A dump that caught a change of the rules has the number of a transaction that this cluster has not reached: nothing
    waits for it."""
    deliver(database)
    rule = Rule(keep=timedelta(days=1))
    with (
        psycopg.connect(database.admin) as writer,
        closing(MessageStore(database.server.conninfo(database.name, user="upkeep"))) as store,
    ):
        writer.execute("CREATE TABLE held ()")
        counts = [set(+each) for each in expiry.expire(store, (rule,))]
        assert {expiry.WAITING} in counts
        writer.rollback()
        database.execute("UPDATE pipehandler.retention_change SET xid = '7000000000'")
        total: expiry.Counts = expiry.Counts()
        for each in expiry.expire(store, (rule,)):
            total.update(each)
    assert total[expiry.APPLIED] == 1
    assert not total[expiry.WAITING]


def test_a_dump_by_the_reader(database: Database) -> None:
    """pipehandler_reader may read everything, so it can make a dump, and that is complete."""
    deliver(database)
    server = database.server
    where = ("-h", str(server.folder), "-p", str(server.port), "-U", "reader", "-n", "pipehandler")
    text = server.run("pg_dump", *where, database.name)
    assert "picture@sender.example" in text
    assert "SELECT pg_catalog.setval('pipehandler.delivery_id_seq'" in text
