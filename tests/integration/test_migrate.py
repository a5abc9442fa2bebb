"""Migrations: each file once, all or nothing, however and by whomever they are applied."""

import itertools
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from conftest import VERSIONS
from harness.database import Database
from harness.postgresql import PostgreSQL

from pipehandler.store.connection import Store
from pipehandler.store.errors import StoreError
from pipehandler.store.migrate import Migration, MigrationError, migrate, migrations, pending, plan

_numbers = itertools.count(1)


@contextmanager
def empty_database(server: PostgreSQL) -> Iterator[Database]:
    """A database with nothing in it, not even the schema."""
    database = Database(server, f"empty{next(_numbers)}")
    with psycopg.connect(server.conninfo(), autocommit=True) as maintenance:
        maintenance.execute(f"CREATE DATABASE {database.name} TEMPLATE template0 STRATEGY file_copy")
        yield database
        maintenance.execute(f"DROP DATABASE {database.name} WITH (FORCE)")


@pytest.fixture(params=VERSIONS, ids=lambda version: f"pg{version}")
def empty(request: pytest.FixtureRequest, servers: Callable[[int], PostgreSQL]) -> Iterator[Database]:
    """A database with nothing in it, once for each version of PostgreSQL."""
    with empty_database(servers(request.param)) as database:
        yield database


def migrated(database: Database, conninfo: str = "") -> list[Migration]:
    """Migrate, with a connection of its own; returns what was applied."""
    store = Store(conninfo or database.admin, statement_timeout=60)
    try:
        return migrate(store)
    finally:
        store.close()


def schema(database: Database) -> str:
    """The whole schema, as pg_dump writes it."""
    where = ["-h", str(database.server.folder), "-p", str(database.server.port), "-U", "postgres", "-d", database.name]
    dump = database.server.run("pg_dump", *where, "--schema-only")
    return re.sub(r"^\\(un)?restrict .*", "", dump, flags=re.MULTILINE)


def test_twice(empty: Database) -> None:
    """The first run applies every file in order, the second one nothing."""
    assert [each.version for each in migrations()] == list(range(1, len(migrations()) + 1))
    assert migrated(empty) == migrations()
    before = schema(empty)
    assert migrated(empty) == []
    assert schema(empty) == before
    rows = empty.rows("SELECT version, name, checksum FROM pipehandler.migration ORDER BY version")
    assert [tuple(row) for row in rows] == [(each.version, each.name, each.checksum) for each in migrations()]


def test_at_once(empty: Database) -> None:
    """Of many hosts that migrate at the same moment one does it all, the others wait and find nothing to do."""
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda _: migrated(empty), range(6)))
    assert sorted(map(len, done)) == [0] * 5 + [len(migrations())]


def test_several_databases_at_once(servers: Callable[[int], PostgreSQL]) -> None:
    """The roles belong to the whole server: databases that are migrated at the same moment do not disturb each other."""
    with empty_database(servers(16)) as one, empty_database(servers(16)) as two, ThreadPoolExecutor(2) as pool:
        assert [len(done) for done in pool.map(migrated, (one, two))] == [len(migrations())] * 2


def test_owner_of_the_database_is_enough(servers: Callable[[int], PostgreSQL]) -> None:
    """Where the roles are there already, the owner of a database needs no right beyond it."""
    with Database.fresh(servers(16)), empty_database(servers(16)) as database:
        database.execute("CREATE ROLE landlord LOGIN")
        database.execute(f"ALTER DATABASE {database.name} OWNER TO landlord")
        try:
            assert migrated(database, database.server.conninfo(database.name, user="landlord")) == migrations()
        finally:
            database.execute(f"ALTER DATABASE {database.name} OWNER TO postgres")
            database.execute("DROP OWNED BY landlord")
            database.execute("DROP ROLE landlord")


def test_plan_is_the_same(empty: Database, folder: Path) -> None:
    """What --dry-run prints, given to psql, leaves the same schema and the same records; then there is nothing to do."""
    store = Store(empty.admin)
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
    """A dry run only looks."""
    store = Store(empty.admin)
    assert plan(store)
    assert pending(store) == migrations()
    store.close()
    assert empty.value("SELECT to_regnamespace('pipehandler') IS NULL")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            "UPDATE pipehandler.migration SET checksum = 'x' WHERE version = 1",
            r"0001_schema\.sql was changed .* put .* back",
        ),
        (
            "INSERT INTO pipehandler.migration VALUES (9999, '9999_later.sql', 'x')",
            r"9999_later\.sql, .* install the newer",
        ),
    ],
    ids=["changed", "newer"],
)
def test_refusal(database: Database, change: str, told: str) -> None:
    """A file that was changed after it was applied, and a database newer than this program, are refused with the way out."""
    database.execute(change)
    before = schema(database)
    with pytest.raises(MigrationError, match=told):
        migrated(database)
    store = Store(database.admin)
    with pytest.raises(MigrationError, match=told):
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
    assert migrated(empty) == migrations()
