"""Ingest with a real server: exactly what was read is stored, once; or nothing is, and the outcome is temporary."""

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from harness.database import Database
from harness.handler import Handler
from harness.proxy import AFTER, BACKEND, BEFORE, CUT, FRONTEND, INSIDE, RESET, STALL, Fault, Proxy, message, proxy
from harness.service import wait_until
from harness.submission import MESSAGE, submission
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipehandler.mail import outcome
from pipehandler.mail.parsed import Attachment, Defect, ParsedMessage
from pipehandler.mail.sysexits import EX_TEMPFAIL
from pipehandler.store import messages
from pipehandler.store.errors import DataRefused, StoreError
from pipehandler.store.ingest import IngestRequest, Stored
from pipehandler.store.message_store import MessageStore

OTHER = MESSAGE.replace(b"one", b"two")
NUMBERS = itertools.count()


@contextmanager
def open_store(conninfo: str, statement_timeout: int = 20, remaining: float = float("inf")) -> Iterator[MessageStore]:
    """A store, closed at the end."""
    store = MessageStore(conninfo, 5, statement_timeout)
    store.remaining = lambda: remaining
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
def store(database: Database) -> Iterator[MessageStore]:
    """The store with the rights of a handler."""
    with open_store(database.conninfo) as opened:
        yield opened


def refused(store: MessageStore, raw: bytes = MESSAGE) -> StoreError:
    """The error with which the store refuses a message."""
    with pytest.raises(StoreError) as error:
        store.ingest(submission(raw))
    return error.value


def deliveries(database: Database) -> int:
    """The number of stored deliveries."""
    return int(database.value("SELECT count(*) FROM pipehandler.delivery"))


@contextmanager
def session(database: Database) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A transaction of another session, which is rolled back at the end."""
    with psycopg.connect(database.admin) as connection:
        yield connection
        connection.rollback()


# What is stored.


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(
    raw=st.binary(max_size=300), above=st.sampled_from([b"", b"Return-Path: <x>\n", b"From x\nDelivered-To: y\n z\n"])
)
def test_stored_is_what_was_read(every_database: Database, raw: bytes, above: bytes) -> None:
    """Whatever the bytes: those of a delivery are exactly what was read, those of the message lack the fields that
    Postfix prepended."""
    with open_store(every_database.conninfo) as store, open_store(every_database.admin) as reader:
        wanted = submission(above + raw, f"{next(NUMBERS)}@example.com")
        (stored,) = store.ingest(wanted)
        assert (stored.message, stored.duplicate) == (wanted.identity.id, False)
        assert messages.raw(reader, str(stored.delivery)) == above + raw
        assert messages.raw(reader, stored.message) == (above + raw)[wanted.identity.prepended :]


_FILL = """
INSERT INTO pipehandler.delivery (message, recipient, fingerprint, sender, mail_host, ingress, received_at)
SELECT d.message, d.recipient, sha256(int8send(n)), d.sender, d.mail_host, d.ingress, d.received_at
  FROM pipehandler.delivery d CROSS JOIN generate_series(1, 20000) AS n
