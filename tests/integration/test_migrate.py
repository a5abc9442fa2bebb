"""Migrations: each file once, all or nothing, however they are applied and by whichever role."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
from harness import postgresql, previous_release
from harness.console import Console
from harness.database import Database
from harness.postgresql import VERSIONS, PostgreSQL
from harness.schema_dump import VERSION, dump, schema_text
from harness.service import wait_until
from harness.submission import submission

from pipehandler.cli.command import Failure, reported_errors
from pipehandler.mail.sysexits import EX_TEMPFAIL
from pipehandler.store.errors import StoreError
from pipehandler.store.message_store import MessageStore
from pipehandler.store.migrate import LOCK_TIMEOUT, PAUSES, MigrationError, migrate, pending, plan
from pipehandler.store.sql_files import Step, code, migrations

_numbers = itertools.count(1)

ALL = [*migrations(), code()]


@contextmanager
def empty_database(server: PostgreSQL) -> Iterator[Database]:
    """An empty database, without even the schema."""
    database = Database(server, f"empty{next(_numbers)}")
    with psycopg.connect(server.conninfo(), autocommit=True) as maintenance:
        maintenance.execute(f"CREATE DATABASE {database.name} TEMPLATE template0 {server.copying}")
        yield database
        maintenance.execute(f"DROP DATABASE {database.name} WITH (FORCE)")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_encoding(servers: Callable[[int], PostgreSQL], encoding: str) -> None:
    """A database that cannot hold all mail is refused, with its encoding and a hint, before anything is created in
    it."""
    server = servers(postgresql.VERSION)
    server.psql(
        "postgres", f"CREATE DATABASE other ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0 {server.copying}"
    )
    store = MessageStore(server.conninfo("other"))
    try:
        for call in (migrate, plan):
            with pytest.raises(
                MigrationError, match=f"the database other has the encoding {encoding}.*createdb -E UTF8"
            ):
                call(store)
    finally:
        store.close()
        server.psql("postgres", "DROP DATABASE other")


@pytest.fixture(params=VERSIONS, ids=lambda version: f"pg{version}")
def empty(request: pytest.FixtureRequest, servers: Callable[[int], PostgreSQL]) -> Iterator[Database]:
    """An empty database, once for each version of PostgreSQL."""
    with empty_database(servers(request.param)) as database:
        yield database


def migrated(database: Database, conninfo: str = "") -> list[Step]:
    """Migrate, over a separate connection; returns what was applied."""
    store = MessageStore(conninfo or database.admin, statement_timeout=60)
    try:
        return migrate(store)
    finally:
        store.close()


def schema(database: Database) -> str:
    """The whole schema, as pg_dump writes it."""
    return dump(database.server, database.name)


def test_twice(empty: Database) -> None:
    """The first run applies every file in order, the second none."""
    assert migrated(empty) == ALL
    before = schema(empty)
    assert migrated(empty) == []
    assert schema(empty) == before
    rows = empty.rows("SELECT version, name, checksum FROM pipehandler.migration ORDER BY version")
    assert [tuple(row) for row in rows] == [(each.version, each.name, each.checksum) for each in migrations()]


def test_at_once(empty: Database) -> None:
    """Of many hosts that migrate at the same moment, one does it all; the others wait and find nothing to do."""
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda _: migrated(empty), range(6)))
    assert sorted(map(len, done)) == [0] * 5 + [len(ALL)]


def test_several_databases_at_once(servers: Callable[[int], PostgreSQL]) -> None:
    """The roles belong to the whole server: databases that are migrated at the same moment do not disturb each other."""
    server = servers(postgresql.VERSION)
    with empty_database(server) as one, empty_database(server) as two, ThreadPoolExecutor(2) as pool:
        assert [len(done) for done in pool.map(migrated, (one, two))] == [len(ALL)] * 2


def test_owner_of_the_database_is_enough(servers: Callable[[int], PostgreSQL]) -> None:
    """If the roles already exist, the owner of a database needs no rights outside it."""
    with Database.fresh(servers(postgresql.VERSION)), empty_database(servers(postgresql.VERSION)) as database:
        database.execute("CREATE ROLE landlord LOGIN")
        database.execute(f"ALTER DATABASE {database.name} OWNER TO landlord")
        try:
            assert migrated(database, database.server.conninfo(database.name, user="landlord")) == ALL
        finally:
            database.execute(f"ALTER DATABASE {database.name} OWNER TO postgres")
            database.execute("DROP OWNED BY landlord")
            database.execute("DROP ROLE landlord")


def test_plan_is_the_same(empty: Database, folder: Path) -> None:
    """The output of --dry-run, run in psql, produces the same schema and the same records; then there is nothing to
    do."""
    store = MessageStore(empty.admin)
    script = folder / "plan.sql"
    script.write_text(plan(store), "utf-8")
    where = ["-h", str(empty.server.folder), "-p", str(empty.server.port), "-U", "postgres", "-d", empty.name]
    empty.server.run("psql", *where, "-Xq", "-v", "ON_ERROR_STOP=1", "-f", str(script))
    assert plan(store) == ""
    store.close()
    assert migrated(empty) == []
    with empty_database(empty.server) as other:
        migrated(other)
        assert schema(other) == schema(empty)


def test_plan_changes_nothing(empty: Database) -> None:
    """A dry run changes nothing."""
    store = MessageStore(empty.admin)
    assert plan(store)
    assert pending(store) == ALL
    store.close()
    assert empty.value("SELECT to_regnamespace('pipehandler') IS NULL")


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        (
            "UPDATE pipehandler.migration SET checksum = 'x' WHERE version = 1",
            r"0001_schema\.sql was changed .* put .* back",
        ),
        (
            "INSERT INTO pipehandler.migration VALUES (9999, '9999_later.sql', 'x')",
            r"9999_later\.sql, .* install the newer",
        ),
        (
            "INSERT INTO pipehandler.code (version, checksum, objects) VALUES (9999, 'x', '{}')",
            r"has version 9999 of the functions .* install the newer",
        ),
        ("UPDATE pipehandler.code SET checksum = 'x'", r"from another build .* install the released files"),
    ],
    ids=["changed", "newer", "newer functions", "other functions"],
)
def test_refusal(database: Database, change: str, reported: str) -> None:
    """A file that was changed after it was applied, and a database newer than this program, are refused with a hint."""
    database.execute(change)
    before = schema(database)
    with pytest.raises(MigrationError, match=reported):
        migrated(database)
    store = MessageStore(database.admin)
    with pytest.raises(MigrationError, match=reported):
        plan(store)
    store.close()
    assert schema(database) == before


@pytest.mark.parametrize("fault", ["RAISE EXCEPTION 'fault'", "PERFORM pg_terminate_backend(pg_backend_pid())"])
def test_interrupted(empty: Database, fault: str) -> None:
    """A migration that fails or dies half way leaves nothing behind, and the next run does it all."""
    empty.execute(f"CREATE FUNCTION fault() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN {fault}; END $$")
    empty.execute("CREATE EVENT TRIGGER fault ON ddl_command_start WHEN TAG IN ('GRANT') EXECUTE FUNCTION fault()")
    with pytest.raises(StoreError):
        migrated(empty)
    assert empty.value("SELECT to_regnamespace('pipehandler') IS NULL")
    empty.execute("DROP EVENT TRIGGER fault")
    assert migrated(empty) == ALL


def test_schema_for_reading(servers: Callable[[int], PostgreSQL]) -> None:
    """sql/schema.sql equals the schema of a database after all steps; script/schema regenerates it."""
    with Database.fresh(servers(VERSION)) as database:
        written = (Path(__file__).parents[2] / "sql" / "schema.sql").read_text("utf-8")
        assert schema_text(database.server, database.name) == written, "run script/schema"


DAMAGE = {
    "dropped": "DROP FUNCTION pipehandler.ingest",
    "another body": "CREATE OR REPLACE FUNCTION pipehandler.cursor_now() RETURNS text LANGUAGE sql AS $$ SELECT 'x' $$",
    "a setting": "ALTER FUNCTION pipehandler.ingest RESET enable_seqscan",
    "the caller's rights": "ALTER FUNCTION pipehandler.ingest SECURITY INVOKER",
    "another view": "CREATE OR REPLACE VIEW pipehandler.renewed_delivery AS"
    " SELECT n.id, n.message, n.lease, n.expires_at, n.raw_until, n.attachments_until"
    "   FROM pipehandler.delivery_under_current_rules n WHERE n.id < 7",
    "the digest": "DROP FUNCTION pipehandler.code_objects()",
    "the comparison": "DROP FUNCTION pipehandler.code_status()",
    "never recorded": "DELETE FROM pipehandler.code",
    "another server": "UPDATE pipehandler.code SET server = server - 1",
}


@pytest.mark.parametrize("what", DAMAGE)
def test_repair(database: Database, what: str) -> None:
    """Functions and views that are missing or changed are installed again, with their privileges."""
    before = schema(database)
    database.execute(DAMAGE[what])
    assert migrated(database) == [code()]
    assert schema(database) == before
    assert migrated(database) == []
    store = MessageStore(database.conninfo)
    assert len(store.ingest(submission())) == 1
    store.close()


@pytest.mark.parametrize(
    "statements",
    [
        "DROP FUNCTION pipehandler.health(); CREATE FUNCTION pipehandler.health() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DROP VIEW pipehandler.renewed_delivery; CREATE VIEW pipehandler.renewed_delivery AS SELECT 1 AS id",
    ],
    ids=["function", "view"],
)
def test_damage_of_another_shape(database: Database, statements: str) -> None:
    """An object that cannot be replaced is named as one to drop, and nothing is changed."""
    database.execute(statements)
    before = schema(database)
    with pytest.raises(MigrationError, match="drop it first"):
        migrated(database)
    assert schema(database) == before


def test_older_functions_are_replaced(database: Database) -> None:
    """The functions of an older version are replaced, and the record of the older version stays."""
    database.execute("UPDATE pipehandler.code SET version = 0, checksum = 'older'")
    assert migrated(database) == [code()]
    rows = database.rows("SELECT version, checksum FROM pipehandler.code ORDER BY version")
    assert [tuple(row) for row in rows] == [(0, "older"), (code().version, code().checksum)]


WAITS = """
SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'pipehandler.delivery'::regclass AND NOT granted
                  AND mode = 'AccessExclusiveLock')
