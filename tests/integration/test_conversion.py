"""An existing database is divided into days while mail arrives: nothing is copied, lost or doubled."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing

import psycopg
import pytest
from harness import previous_release
from harness.database import Database
from harness.days import KEYS, UNDATED, today
from harness.postgresql import VERSIONS, PostgreSQL
from harness.schema_dump import dump
from harness.submission import MESSAGE, submission

from pipehandler.store.errors import StoreError
from pipehandler.store.ingest import Stored
from pipehandler.store.message_store import MessageStore
from pipehandler.store.migrate import MigrationError, migrate
from pipehandler.store.sql_files import migrations, preparation

_numbers = itertools.count(1)

PICTURE = (
    b"From: a@example.org\nMessage-ID: <picture@example.org>\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\ntext\n"
    b"--b\nContent-Type: image/gif\n\nGIF\n--b--\n"
)


@pytest.fixture(params=VERSIONS, ids=lambda version: f"pg{version}")
def former(request: pytest.FixtureRequest, servers: Callable[[int], PostgreSQL]) -> Iterator[Database]:
    """A database of the previous release, once for each version of PostgreSQL."""
    server = servers(request.param)
    with (
        Database.fresh(server),  # the login roles
        previous_release.database(server, f"former{next(_numbers)}", files=10) as database,
    ):
        yield database


def deliver(database: Database, raw: bytes, *recipients: str) -> list[Stored]:
    """Store a message as the handler does."""
    with closing(MessageStore(database.conninfo)) as store:
        return store.ingest(submission(raw, *recipients))


def converted(database: Database) -> None:
    """Migrate, without waiting for locks a second time."""
    with closing(MessageStore(database.admin, statement_timeout=60)) as store:
        migrate(store, wait=0)


def files(database: Database) -> list[tuple[str, int]]:
    """The files that the tables of mail have, by what they are for."""
    rows = database.rows(
        "SELECT CASE WHEN c.relname ~ '_undated' THEN regexp_replace(c.relname, '_undated', '') ELSE c.relname END AS name,"
        "       pg_relation_filenode(c.oid) AS file FROM pg_class c"
        " WHERE c.oid IN (to_regclass('pipehandler.message'), to_regclass('pipehandler.raw_message'), to_regclass('pipehandler.attachment'),"
        "                 to_regclass('pipehandler.message_undated'), to_regclass('pipehandler.raw_message_undated'),"
        "                 to_regclass('pipehandler.attachment_undated')) AND c.relkind = 'r' ORDER BY 1"
    )
    return [(row.name, row.file) for row in rows]


def test_nothing_is_copied(former: Database) -> None:
    """What is stored stays in its files, as the partition without a day; what comes again is a duplicate, what is new has
    its day, and both are removed like any mail."""
    (first,) = deliver(former, PICTURE, "a@example.com")
    before = files(former)
    assert len(before) == len(KEYS)
    converted(former)
    assert files(former) == before
    assert deliver(former, PICTURE, "a@example.com") == [first._replace(duplicate=True)]
    deliver(former, PICTURE, "b@example.com")
    deliver(former, MESSAGE, "b@example.com")
    for table in ("message", "raw_message"):
        rows = former.rows(f"SELECT day FROM pipehandler.{table} ORDER BY 1")
        assert [row.day for row in rows] == [UNDATED, today(), today()]
    rows = former.rows("SELECT recipient, attachments FROM pipehandler.inbox ORDER BY id")
    assert [tuple(row) for row in rows] == [("a@example.com", 1), ("b@example.com", 1), ("b@example.com", 0)]
    former.execute("UPDATE pipehandler.delivery SET expires_at = now() - interval '1 s'")
    (removed,) = former.rows("SELECT deliveries, messages FROM pipehandler.expire()")
    assert tuple(removed) == (3, 3)
    for table in KEYS:
        assert former.value(f"SELECT count(*) FROM pipehandler.{table}") == 0


def test_interrupted(former: Database) -> None:
    """Where the tables are in use, the run gives up; mail is delivered with the functions of the previous release, once,
    and the next run goes on."""
    (first,) = deliver(former, PICTURE, "a@example.com")
    with psycopg.connect(former.admin) as reader:
        reader.execute("SELECT count(*) FROM pipehandler.raw_message")
        with pytest.raises(MigrationError, match="a lock was not free"):
            converted(former)
        assert deliver(former, PICTURE, "a@example.com") == [first._replace(duplicate=True)]
        (second,) = deliver(former, PICTURE, "b@example.com")
        assert second.message == first.message
    converted(former)
    for recipient, stored in (("a@example.com", first), ("b@example.com", second)):
        assert deliver(former, PICTURE, recipient) == [stored._replace(duplicate=True)]
    assert former.value("SELECT count(*) FROM pipehandler.message") == 1


def test_what_an_operator_has_made(former: Database) -> None:
    """Views, functions, indexes and grants of the operator are there for new mail as well."""
    deliver(former, MESSAGE, "a@example.com")
    former.execute("CREATE VIEW public.subjects AS SELECT id, subject FROM pipehandler.message")
    former.execute(
        "CREATE FUNCTION public.messages() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM pipehandler.message; END"
    )
    former.execute("CREATE INDEX own ON pipehandler.message (subject)")
    former.execute("CREATE ROLE statistician; GRANT SELECT ON pipehandler.message TO statistician")
    try:
        converted(former)
        deliver(former, PICTURE, "a@example.com")
        assert former.value("SELECT count(*) FROM public.subjects") == 2
        assert former.value("SELECT public.messages()") == 2
        assert former.value(
            "SELECT count(*) FROM pg_inherits WHERE inhparent = 'pipehandler.own'::regclass"
        ) == former.value("SELECT count(*) FROM pg_inherits WHERE inhparent = 'pipehandler.message'::regclass")
        assert former.value("SELECT has_table_privilege('statistician', 'pipehandler.message', 'SELECT')")
    finally:
        former.execute("DROP OWNED BY statistician")
        former.execute("DROP ROLE statistician")


@pytest.mark.parametrize(
    ("made", "removed", "named"),
    [
        (
            "CREATE TABLE public.note (message uuid REFERENCES pipehandler.message)",
            "DROP TABLE public.note",
            "foreign key note_message_fkey of public.note",
        ),
        (
            "CREATE MATERIALIZED VIEW public.counted AS SELECT count(*) FROM pipehandler.raw_message",
            "DROP MATERIALIZED VIEW public.counted",
            "materialized view public.counted",
        ),
        (
            "CREATE TRIGGER own BEFORE UPDATE ON pipehandler.attachment FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
            "DROP TRIGGER own ON pipehandler.attachment",
            "trigger own on pipehandler.attachment",
        ),
        (
            "CREATE PUBLICATION copied FOR TABLE pipehandler.message",
            "DROP PUBLICATION copied",
            "publication copied of pipehandler.message",
        ),
    ],
    ids=["foreign key", "materialized view", "trigger", "publication"],
)
def test_what_cannot_follow(former: Database, made: str, removed: str, named: str) -> None:
    """What hangs on the tables themselves is named, and nothing changes until it is gone."""
    (first,) = deliver(former, PICTURE, "a@example.com")
    former.execute(made)
    with pytest.raises(StoreError, match=f"cannot follow: {named}; drop it, migrate"):
        converted(former)
    assert deliver(former, PICTURE, "a@example.com") == [first._replace(duplicate=True)]
    former.execute(removed)
    converted(former)
    assert deliver(former, PICTURE, "a@example.com") == [first._replace(duplicate=True)]


def test_after_files_with_greater_numbers(servers: Callable[[int], PostgreSQL]) -> None:
    """A database that has the files of sql/schema that come after this one is divided as well, with the same result."""
    server = servers(VERSIONS[-1])
    with Database.fresh(server) as fresh, previous_release.database(server, "ahead", files=0) as ahead:
        with closing(MessageStore(ahead.admin, statement_timeout=60)) as store:
            store.script("DROP SCHEMA pipehandler CASCADE")
            store.script(preparation())
            for file in migrations():
                if file.version != 24:
                    for part in [*file.parts(), file.script()]:
                        store.script(part)
        converted(ahead)
        assert dump(server, ahead.name, "-n", "pipehandler") == dump(server, fresh.name, "-n", "pipehandler")
        assert ahead.value("SELECT count(*) FROM pipehandler.migration") == len(migrations())