"""
_FILL_ADDRESSES = (
    "INSERT INTO pipehandler.address (address) SELECT n || '@example.com' FROM generate_series(1, 20000) AS n"
)
_BLOCKS = (
    "SELECT sum(pg_stat_get_xact_blocks_fetched(oid)) FROM pg_class WHERE relnamespace = 'pipehandler'::regnamespace"
)


def test_plans_of_an_empty_table_serve_a_full_one(every_database: Database) -> None:
    """A session keeps the plans of its first message, for which tables are empty or small: of a mailbox with 20,000
    deliveries it still reads a few blocks, for a new message and for a duplicate, with 20,000 addresses."""

    def blocks(raw: bytes, ingress: str) -> int:
        request = submission(raw, ingress=ingress)
        before = fetched()
        cursor.execute(request.statement().encode(), request.arguments())
        read = fetched() - before
        session.commit()
        return read

    def fetched() -> int:
        ((count,),) = cursor.execute(_BLOCKS).fetchall()
        return int(count or 0)

    every_database.execute("INSERT INTO pipehandler.address (address) VALUES ('other@example.com')")
    every_database.execute("VACUUM ANALYZE pipehandler.address")
    with psycopg.connect(every_database.admin) as session:
        cursor = session.cursor()
        for ingress in ("pipe", "import"):
            blocks(MESSAGE, ingress)
        every_database.execute(_FILL)
        every_database.execute(_FILL_ADDRESSES)
        read = [blocks(OTHER, "pipe"), blocks(OTHER, "pipe"), blocks(OTHER, "import"), blocks(MESSAGE, "pipe")]
    assert max(read) < 100


TEXT = "Ünï 한 \U0001f600 \\ ' \" \t \u2028 \uffff"


def test_every_column(every_database: Database) -> None:
    """Each parsed value is stored unchanged in the column of its name."""
    raw = (
        "Auto-Submitted: auto-generated\nPrecedence: Bulk\nList-Unsubscribe: <https://x.example/u>\n"
        "List-Unsubscribe-Post: List-Unsubscribe=One-Click\n"
        "From: =?utf-8?q?=C3=9Cn=C3=AF?= <a@example.org>\nSender: s@example.org\nReply-To: r@example.org\n"
        "To: g: b@example.com, c@example.com;\nCc: d@example.com\nBcc: e@example.com\nMessage-ID: <1@example.org>\n"
        "In-Reply-To: <0@example.org>\nReferences: <x@y> <0@example.org>\nDate: Mon, 7 Sep 2026 10:00:00 +0900\n"
        "Subject: =?utf-8?b?7ZWc?=\nList-Id: News <news.example.org>\nMIME-Version: 1.0\n"
        "Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain; charset=utf-8\n\nbödy\n"
        '--b\nContent-Type: application/pdf; name="a.pdf"; X=y\nContent-ID: <c@d>\nContent-Disposition: attachment\n'
        "Content-Location: https://x.example/a.pdf\nContent-Description: =?utf-8?q?The_p=C3=A4per?=\n\n%PDF\n"
        "--b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mx\n\n"
        "Final-Recipient: rfc822; z@example.org\nAction: failed\n--b--\n"
    ).encode()
    with open_store(every_database.conninfo) as store:
        (stored,) = store.ingest(submission(raw))
    with open_store(every_database.admin) as reader:
        row = messages.message(reader, stored.message)
    assert row.message_id == "1@example.org"
    assert (row.in_reply_to, row.reference_ids) == (["0@example.org"], ["x@y", "0@example.org"])
    assert (row.date, row.date_offset) == (datetime(2026, 9, 7, 1, tzinfo=UTC), 540)
    assert row.subject == "한"
    assert row.from_list == [{"name": "Ünï", "address": "a@example.org", "group": ""}]
    found = {
        name: [each["address"] for each in getattr(row, f"{name}_list")]
        for name in ("sender", "reply_to", "to", "cc", "bcc")
    }
    assert found == {
        "sender": ["s@example.org"],
        "reply_to": ["r@example.org"],
        "to": ["b@example.com", "c@example.com"],
        "cc": ["d@example.com"],
        "bcc": ["e@example.com"],
    }
    assert row.list_id == "news.example.org"
    assert (row.text_body or "").strip() == "bödy"
    assert (row.state, row.error, row.size) == ("parsed", None, len(raw))
    assert row.header[0] == ["Auto-Submitted", "auto-generated"]
    assert (row.auto_submitted, row.precedence) == ("auto-generated", "bulk")
    assert (row.list_unsubscribe, row.list_unsubscribe_post) == (["https://x.example/u"], True)
    assert (row.preview, row.text_from_html) == ("bödy", None)
    assert row.report == {
        "type": "delivery-status",
        "reporting_mta": "mx",
        "recipients": [{"final_recipient": "z@example.org", "action": "failed"}],
    }
    attachment, _ = row.attachments
    assert attachment.parameters == {"name": "a.pdf", "x": "y"}
    assert attachment.content_location == "https://x.example/a.pdf"
    assert attachment.content_description == "The päper"
    assert (attachment.file_name, attachment.content_type) == ("a.pdf", "application/pdf")
    assert (attachment.content_id, attachment.disposition) == ("c@d", "attachment")
    with open_store(every_database.admin) as reader:
        content = messages.attachment(reader, stored.message, 1)
    assert (len(content), content.strip()) == (attachment.size, b"%PDF")


def test_every_column_of_the_envelope(store: MessageStore, database: Database) -> None:
    """Each value that pipe(8) passes for a message is stored in the column of its name."""
    said: dict[str, Any] = {
        "sender": "a@example.org",
        "queue_id": "4Xyz",
        "client_address": "2001:db8::1",
        "client_hostname": "mx.example.org",
        "client_helo": "helo.example.org",
        "client_port": 25,
        "client_protocol": "ESMTP",
        "sasl_username": "user",
    }
    made = submission()
    envelope = made.envelope._replace(**said, original_recipients=("alias@example.com",))
    store.ingest(made._replace(envelope=envelope))
    (row,) = database.rows(
        f"SELECT {', '.join(said)}, recipient, original_recipient, mail_host, ingress, received_at FROM pipehandler.delivery"
    )
    assert {name: str(getattr(row, name)) for name in said} == {name: str(value) for name, value in said.items()}
    assert (row.recipient, row.original_recipient) == ("user@example.com", "alias@example.com")
    assert (row.mail_host, row.ingress) == ("mx.example.net", "pipe")
    assert row.received_at == datetime(2026, 9, 7, 1, tzinfo=UTC)


def test_what_is_not_known_is_null(store: MessageStore, database: Database) -> None:
    """A value that pipe(8) did not pass is null, not a string."""
    store.ingest(submission())
    columns = "original_recipient queue_id client_address client_hostname client_helo client_port client_protocol"
    (row,) = database.rows(
        f"SELECT {', '.join(columns.split())}, sasl_username, lease, extension FROM pipehandler.delivery"
    )
    assert set(row) == {None}


@pytest.mark.parametrize(
    ("argument", "value", "automatic"),
    [
        ("sender", "", True),
        ("auto_submitted", "auto-replied", True),
        ("auto_submitted", "no", False),
        *(("precedence", word, True) for word in ("bulk", "junk", "list", "auto_reply")),
        ("precedence", "first-class", False),
        ("list_id", "l.example.org", True),
        ("report", "{}", True),
    ],
)
def test_automatic(untouched: Database, argument: str, value: str, automatic: bool) -> None:
    """Each sign of an automatic message suffices (RFC 3834 2); a message from a person has none of them."""
    person = {"sender": "a@example.org", "auto_submitted": None, "precedence": None, "list_id": None, "report": None}
    call = "SELECT pipehandler.is_automatic(%s, %s, %s, %s, %s::jsonb)"
    assert untouched.value(call, *person.values()) is False
    assert untouched.value(call, *{**person, argument: value}.values()) is automatic


def test_hostile_text(every_database: Database) -> None:
    """Text with a meaning in SQL, JSON or COPY is stored unchanged."""
    parsed = ParsedMessage(
        subject=TEXT,
        text=TEXT,
        html=TEXT,
        header=[("Subject", TEXT)],
        text_from_html=TEXT,
        preview=TEXT,
        auto_submitted=TEXT,
        precedence=TEXT,
        list_unsubscribe=[TEXT, "", "NULL", "{}"],
        report={"type": TEXT, TEXT: [TEXT]},
        attachments=[
            Attachment("1", "text/x", bytes(range(256)), TEXT, TEXT, TEXT, TEXT, TEXT, {TEXT: TEXT}),
            Attachment("2", "a/b", b""),
        ],
        defects=[Defect("x", TEXT, TEXT)],
    )
    with open_store(every_database.conninfo) as store, open_store(every_database.admin) as reader:
        (stored,) = store.ingest(submission(parsed=parsed))
        row = messages.message(reader, stored.message)
        assert messages.attachment(reader, stored.message, 1) == bytes(range(256))
        assert messages.attachment(reader, stored.message, 2) == b""
    assert (row.subject, row.text_body, row.html_body) == (TEXT, TEXT, TEXT)
    assert row.header == [["Subject", TEXT]]
    assert row.defects == [{"code": "x", "where": TEXT, "detail": TEXT}]
    assert (row.text_from_html, row.preview, row.auto_submitted, row.precedence) == (TEXT, TEXT, TEXT, TEXT)
    assert (row.list_unsubscribe, row.report) == ([TEXT, "", "NULL", "{}"], {"type": TEXT, TEXT: [TEXT]})
    described = row.attachments[0]
    assert (described.file_name, described.content_location, described.content_description) == (TEXT, TEXT, TEXT)
    assert [each.parameters for each in row.attachments] == [{TEXT: TEXT}, {}]


def test_attachments_that_are_not_wanted(store: MessageStore, database: Database) -> None:
    """With store.attachments = false they are described, and their content stays in the raw message."""
    parsed = ParsedMessage(attachments=[Attachment("1", "a/b", b"content")])
    store.ingest(submission(parsed=parsed, attachments=False))
    ((content, size),) = database.rows("SELECT content, size FROM pipehandler.attachment")
    assert (content, size) == (None, 7)


def test_sender_chosen_values_are_not_too_long_for_an_index(store: MessageStore, database: Database) -> None:
    """A Message-ID and an address longer than an index row allows do not refuse the message."""
    long = b"x" * 5_000
    store.ingest(submission(b"Message-ID: <" + long + b"@x>\nFrom: " + long + b"@example.org\n\n"))
    assert database.value("SELECT message_id IS NULL AND from_address IS NULL FROM pipehandler.message")
    assert len(database.value("SELECT from_list->0->>'address' FROM pipehandler.message")) > 5_000


# Once.


def test_one_message_for_all_copies(store: MessageStore, database: Database) -> None:
    """The same bytes for another recipient are another delivery, not another message; sent again they are a
    duplicate."""
    first = store.ingest(submission(MESSAGE, "a@example.com"))
    both = store.ingest(submission(MESSAGE, "a@example.com", "b@example.com"))
    assert [each.duplicate for each in sorted(both)] == [True, False]
    assert {each.message for each in first + both} == {submission().identity.id}
    assert database.value("SELECT count(*) FROM pipehandler.message") == 1
    (other,) = store.ingest(submission(OTHER, "a@example.com"))
    assert (other.message, other.duplicate) == (submission(OTHER).identity.id, False)


def test_retransmission_is_a_duplicate_of_the_first_copy(store: MessageStore, database: Database) -> None:
    """A second transmission with another Received field stores nothing, and returns the stored message."""
    (first,) = store.ingest(submission(b"Received: one\n" + MESSAGE))
    (second,) = store.ingest(submission(b"Received: two\n" + MESSAGE))
    assert second == Stored(first.recipient, first.delivery, first.message, duplicate=True)
    assert database.value("SELECT count(*) FROM pipehandler.message") == 1


def test_recipient_that_is_named_twice(store: MessageStore, database: Database) -> None:
    """A recipient that is listed twice in one call gets one delivery."""
    assert len({each.delivery for each in store.ingest(submission(MESSAGE, "a@example.com", "a@example.com"))}) == 1
    assert deliveries(database) == 1


def later(database: Database) -> list[tuple[str, list[str], list[str]]]:
    """All copies in the view inbox, by recipient."""
    rows = database.rows("SELECT recipient, original_recipients, list_ids FROM pipehandler.inbox ORDER BY recipient")
    return [tuple(row) for row in rows]


def aliased(raw: bytes, *pairs: tuple[str, str]) -> IngestRequest:
    """`raw` for these recipients, each with the address before aliasing."""
    made = submission(raw, *(recipient for recipient, _ in pairs))
    originals = tuple(original for _, original in pairs)
    return made._replace(envelope=made.envelope._replace(original_recipients=originals))


def test_every_original_recipient_is_kept(every_database: Database) -> None:
    """A message that reaches one mailbox through several aliases, in one call or in several, is one delivery of all of them."""
    with open_store(every_database.conninfo) as store:
        store.ingest(aliased(MESSAGE, ("a@x", "sales@x"), ("a@x", "info@x"), ("b@x", "info@x")))
        first, second = later(every_database)
        assert (sorted(first[1]), second) == (["info@x", "sales@x"], ("b@x", ["info@x"], []))
        (again,) = store.ingest(aliased(b"Received: again\n" + MESSAGE, ("a@x", "ceo@x")))
        assert again.duplicate
        expected: list[tuple[str, list[str], list[str]]]
        expected = [("a@x", [*first[1], "ceo@x"], []), second]
        assert later(every_database) == expected
        versions = "SELECT xmin, ctid FROM pipehandler.delivery ORDER BY id"
        before = every_database.rows(versions)
        store.ingest(aliased(MESSAGE, ("a@x", "info@x"), ("b@x", "info@x")))
        store.ingest(submission(MESSAGE, "a@x"))
        assert every_database.rows(versions) == before
        store.ingest(aliased(OTHER, ("c@x", "c@x")))
        store.ingest(aliased(OTHER, ("c@x", "sales@x"), ("c@x", "sales@x"), ("d@x", "sales@x")))
    assert later(every_database) == [*expected, ("c@x", ["c@x", "sales@x"], []), ("d@x", ["sales@x"], [])]
    assert every_database.value("SELECT count(*) FROM pipehandler.message") == 2


def test_list_of_a_later_copy_is_kept(every_database: Database) -> None:
    """The direct copy arrives first, then the one through the list: the list is recorded, and the message is
    unchanged."""
    with open_store(every_database.conninfo) as store:
        (first,) = store.ingest(submission(MESSAGE))
        for name in (b"l.x", b"l.x", b"m.x"):
            (copy,) = store.ingest(submission(b"List-Id: <%b>\n" % name + MESSAGE))
            assert (copy.duplicate, copy.message) == (True, first.message)
        store.ingest(submission(b"List-Id: <l.x>\n" + OTHER))
        store.ingest(submission(b"List-Id: <l.x>\nReceived: x\n" + OTHER))
        store.ingest(submission(OTHER))
    rows = every_database.rows("SELECT list_id, list_ids FROM pipehandler.inbox ORDER BY id")
    assert [tuple(row) for row in rows] == [(None, ["l.x", "m.x"]), ("l.x", ["l.x"])]


def test_later_copies_are_bounded(store: MessageStore, database: Database) -> None:
    """A sender who repeats a message endlessly with other lists and aliases does not make a row grow endlessly."""
    store.ingest(submission(MESSAGE))
    for number in range(105):
        store.ingest(aliased(b"List-Id: <%d.x>\n" % number + MESSAGE, ("user@example.com", f"{number}@x")))
    store.ingest(submission(b"List-Id: <" + b"x" * 5_000 + b">\n" + MESSAGE))
    ((originals, lists),) = database.rows("SELECT later_original_recipients, later_list_ids FROM pipehandler.delivery")
    assert originals == [f"{number}@x" for number in range(100)]
    assert lists == [f"{number}.x" for number in range(100)]


def test_later_copies_at_once(every_database: Database) -> None:
    """Handlers store the same message through different aliases, with recipients in opposite orders: nothing is lost,
    and they do not deadlock."""
    recipients = [f"{number}@example.com" for number in range(10)]
    log = every_database.server.log
    before = log.stat().st_size

    def work(number: int) -> None:
        with open_store(every_database.conninfo) as store:
            for run in range(10):
                order = recipients if (number + run) % 2 else recipients[::-1]
                raw = b"List-Id: <%d.x>\n" % number + MESSAGE
                store.ingest(aliased(raw, *((recipient, f"{number}-{run}@x") for recipient in order)))

    together(4, work)
    wanted = sorted(f"{number}-{run}@x" for number in range(4) for run in range(10))
    for _, originals, lists in later(every_database):
        assert sorted(originals) == wanted
        assert sorted(lists) == ["0.x", "1.x", "2.x", "3.x"]
    assert deliveries(every_database) == 10
    assert b"deadlock detected" not in log.read_bytes()[before:]


def together(count: int, work: Callable[[int], object]) -> list[object]:
    """The results of `count` threads that start at the same moment."""
    start = threading.Barrier(count)

    def one(number: int) -> object:
        start.wait(60)
        return work(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_twenty_at_once(every_database: Database) -> None:
    """Twenty handlers with the same message store it once; one reports it as new, the others as a duplicate."""

    def work(number: int) -> bool:
        with open_store(every_database.conninfo) as store:
            store.connect()
            (stored,) = store.ingest(submission())
            return stored.duplicate

    assert sorted(together(20, work)) == [False] + [True] * 19  # type: ignore[type-var]
    counts = "SELECT (SELECT count(*) FROM pipehandler.%s)"
    assert [every_database.value(counts % name) for name in ("message", "raw_message", "delivery")] == [1, 1, 1]


def test_recipients_in_opposite_orders(every_database: Database) -> None:
    """Handlers with the same recipients in opposite orders never deadlock."""
    recipients = [f"{number}@example.com" for number in range(30)]
    log = every_database.server.log
    before = log.stat().st_size

    def work(number: int) -> None:
        with open_store(every_database.conninfo) as store:
            for run in range(10):
                order = recipients if (number + run) % 2 else recipients[::-1]
                store.ingest(submission(MESSAGE + b"%d" % run, *order))

    together(4, work)
    assert deliveries(every_database) == 300
    assert b"deadlock detected" not in log.read_bytes()[before:]


# Retries.


def test_serialization_failure_is_tried_again(store: MessageStore, database: Database) -> None:
    """A message that is removed while another recipient's copy arrives (40001) is stored again, whole."""
    store.ingest(submission(MESSAGE, "a@example.com"))
    with session(database) as other:
        other.execute("DELETE FROM pipehandler.delivery")
        other.execute("DELETE FROM pipehandler.message")
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(store.ingest, submission(MESSAGE, "b@example.com"))
            wait_until_blocked(database)
            other.commit()
            assert [each.duplicate for each in running.result(60)] == [False]
    ((recipient, raw),) = database.rows(
        "SELECT recipient, raw FROM pipehandler.delivery JOIN pipehandler.raw_message USING (message)"
    )
    assert (recipient, bytes(raw)) == ("b@example.com", MESSAGE)