"""


def test_deliveries_go_on_while_it_waits(servers: Callable[[int], PostgreSQL]) -> None:
    """A session that holds a table holds up the migration, and is named; a delivery that queues behind the migration
    proceeds when that releases its locks, long before its own deadline."""
    server = servers(postgresql.VERSION)
    with Database.fresh(server), previous_release.database(server, "busy", files=6) as database:
        database.execute("CREATE TABLE seen (tag text, lock_timeout text)")
        database.execute(
            "CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS"
            " $$ BEGIN INSERT INTO public.seen VALUES (tg_tag, current_setting('lock_timeout')); END $$"
        )
        database.execute("CREATE EVENT TRIGGER note ON ddl_command_start EXECUTE FUNCTION note()")
        reports: list[str] = []
        done: list[Step] = []
        migration = MessageStore(database.admin, statement_timeout=600)
        thread = threading.Thread(target=lambda: done.extend(migrate(migration, reports.append)), daemon=True)
        with psycopg.connect(database.admin, application_name="nightly report") as reader:
            reader.execute("SELECT count(*) FROM pipehandler.delivery")
            pid = reader.info.backend_pid
            thread.start()
            wait_until(lambda: database.value(WAITS), "the wait of the migration")
            store = MessageStore(database.conninfo)
            (stored,) = store.ingest(submission())
            store.close()
            assert not stored.duplicate
            assert thread.is_alive()
            wait_until(lambda: reports, "the report")
        thread.join(120)
        migration.close()
        assert done == ALL[6:]
        expected = f"not free within {LOCK_TIMEOUT}; it is held by pid {pid} (nightly report, user postgres, idle in transaction"
        assert expected in reports[0]
        assert reports[0].endswith(f"the next attempt is in {PAUSES[0]:g} s")
        assert [
            row.lock_timeout
            for row in database.rows("SELECT DISTINCT lock_timeout FROM seen WHERE tag <> 'CREATE INDEX'")
        ] == [LOCK_TIMEOUT]
        assert database.value("SELECT count(*) FROM pipehandler.delivery") == 1


def test_gives_up(database: Database) -> None:
    """If a lock is not free in any attempt, its holder is named, and nothing is changed."""
    database.execute("UPDATE pipehandler.code SET version = 0")
    with psycopg.connect(database.admin) as reader:
        reader.execute("SELECT count(*) FROM pipehandler.inbox")
        store = MessageStore(database.admin, statement_timeout=600)
        with (
            pytest.raises(
                Failure, match=rf"held by pid {reader.info.backend_pid} .*gave up after 2 attempts"
            ) as raised,
            reported_errors(),
        ):
            migrate(store, wait=6)
        assert raised.value.status == EX_TEMPFAIL
        store.close()
    assert database.value("SELECT version FROM pipehandler.code") == 0


def test_wait(console: Console, database: Database) -> None:
    """With --wait 0 it tries once, names who holds the lock, and ends with 75; a value that is no duration is named."""
    database.execute("UPDATE pipehandler.code SET version = 0")
    with psycopg.connect(database.admin) as reader:
        reader.execute("SELECT count(*) FROM pipehandler.inbox")
        done = console.run("--conninfo", database.admin, "migrate", "--wait", "0")
        assert (done.status, done.output) == (EX_TEMPFAIL, b"")
        assert f"held by pid {reader.info.backend_pid} " in done.errors
        assert "gave up after 1 attempt, and nothing was changed" in done.errors
    assert "invalid duration 'soon'" in console.run("migrate", "--wait", "soon").errors
    assert "applied" in console.run("--conninfo", database.admin, "migrate", "--wait", "1h").text


def test_a_prepared_transaction_is_named(own_database: Database) -> None:
    """A lock without a session: a prepared transaction holds it."""
    own_database.execute("ALTER SYSTEM SET max_prepared_transactions = 2")
    own_database.server.stop()
    own_database.server.start()
    own_database.execute("UPDATE pipehandler.code SET version = 0")
    with psycopg.connect(own_database.admin) as connection:
        connection.execute("BEGIN; SELECT count(*) FROM pipehandler.inbox; PREPARE TRANSACTION 'x'")
    store = MessageStore(own_database.admin)
    with pytest.raises(MigrationError, match="held by a prepared transaction"):
        migrate(store, wait=0)
    store.close()
    own_database.execute("ROLLBACK PREPARED 'x'")


INVALID = """
SELECT c.relname AS name
  FROM pg_index i
  JOIN pg_class c ON c.oid = i.indexrelid
 WHERE c.relnamespace = 'pipehandler'::regnamespace AND NOT i.indisvalid
