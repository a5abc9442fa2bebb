"""From one release to the next: nothing is lost, and both programs work with the new schema."""

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from harness import account, previous_release
from harness.console import Console
from harness.database import Database
from harness.postgresql import FAST, VERSIONS, PostgreSQL
from harness.schema_dump import dump
from harness.submission import submission

from pipehandler.mail.identity import identify
from pipehandler.parse.message import PARSER_VERSION, parse
from pipehandler.store.errors import StoreError
from pipehandler.store.message_store import MessageStore
from pipehandler.store.migrate import migrate
from pipehandler.store.view import view

TABLES = ("address", "attachment", "delivery", "message", "raw_message", "retention", "retention_change")
NEW_OF_MESSAGES = [
    *("text_from_html", "preview", "auto_submitted", "precedence", "list_unsubscribe", "list_unsubscribe_post"),
    "report",
]
"""The columns of message that this release adds."""
FORMER = ["pipehandler_lessor", "pipehandler_upkeep"]
CURRENT = ["pipehandler_address_admin", "pipehandler_maintenance"]


@pytest.fixture(params=VERSIONS, ids=lambda version: f"pg{version}")
def cluster(request: pytest.FixtureRequest) -> Iterator[PostgreSQL]:
    """A cluster that has never had our roles."""
    with account.folder("pipehandler-pg-") as folder, PostgreSQL(folder / "pg", request.param, FAST).start() as server:
        yield server


def upgrade(database: Database) -> None:
    """Migrate as its owner."""
    store = MessageStore(database.admin, statement_timeout=60)
    migrate(store)
    store.close()


def everything(database: Database, columns: dict[str, list[str]]) -> dict[str, list[Any]]:
    """All rows of all tables, as text: these columns of each."""
    return {
        table: database.rows(f"SELECT ROW({', '.join(columns[table])})::text FROM pipehandler.{table} ORDER BY 1")
        for table in TABLES
    }


def columns(database: Database) -> dict[str, list[str]]:
    """The columns of each table."""
    statement = (
        "SELECT column_name AS name FROM information_schema.columns WHERE table_name = %s ORDER BY ordinal_position"
    )
    return {table: [row.name for row in database.rows(statement, table)] for table in TABLES}


def roles(database: Database) -> list[str]:
    """The renamed group roles that exist in the cluster, by either name."""
    rows = database.rows("SELECT rolname FROM pg_roles WHERE rolname = ANY (%s) ORDER BY 1", FORMER + CURRENT)
    return [row.rolname for row in rows]


def test_nothing_is_lost(cluster: PostgreSQL) -> None:
    """A database full of mail is the same after the migration, row by row, and numbers continue where they were."""
    with previous_release.database(cluster, "mail") as database:
        assert previous_release.send(database, "fill") == []
        former = columns(database)
        # Retention now counts from stored_at, and mail that was kept for too short a time is kept longer: see below.
        database.execute("UPDATE pipehandler.delivery SET received_at = stored_at")
        before = everything(database, former)
        assert all(before.values())
        last = database.value("SELECT max(id) FROM pipehandler.delivery")
        upgrade(database)
        assert everything(database, former) == before
        assert database.value("SELECT max(version) FROM pipehandler.migration") > previous_release.FILES
        store = MessageStore(database.conninfo)
        (stored,) = store.ingest(submission())
        store.close()
        assert stored.delivery > last
        assert not stored.duplicate


NEWSLETTER = (
    b"From: news@example.org\nMessage-ID: <2@example.org>\nList-Unsubscribe: <https://x.example/u>\nPrecedence: bulk\n"
    b"Content-Type: text/html\n\n<p>Hello <b>you"
)