def test_deadlock_is_tried_again(database: Database) -> None:
    """As the victim of a deadlock (40P01) the handler retries, and stores the message."""
    conninfo = f"{database.admin} options='-c deadlock_timeout=50ms'"
    with session(database) as other, open_store(conninfo) as store:
        other.execute("SET deadlock_timeout = '20s'")
        other.execute("LOCK pipehandler.message IN EXCLUSIVE MODE")
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(store.ingest, submission())
            wait_until_blocked(database)
            other.execute("LOCK pipehandler.delivery IN EXCLUSIVE MODE")  # granted when the handler was chosen
            other.rollback()
            assert [each.duplicate for each in running.result(60)] == [False]


def test_lock_timeout_is_tried_again(database: Database) -> None:
    """A lock that is not available for half of the statement timeout (55P03) is requested again."""
    with session(database) as other, open_store(database.conninfo, statement_timeout=1) as store:
        other.execute("LOCK pipehandler.delivery")
        with ThreadPoolExecutor(1) as pool:
            log = database.server.log
            before = log.stat().st_size
            running = pool.submit(store.ingest, submission())
            wait_until(lambda: b"lock timeout" in log.read_bytes()[before:], "the lock timeout")
            other.rollback()
            assert [each.duplicate for each in running.result(60)] == [False]