"""


def test_a_gap_is_filled(database: Database) -> None:
    """A file with a number below the newest one that was applied is applied later; the newest stays recorded once."""
    database.execute("DROP FUNCTION pipehandler.shard_status()")
    database.execute("DROP TABLE pipehandler.sharding CASCADE")
    database.execute("DELETE FROM pipehandler.migration WHERE version = 25")
    with closing(MessageStore(database.admin, statement_timeout=100)) as store:
        assert "0025_shards.sql" in [step.name for step in migrate(store)]
        assert migrate(store) == []
    recorded = database.rows("SELECT version FROM pipehandler.migration ORDER BY version")
    assert [row.version for row in recorded] == [migration.version for migration in migrations()]


def test_resumed(servers: Callable[[int], PostgreSQL]) -> None:
    """A migration that ends while it builds an index in the background is continued by the next run; mail is delivered
    in between."""
    server = servers(16)
    with Database.fresh(server), previous_release.database(server, "resumed", files=6) as database:
        migration = MessageStore(database.admin, statement_timeout=600)
        failed: list[StoreError] = []

        def run() -> None:
            try:
                migrate(migration)
            except StoreError as error:
                failed.append(error)

        with psycopg.connect(database.admin) as reader:
            # As pg_dump: the build waits for older snapshots.
            reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            reader.execute("SELECT count(*) FROM pg_class")
            thread = threading.Thread(target=run)
            thread.start()
            building = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'CREATE%INDEX CONCURRENTLY%' AND wait_event_type = 'Lock'"
            while not (found := database.rows(building)):
                assert thread.is_alive()
                time.sleep(0.05)
            store = MessageStore(database.conninfo)
            assert not store.ingest(submission())[0].duplicate
            assert store.ingest(submission())[0].duplicate
            database.execute("SELECT pg_terminate_backend(%s)", found[0].pid)
            thread.join(60)
        assert failed
        assert database.rows(INVALID)
        assert store.ingest(submission())[0].duplicate
        assert migrated(database)[-1] == code()
        assert database.rows(INVALID) == []
        assert store.ingest(submission())[0].duplicate
        assert migrated(database) == []
        store.close()
        migration.close()
