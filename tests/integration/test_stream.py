"""The stream in SQL: each delivery once, in an order that never changes, none missed; and valid cursors."""

import psycopg
import pytest
from harness.database import Database
from harness.stream import after, ids, ingest, stored, writing
from harness.submission import MESSAGE, submission
from psycopg.errors import InsufficientPrivilege, RaiseException

from pipehandler.store.message_store import MessageStore


def test_order_of_commit(every_database: Database) -> None:
    """Two deliveries commit in the reverse order of their ids: neither is missed, whenever the stream is read."""
    with writing(every_database) as first, writing(every_database) as second:
        older = ingest(first, 1)
        newer = ingest(second, 2)
        assert older < newer
        assert after(every_database, "") == []
        second.commit()
        # It is committed, but the older one could still precede it.
        assert every_database.value("SELECT count(*) FROM pipehandler.inbox") == 1
        assert after(every_database, "") == []
        assert every_database.value("SELECT pipehandler.deliveries_waiting()")
        first.commit()
    assert ids(after(every_database, "")) == [older, newer]
    assert not every_database.value("SELECT pipehandler.deliveries_waiting()")


def test_an_id_that_comes_late(database: Database) -> None:
    """A transaction that began earlier and stored later keeps its place, though its id is greater."""
    with writing(database) as first, writing(database) as second:
        first.execute("SELECT pg_current_xact_id()")
        newer = ingest(second, 2)
        second.commit()
        older = ingest(first, 1)
        first.commit()
    assert newer < older
    assert ids(after(database, "")) == [older, newer]


def test_rolled_back(database: Database) -> None:
    """A rolled-back delivery never appears, and delays no other."""
    with writing(database) as connection:
        ingest(connection, 1)
        kept = stored(database, 2)
    assert ids(after(database, "")) == [kept]


def test_pages(database: Database) -> None:
    """Page by page, with the cursor of the last one, each delivery is returned once; even those of one transaction."""
    wanted = [stored(database, number) for number in range(5)]
    with writing(database) as connection:
        ingest(connection, 10, "a@example.com", "b@example.com", "c@example.com")
        connection.commit()
    wanted += [
        row.id for row in database.rows("SELECT id FROM pipehandler.delivery WHERE id > %s ORDER BY 1", wanted[-1])
    ]
    seen: list[int] = []
    cursor = ""
    while page := after(database, cursor, None, None, 2):
        seen += ids(page)
        cursor = page[-1].cursor
    assert seen == wanted
    assert len(seen) == 8


def test_columns(database: Database) -> None:
    """A delivery has the columns of the view inbox, without the bodies; and every column has a comment."""
    raw = MESSAGE.replace(
        b"Subject: one",
        b"Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nList-Id: <l.example.org>\nDate: Mon, 7 Sep 2026 10:00:00 +0900",
    )
    store = MessageStore(database.conninfo)
    store.ingest(submission(raw, "User+x@example.com"))
    store.close()
    (row,) = after(database, None)
    columns = [name for name in row._fields if name != "cursor"]
    (expected,) = database.rows(f"SELECT {', '.join(columns)} FROM pipehandler.inbox")
    assert row[1:] == tuple(expected)
    assert (row.subject, row.extension, row.list_id) == ("Grüße", "x", "l.example.org")
    uncommented = database.rows(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'pipehandler.streamed_delivery'::regclass"
        "   AND col_description(attrelid, attnum) IS NULL"
    )
    assert uncommented == []


def test_recipient(every_database: Database) -> None:
    """The stream of one address has what was sent to it in upper or lower case, and to no other address."""
    wanted = [stored(every_database, n, address) for n, address in enumerate(["a@example.com", "A@Example.com"])]
    stored(every_database, 2, "a+x@example.com")
    stored(every_database, 3, "b@example.com")
    assert ids(after(every_database, "", "A@EXAMPLE.com")) == wanted
    assert ids(after(every_database, after(every_database, "")[0].cursor, "a@example.com")) == wanted[1:]
    assert after(every_database, "", "nobody@example.com") == []


def test_lease(database: Database) -> None:
    """The stream of a lease has what belongs to it, including plus addresses, and nothing of an earlier lease of its
    address."""
    new = "SELECT lease FROM pipehandler.lease_address('a@example.com')"
    old = database.value(new)
    stored(database, 1, "a@example.com")
    database.execute("SELECT pipehandler.expire_lease(%s)", old)
    lease = database.value(new)
    wanted = [stored(database, 1, "a@example.com"), stored(database, 2, "a+x@example.com")]
    stored(database, 3, "b@example.com")
    assert ids(after(database, "", None, lease)) == wanted
    assert ids(after(database, "", "a+x@example.com", lease)) == wanted[1:]
    assert after(database, "", None, old) == []


def test_expired(database: Database) -> None:
    """Expired deliveries disappear from the stream at once."""
    first, second = (stored(database, number) for number in (1, 2))
    database.execute("UPDATE pipehandler.delivery SET expires_at = now() WHERE id = %s", first)
    assert ids(after(database, "")) == [second]


def test_begin_now(every_database: Database) -> None:
    """After pipehandler.cursor_now() the stream has what was not committed at that moment, even if it had begun before,
    and nothing else."""
    stored(every_database, 1)
    with writing(every_database) as connection:
        begun = ingest(connection, 2)
        cursor = every_database.value("SELECT pipehandler.cursor_now()")
        connection.commit()
    later = stored(every_database, 3)
    assert ids(after(every_database, cursor)) == [begun, later]
    assert after(every_database, every_database.value("SELECT pipehandler.cursor_now()")) == []