def wait_until_blocked(database: Database) -> None:
    """Wait until a session of this database waits for a lock."""
    blocked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    wait_until(lambda: database.value(blocked), "the wait for a lock")


def test_locked_tables_defer(database: Database) -> None:
    """If the lock is not granted (a migration is in progress), the message is deferred: 55P03."""
    with session(database) as other, open_store(database.conninfo, statement_timeout=1) as store:
        other.execute("LOCK pipehandler.delivery")
        error = refused(store)
    assert (error.outcome, error.sqlstate) == (outcome.STORE_UNAVAILABLE, "55P03")
    assert deliveries(database) == 0


LEAVES_OUT = {
    "trigger": "CREATE FUNCTION public.leave_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"
    " CREATE TRIGGER leave_out BEFORE INSERT ON {leaf} FOR EACH ROW EXECUTE FUNCTION public.leave_out()",
    "rule": "CREATE RULE leave_out AS ON INSERT TO pipehandler.{table} DO INSTEAD NOTHING",
}
"""What an application or an administrator may have added that keeps a row out of a table without an error."""


@pytest.mark.parametrize("again", [False, True], ids=["new", "repair"])
@pytest.mark.parametrize("by", ["trigger", "rule"])
@pytest.mark.parametrize("table", ["delivery", "message", "raw_message"])
def test_what_is_left_out_without_an_error_defers(database: Database, table: str, by: str, again: bool) -> None:
    """Success means that the message and its bytes are there, also when a missing message or bytes are stored again."""
    leaf = f"pipehandler.{table}" if table == "delivery" else f"pipehandler.{table}_{datetime.now(UTC):%Y%m%d}"
    drop = f"TRIGGER leave_out ON {leaf}" if by == "trigger" else f"RULE leave_out ON pipehandler.{table}"
    if again:
        with open_store(database.conninfo) as store:
            store.ingest(submission())
        database.execute("SET session_replication_role = replica; DELETE FROM pipehandler.raw_message")
        if table != "raw_message":
            database.execute(f"SET session_replication_role = replica; DELETE FROM pipehandler.{table}")
    database.execute(LEAVES_OUT[by].format(leaf=leaf, table=table))
    with open_store(database.conninfo) as store:
        assert refused(store).outcome.status == EX_TEMPFAIL
    assert database.value(f"SELECT count(*) FROM pipehandler.{table}") == 0
    database.execute(f"DROP {drop}")
    with open_store(database.conninfo) as store:
        assert [row.duplicate for row in store.ingest(submission())] == [False]