def test_stored_mail_gets_the_new_reading(cluster: PostgreSQL, folder: Path) -> None:
    """`reparse --older` updates what the previous release stored to the parser of this one, including new columns;
    --dry-run shows it first, and changes nothing."""
    with previous_release.database(cluster, "mail") as database:
        assert previous_release.send(database, "fill") == []
        store = MessageStore(database.conninfo)
        store.ingest(submission(NEWSLETTER, parser="1 mail-parser/4.8.0"))
        store.close()
        upgrade(database)
        console = Console(folder, database)
        before = everything(database, columns(database))
        rows = database.rows("SELECT message::text, raw FROM pipehandler.raw_message")
        raws = {row.message: bytes(row.raw) for row in rows}
        *lines, last = map(json.loads, console.run("reparse", "--older", "--dry-run", "--json").text.splitlines())
        assert everything(database, columns(database)) == before
        assert last["summary"]["changed"] == len(raws)
        changes = {each["message"]: each["changes"] for each in lines}
        assert all(changes[message]["preview"][0] is None for message in raws)
        assert changes[identify(NEWSLETTER).id]["text_from_html"] == [None, "Hello you"]
        assert console.run("reparse", "--older").status == 0
        for message, raw in raws.items():
            wanted = json.loads(view(parse(raw), PARSER_VERSION, True)[0])
            (stored,) = database.rows("SELECT to_jsonb(m) AS row FROM pipehandler.message m WHERE id = %s", message)
            assert stored.row["parser"] == PARSER_VERSION
            assert {name: stored.row[name] for name in NEW_OF_MESSAGES} == {
                name: wanted[name] for name in NEW_OF_MESSAGES
            }
            files = database.rows(
                "SELECT to_jsonb(a) - 'day' - 'message' - 'content' || jsonb_build_object('sha256', encode(sha256, 'hex')) AS row"
                "  FROM pipehandler.attachment a WHERE message = %s ORDER BY ordinal",
                message,
            )
            assert [file.row for file in files] == wanted["attachments"]
        assert " 0 changed" in console.run("reparse", "--older").text


def test_a_clock_that_was_slow(cluster: PostgreSQL) -> None:
    """Mail that a mail host with a slow clock stored for too short a time is kept for the full time."""
    with previous_release.database(cluster, "mail") as database:
        assert previous_release.send(database, "fill") == []
        database.execute(
            "UPDATE pipehandler.delivery SET received_at = stored_at - interval '91 days', raw_until = 'epoch',"
            " expires_at = stored_at - interval '1 day', attachments_until = NULL"
        )
        upgrade(database)
        (row,) = database.rows(
            "SELECT DISTINCT expires_at - stored_at AS keep, raw_until = 'epoch' AS gone, attachments_until"
            " FROM pipehandler.delivery"
        )
        assert (row.keep, row.gone, row.attachments_until) == (timedelta(days=90), True, None)


def test_the_previous_program_goes_on(cluster: PostgreSQL) -> None:
    """The statements of the previous release, of its handler and all of its commands, get results of the same shape."""
    with previous_release.database(cluster, "mail") as database:
        assert previous_release.send(database, "fill") == []
        upgrade(database)
        # Two results are longer on purpose: retention no longer counts from the clock of a mail host, so mail recorded
        # with an old time is still stored; and the defect shorter-than-told now has its present code.
        stream, difference = previous_release.send(database, "use")
        assert "pipehandler.deliveries_after" in stream
        assert "pipehandler.reparse" in difference
        assert difference.endswith("2 rows; now ['name', 'before', 'after'], 3 rows")


def test_the_same_schema_as_from_nothing(cluster: PostgreSQL) -> None:
    """An upgraded database has the same schema as one created by this release."""
    with previous_release.database(cluster, "upgraded") as upgraded:
        upgrade(upgraded)
        with Database.fresh(cluster, logins=False) as fresh:
            assert dump(cluster, upgraded.name) == dump(cluster, fresh.name)


def test_roles_are_renamed(cluster: PostgreSQL) -> None:
    """Of two databases in a cluster one is migrated first: the roles are renamed, and the programs of the other one, which
    still has the previous schema, notice nothing."""
    with previous_release.database(cluster, "first") as first, previous_release.database(cluster, "second") as second:
        assert roles(first) == FORMER
        upgrade(first)
        assert roles(first) == CURRENT
        assert previous_release.send(second, "fill") == []
        assert previous_release.send(second, "use") == []
        upgrade(second)
        assert roles(second) == CURRENT