@pytest.mark.parametrize(
    "cursor",
    ["x", "1", "1-", "-1", "1-2-3", " 1-2", "1-2\n", "1.0-2", "99999999999999999999-1", "1-9999999999999999999", "١-1"],
)
def test_no_cursor(untouched: Database, cursor: str) -> None:
    """An invalid cursor is refused, and the error describes a valid one."""
    with pytest.raises(RaiseException, match=r"(?s)invalid cursor .*: pass one that was returned with a delivery"):
        after(untouched, cursor)


def test_cursor_of_another_cluster(untouched: Database) -> None:
    """A cursor that this cluster cannot have issued is refused, with a hint."""
    with pytest.raises(
        RaiseException, match=r"from another cluster.* begin with an empty cursor, or with pipehandler.cursor_now"
    ):
        after(untouched, f"{1 << 60}-1")


def test_restored_elsewhere(every_database: Database) -> None:
    """Deliveries with transactions of another cluster would never appear: that is reported, and the hint fixes it."""
    first, second = (stored(every_database, number) for number in (1, 2))
    every_database.execute("UPDATE pipehandler.delivery SET xid = '999999999999' WHERE id = %s", second)
    (row,) = after(every_database, "")
    assert row.id == first
    with pytest.raises(RaiseException) as refused:
        after(every_database, row.cursor)
    assert "as the owner of the table run: pipehandler restored\n" in str(refused.value)
    assert every_database.value("SELECT pipehandler.adopt_deliveries()") == 1
    assert sorted(ids(after(every_database, ""))) == [first, second]


def test_in_the_transaction_that_stores(database: Database) -> None:
    """A transaction that stores and reads sees a stream that ends before it, and no error."""
    with writing(database) as connection, psycopg.connect(database.admin) as owner:
        ingest(owner, 1)
        assert owner.execute("SELECT * FROM pipehandler.deliveries_after('')").fetchall() == []
        owner.rollback()
        connection.commit()


def test_rights(untouched: Database) -> None:
    """Readers and the maintenance role may read the stream, the handler may not; and only with the caller's own
    rights. The present cursor, which has no content, is also for the inbox page, which reads no table."""
    for role in ("reader", "upkeep"):
        assert after(untouched, "", role=role) == []
    for call in ("deliveries_after('')", "cursor_now()", "deliveries_waiting()"):
        with psycopg.connect(untouched.conninfo) as handler, pytest.raises(InsufficientPrivilege):
            handler.execute(f"SELECT pipehandler.{call}")
    definers = "SELECT proname FROM pg_proc WHERE prosecdef AND proname IN ('deliveries_after', 'cursor_now', 'deliveries_waiting')"
    assert untouched.rows(definers) == [("cursor_now",)]


def read(database: Database, *arguments: object) -> tuple[int, int]:
    """Call deliveries_after with these arguments, for the second time on one connection; returns the number of rows,
    and of blocks read."""
    with psycopg.connect(database.server.conninfo(database.name, user="reader")) as connection:
        call = "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM pipehandler.deliveries_after(%s::text, %s::text, %s::bigint)"
        for _ in range(2):
            ((plan,),) = connection.execute(call, arguments).fetchall()
    top = plan[0]["Plan"]
    return top["Actual Rows"], top["Shared Hit Blocks"] + top["Shared Read Blocks"]


def test_reads_no_more_than_it_returns(every_database: Database) -> None:
    """With much mail before the cursor, and much for others after it, a poll reads a few blocks: through an index for
    each kind of stream."""
    every_database.execute(
        "INSERT INTO pipehandler.message (id, received_at, size, sha256, state, parser)"
        " SELECT md5('')::uuid, now(), 0, sha256(''), 'parsed', ''"
    )
    lease = every_database.value("SELECT lease FROM pipehandler.lease_address('busy@example.com')")
    # In effect one transaction for each: their numbers are from the past.
    every_database.execute(
        "INSERT INTO pipehandler.delivery (message, recipient, fingerprint, sender, mail_host, ingress, received_at, lease, xid)"
        " SELECT md5('')::uuid, CASE WHEN n <= 10000 THEN 'busy' ELSE 'other' END || '@example.com', sha256(n::text::bytea), '',"
        "        '', 'pipe', now(), CASE WHEN n <= 10000 THEN %s::bigint END, (n / 100)::text::xid8"
        "   FROM generate_series(1, 20000) AS n",
        lease,
    )
    end = f"{20000 // 100}-20000"
    middle = f"{10000 // 100}-10000"
    for analyzed in (False, True):
        if analyzed:
            every_database.execute("ANALYZE")
        for arguments in (
            (end, None, None),
            (middle, "busy@example.com", None),
            (middle, None, lease),
            ("", "nobody@x", None),
        ):
            rows, blocks = read(every_database, *arguments)
            assert rows == 0
            assert blocks < 40, (analyzed, arguments, blocks)
        for arguments in (
            ("", None, None),
            ("", "busy@example.com", None),
            ("", None, lease),
            (middle, "other@example.com", None),
        ):
            rows, blocks = read(every_database, *arguments)
            assert rows == 100
            assert blocks < 1000, (analyzed, arguments, blocks)