def test_slow_server_defers(database: Database) -> None:
    """A server that works longer than statement_timeout is interrupted (57014), and the message is deferred."""
    trigger(database, "PERFORM pg_sleep(20)")
    with open_store(database.conninfo, statement_timeout=1) as store:
        error = refused(store)
    assert (error.outcome, error.sqlstate) == (outcome.STORE_UNAVAILABLE, "57014")
    assert deliveries(database) == 0


# Refusals.


def trigger(database: Database, statement: str, deferred: bool = False) -> None:
    """Run `statement` (PL/pgSQL) for each delivery: while it is written, or at the commit."""
    database.execute(
        f"CREATE FUNCTION fault() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {statement}; RETURN NEW; END $$"
    )
    when = "DEFERRABLE INITIALLY DEFERRED" if deferred else ""
    database.execute(
        f"CREATE CONSTRAINT TRIGGER fault AFTER INSERT ON pipehandler.delivery {when} FOR EACH ROW EXECUTE FUNCTION fault()"
    )


@pytest.mark.parametrize("deferred", [False, True], ids=["statement", "commit"])
@pytest.mark.parametrize(
    ("sqlstate", "how"),
    [
        ("08006", outcome.STORE_UNAVAILABLE),
        ("23503", outcome.STORE_UNAVAILABLE),
        ("23505", outcome.STORE_UNAVAILABLE),
        ("25006", outcome.STORE_UNAVAILABLE),
        ("42501", outcome.STORE_UNAVAILABLE),
        ("53100", outcome.STORE_FULL),
        ("53200", outcome.STORE_UNAVAILABLE),
        ("57P01", outcome.STORE_UNAVAILABLE),
        ("58030", outcome.STORE_UNAVAILABLE),
        ("P0001", outcome.STORE_UNAVAILABLE),
        ("XX000", outcome.STORE_UNAVAILABLE),
    ],
)
def test_error_is_temporary(
    store: MessageStore, database: Database, sqlstate: str, how: outcome.Outcome, deferred: bool
) -> None:
    """A refusal for the server's own reasons, during the write or at the commit, is temporary, and leaves nothing."""
    trigger(database, f"RAISE EXCEPTION 'fault' USING ERRCODE = '{sqlstate}', DETAIL = 'secret'", deferred)
    error = refused(store)
    assert (error.outcome, error.sqlstate, str(error)) == (how, sqlstate, "fault")
    assert not isinstance(error, DataRefused)
    assert deliveries(database) == 0