def test_roles_that_an_older_program_created_again(cluster: PostgreSQL) -> None:
    """If a role exists under both names, its members and grants move; the former role is dropped with its last
    database."""
    with Database.fresh(cluster, logins=False), previous_release.database(cluster, "first") as first:
        assert set(roles(first)) == {*FORMER, *CURRENT}
        first.execute(
            "CREATE ROLE boss LOGIN IN ROLE pipehandler_reader; GRANT pipehandler_upkeep TO boss WITH ADMIN OPTION"
        )
        first.execute(
            "CREATE TABLE notes (a int, b int); GRANT SELECT ON notes TO pipehandler_upkeep WITH GRANT OPTION"
        )
        first.execute("GRANT UPDATE (b) ON notes TO pipehandler_upkeep; GRANT pg_monitor TO pipehandler_upkeep")
        first.execute("CREATE SCHEMA old AUTHORIZATION pipehandler_upkeep")
        first.execute("GRANT CREATE ON DATABASE first TO pipehandler_upkeep")
        with previous_release.database(cluster, "second") as second:
            upgrade(first)
            assert set(roles(first)) == {*FORMER, *CURRENT}
            assert previous_release.send(second, "fill") == []
            assert previous_release.send(first, "fill") == []
            assert first.rows(
                "SELECT FROM pg_auth_members WHERE roleid = 'pipehandler_maintenance'::regrole AND admin_option"
            )
            privileges = first.rows(
                "SELECT has_table_privilege(r, 'notes', 'SELECT WITH GRANT OPTION') AS one,"
                " has_column_privilege(r, 'notes', 'b', 'UPDATE') AS two, pg_has_role(r, 'pg_monitor', 'USAGE') AS three,"
                " has_schema_privilege(r, 'old', 'CREATE') AS four, has_database_privilege(r, 'first', 'CREATE') AS five"
                "  FROM (VALUES ('pipehandler_maintenance')) AS v (r)"
            )
            assert [tuple(row) for row in privileges] == [(True,) * 5]
            upgrade(second)
            assert roles(second) == CURRENT
            with psycopg.connect(cluster.conninfo("second", user="boss")) as boss:
                boss.execute("DELETE FROM pipehandler.retention")


def test_without_the_right_to_change_roles(cluster: PostgreSQL) -> None:
    """The owner of the database may not rename a role; the error has the statement for a role that may."""
    with previous_release.database(cluster, "mail") as database:
        database.execute("CREATE ROLE landlord LOGIN; ALTER DATABASE mail OWNER TO landlord")
        database.execute("GRANT pipehandler_reader TO landlord; ALTER SCHEMA pipehandler OWNER TO landlord")
        store = MessageStore(cluster.conninfo("mail", user="landlord"), statement_timeout=60)
        for role, former in (("pipehandler_maintenance", FORMER[1]), ("pipehandler_address_admin", FORMER[0])):
            with pytest.raises(
                StoreError, match=f"there is no role {role}, .* as a superuser run: ALTER ROLE"
            ) as error:
                migrate(store)
            assert database.value("SELECT max(version) FROM pipehandler.migration") == previous_release.FILES
            statement = str(error.value).partition("run: ")[2]
            assert statement == f"ALTER ROLE {former} RENAME TO {role}"
            database.execute(statement)
        store.close()
        assert roles(database) == CURRENT
        database.execute(f"CREATE ROLE {FORMER[1]}; GRANT SELECT ON pipehandler.message TO {FORMER[1]}")
        with pytest.raises(StoreError, match=r"roles pipehandler_upkeep and pipehandler_maintenance both exist"):
            migrate(MessageStore(cluster.conninfo("mail", user="landlord"), statement_timeout=60))