@pytest.mark.parametrize("sqlstate", ["22021", "22P05", "54000", "0A000", "23502", "23514"])
def test_error_of_the_data(store: MessageStore, database: Database, sqlstate: str) -> None:
    """A refusal because of the data is distinguished, and the error quotes none of the data."""
    trigger(database, f"RAISE EXCEPTION 'secret' USING ERRCODE = '{sqlstate}'")
    error = refused(store)
    assert isinstance(error, DataRefused)
    assert (error.sqlstate, "secret" in str(error)) == (sqlstate, False)


@pytest.mark.parametrize(
    "parsed",
    [
        ParsedMessage(subject="\0"),
        ParsedMessage(text="\0"),
        ParsedMessage(html="\udcff"),
        ParsedMessage(subject="\ud800"),
        ParsedMessage(header=[("X", "\udcff")]),
        ParsedMessage(attachments=[Attachment("1", "a/b", b"", "\0")]),
    ],
    ids=[
        "NUL in JSON",
        "NUL in text",
        "surrogate in text",
        "surrogate in JSON",
        "surrogate in header",
        "NUL in file name",
    ],
)
def test_text_that_cannot_be_stored(store: MessageStore, database: Database, parsed: ParsedMessage) -> None:
    """Unstorable text that slipped through the parser makes the server refuse the data, not the message, and not the
    next one."""
    with pytest.raises(DataRefused):
        store.ingest(submission(parsed=parsed))
    store.ingest(submission(parsed=ParsedMessage(error="refused")))
    assert database.value("SELECT state FROM pipehandler.message") == "failed"


def test_more_than_the_protocol_takes(store: MessageStore, database: Database) -> None:
    """Parsed data that does not fit into one protocol message (1 GB, at which the server would end the session each
    time) is refused before it is sent."""
    with pytest.raises(DataRefused) as error:
        store.ingest(submission(parsed=ParsedMessage(text="x" * 300_000_000)))
    assert error.value.sqlstate == "54000"
    assert database.value("SELECT count(*) FROM pg_stat_activity WHERE usename = 'pipehandler'") == 0


def test_refused_data_is_quarantined(handler: Handler, database: Database) -> None:
    """A message whose parsed data is refused is delivered all the same: its bytes are stored, with the reason why the
    rest is not."""
    database.execute("ALTER TABLE pipehandler.message ADD CHECK (subject <> 'one')")
    ended = handler.deliver(MESSAGE)
    assert (ended.status, ended.output[:26]) == (0, "2.0.0 stored, not parsed " + submission().identity.id[:1])
    ((state, error, subject, raw),) = database.rows(
        "SELECT state, error, subject, raw FROM pipehandler.message m"
        " JOIN pipehandler.raw_message r ON r.day = m.day AND r.message = m.id"
    )
    assert (state, subject, bytes(raw)) == ("failed", None, MESSAGE)
    assert error.endswith("SQLSTATE 23514")
    assert handler.log_lines()[0].startswith("outcome=quarantined status=0 ")
    assert handler.deliver(MESSAGE).output.startswith("2.0.0 stored before ")


def test_read_only_server_defers(store: MessageStore, database: Database) -> None:
    """A standby, or a primary that was made read-only (25006), is temporary."""
    database.execute(f"ALTER DATABASE {database.name} SET default_transaction_read_only = on")
    error = refused(store)
    assert (error.outcome, error.sqlstate) == (outcome.STORE_UNAVAILABLE, "25006")
    assert store.socket is None  # the next message may find another server


def test_too_many_connections_defer(store: MessageStore, database: Database) -> None:
    """A server without free connections (53300) is temporary."""
    database.execute(f"ALTER DATABASE {database.name} CONNECTION LIMIT 0")
    error = refused(store)
    assert error.outcome == outcome.STORE_UNAVAILABLE
    assert "too many connections" in str(error)


def test_lost_connection_is_opened_again(store: MessageStore, database: Database) -> None:
    """After the server has ended the session, the next message uses a new one without a failure."""
    store.ingest(submission(MESSAGE))
    database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'pipehandler'")
    store.ingest(submission(OTHER))
    assert deliveries(database) == 2


# The wire.


@pytest.fixture
def wire(database: Database) -> Iterator[Proxy]:
    """A proxy in front of the server."""
    with proxy(database.server.port) as running:
        yield running


# ReadyForQuery comes at the end of the start-up, and then after the commit.
COMPLETE, READY = message(BACKEND, "C"), message(BACKEND, "Z", 2)
COMMITTED = [Fault(COMPLETE), Fault(COMPLETE, INSIDE), Fault(COMPLETE, AFTER), Fault(READY), Fault(READY, INSIDE)]
NOT_COMMITTED = [
    Fault(message(BACKEND, "R")),
    *(Fault(message(FRONTEND, kind), where) for kind in "PBES" for where in (BEFORE, INSIDE)),
]


@pytest.mark.parametrize("how", [CUT, RESET])
@pytest.mark.parametrize(
    ("fault", "committed"),
    [
        *((each, True) for each in COMMITTED),
        *((each, False) for each in NOT_COMMITTED),
        (
            Fault(message(BACKEND, "Z"), AFTER),
            None,
        ),  # the end of the start-up: the statement may be faster than the cut
    ],
)
def test_connection_is_lost(wire: Proxy, database: Database, fault: Fault, committed: bool | None, how: str) -> None:
    """A connection that ends before ReadyForQuery is never a success, whatever the server sent before; the redelivery
    is a duplicate or the first copy, and one copy is stored."""
    wire.fault = fault._replace(how=how)
    with open_store(wire.conninfo(database.conninfo)) as store:
        assert refused(store).outcome == outcome.STORE_UNAVAILABLE
    assert wire.hits == 1
    wire.fault = None
    wait_until_alone(database)
    with open_store(wire.conninfo(database.conninfo)) as store:
        (stored,) = store.ingest(submission())
    assert committed in (stored.duplicate, None)
    assert deliveries(database) == 1


def wait_until_alone(database: Database) -> None:
    """Wait until the server has noticed that the handler has disconnected."""
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'pipehandler'"
    wait_until(lambda: not database.value(sessions), "the end of the session")


def test_silence_instead_of_the_commit(handler: Handler, wire: Proxy, database: Database) -> None:
    """For a server that sends everything except ReadyForQuery, the handler waits until the deadline and defers the
    message; the redelivery is a duplicate."""
    wire.fault = Fault(READY, BEFORE, STALL)
    handler.configure(wire.conninfo(database.conninfo), limits={"deadline": 5, "parse_timeout": 1})
    assert handler.deliver(MESSAGE) == (outcome.DEADLINE.status, outcome.DEADLINE.line() + "\n")
    wire.fault = None
    assert handler.deliver(MESSAGE).output.startswith(outcome.DUPLICATE.line())
