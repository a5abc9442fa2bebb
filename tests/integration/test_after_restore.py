"""`pipehandler restored`: after a restore, the numbers and cursors that an application keeps never refer to something
else."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from harness import account
from harness.console import Console
from harness.database import Database
from harness.days import KEYS, make_older, partitions
from harness.postgresql import FAST, VERSION, PostgreSQL, binaries
from harness.submission import submission
from psycopg.errors import RaiseException

from pipehandler.check.database import check_database
from pipehandler.settings import config as settings
from pipehandler.store.message_store import MessageStore

RIGHTS = """
SELECT o.kind, o.name, coalesce(g.rolname, 'PUBLIC') AS grantee, a.privilege_type, a.is_grantable
  FROM (SELECT 'relation' AS kind, c.oid::regclass::text AS name,
               coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's'::"char" ELSE 'r' END, c.relowner)) AS acl
          FROM pg_class c WHERE c.relnamespace = 'pipehandler'::regnamespace AND c.relkind IN ('r', 'v', 'S')
        UNION ALL
        SELECT 'column', t.attrelid::regclass || '.' || t.attname, t.attacl
          FROM pg_attribute t JOIN pg_class c ON c.oid = t.attrelid WHERE c.relnamespace = 'pipehandler'::regnamespace
        UNION ALL
        SELECT 'routine', p.oid::regprocedure::text, coalesce(p.proacl, acldefault('f', p.proowner))
          FROM pg_proc p WHERE p.pronamespace = 'pipehandler'::regnamespace
        UNION ALL
        SELECT 'type', y.oid::regtype::text, coalesce(y.typacl, acldefault('T', y.typowner))
          FROM pg_type y WHERE y.typnamespace = 'pipehandler'::regnamespace
        UNION ALL
        SELECT 'schema', n.nspname::text, coalesce(n.nspacl, acldefault('n', n.nspowner))
          FROM pg_namespace n WHERE n.nspname = 'pipehandler') AS o, aclexplode(o.acl) AS a
  LEFT JOIN pg_roles g ON g.oid = a.grantee
 ORDER BY 1, 2, 3, 4
"""
GROUPS = "SELECT rolname, rolcanlogin, shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname ~ '^pipehandler_' ORDER BY 1"


def deliver(database: Database, number: int, recipient: str) -> int:
    """Store a message; returns the number of its delivery."""
    with closing(MessageStore(database.conninfo)) as store:
        return store.ingest(submission(b"Subject: %d\n\nbody\n" % number, recipient))[0].delivery


def lease(database: Database, address: str) -> int:
    """The number of a new lease."""
    return int(database.value("SELECT (pipehandler.lease_address(%s)).lease", address))


def cursors(database: Database, cursor: str = "") -> dict[int, str]:
    """The deliveries after a cursor, each with its own."""
    return {
        row.id: row.cursor for row in database.rows("SELECT id, cursor FROM pipehandler.deliveries_after(%s)", cursor)
    }


def where(database: Database) -> list[str]:
    """The options of the programs of PostgreSQL."""
    return ["-h", str(database.server.folder), "-p", str(database.server.port), "-U", "postgres", "-d", database.name]


def dump(database: Database, file: Path) -> Path:
    """Dump the schema with its data."""
    text = database.server.run("pg_dump", *where(database), "-n", "pipehandler", "--no-sync")
    file.write_text(text, "utf-8")
    file.chmod(0o644)
    return file


def restore(database: Database, file: Path) -> None:
    """Restore it over the existing content; errors about missing roles do not stop it."""
    database.execute("DROP SCHEMA IF EXISTS pipehandler CASCADE")
    database.server.run("psql", *where(database), "-q", "-f", str(file))


def restored(console: Console, *options: str) -> dict[str, object]:
    """Run the command as the owner."""
    done = json.loads(console.run("--conninfo", console.database.admin, "restored", "--json", *options).text)
    assert isinstance(done, dict)
    return done


def of_handler(database: Database) -> settings.Config:
    """The configuration of a handler."""
    return settings.Config(database=settings.Database(conninfo=database.conninfo))


def findings(database: Database) -> list[str]:
    """The findings of `check` about the restore."""
    return [each.fix for each in check_database(of_handler(database), "x.toml", 1) if each.code == "restored"]


@pytest.fixture
def elsewhere(console: Console) -> Iterator[Console]:
    """A database in a new cluster, without schema and roles; the servers of other tests are copies of one cluster."""
    with account.folder("pipehandler-pg-") as folder:
        account.give(folder)
        options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        console.database.server.run("initdb", "-D", str(folder / "data"), *options)
        server = PostgreSQL(folder / "server", VERSION, FAST, data=folder / "data").start()
        database = Database(server, "mail")
        server.run("createdb", *where(database)[:-2], "mail")
        (folder / "console").mkdir()
        yield Console(folder / "console", database)
        server.stop()


def test_numbers_never_come_again(console: Console, database: Database, folder: Path) -> None:
    """No number of a lease or of a delivery that was assigned before a restore is assigned after it, even if one dump
    is restored twice; in the same cluster a cursor remains valid."""
    given = {lease(database, "ann@example.com")}, {deliver(database, 1, "ann@example.com")}
    file = dump(database, folder / "dump")
    assert findings(database) == []
    for number in (1, 2):
        given[0].add(lease(database, f"ben{number}@example.com"))
        given[1].add(deliver(database, 10 + number, f"ben{number}@example.com"))
        (kept,) = list(cursors(database).values())[-1:]
        restore(database, file)
        (fix,) = findings(database)
        assert fix.endswith("restored")
        done = restored(console)
        assert not done["cursors_refused"]
        assert findings(database) == []
        new = lease(database, "carol@example.com"), deliver(database, 20 + number, "carol@example.com")
        assert new[0] not in given[0]
        assert new[1] not in given[1]
        given[0].add(new[0])
        given[1].add(new[1])
        assert list(cursors(database, kept)) == [new[1]]
    assert database.value("SELECT count(*) FROM pipehandler.inbox WHERE lease = 2") == 0
    assert database.value("SELECT count(*) FROM pipehandler.delivery") == 2


@pytest.mark.parametrize("options", [[], ["--nothing-lost"]], ids=["restored", "nothing lost"])
def test_in_another_cluster(
    console: Console, database: Database, folder: Path, elsewhere: Console, options: list[str]
) -> None:
    """Roles, rights, numbers, cursors and transactions are as they should be; a cursor from before is refused forever. If nothing
    was lost (pg_upgradecluster dumps and restores), numbers go on as they were."""
    for _ in range(50):
        database.execute("SELECT pg_current_xact_id()")
    first = deliver(database, 1, "ann@example.com")
    second = deliver(database, 2, "ann@example.com")
    database.execute("UPDATE pipehandler.delivery SET xid = '999999999999' WHERE id = %s", second)
    database.execute("INSERT INTO pipehandler.retention_change (xid) VALUES ('7000000000')")
    kept = cursors(database)[first]
    there = elsewhere.database
    restore(there, dump(database, folder / "dump"))
    assert there.rows(GROUPS) == []
    (missing,) = check_database(of_handler(there), "x.toml", 1)
    assert missing.code == "role-missing"
    assert "If there is no pipehandler_ingest either" in missing.detail
    done = restored(elsewhere, *options)
    assert bool(done["sequences"]) is (not options)
    there.execute("CREATE ROLE pipehandler LOGIN IN ROLE pipehandler_ingest")
    assert findings(there) == []
    assert done["cursors_refused"] is True
    assert done["deliveries_adopted"] in (1, 2)
    assert there.rows(RIGHTS) == database.rows(RIGHTS)
    assert there.rows(GROUPS) == database.rows(GROUPS)
    for cursor in (kept, "999999999999-1"):
        with pytest.raises(RaiseException, match="from before this database was restored"):
            cursors(there, cursor)
    assert set(cursors(there)) == {first, second}
    now = there.value("SELECT pipehandler.cursor_now()")
    third = deliver(there, 3, "ann@example.com")
    assert third > second
    assert list(cursors(there, now)) == [third]
    assert list(cursors(there, list(cursors(there).values())[-2])) == [third]
    assert there.value("SELECT count(*) FROM pipehandler.retention_change WHERE xid IS NULL") == 1
    again = restored(elsewhere, *options)
    assert (again["cursors_refused"], again["deliveries_adopted"]) == (False, 0)
    assert list(cursors(there, now)) == [third]


def test_rows_into_existing_tables(console: Console, database: Database, folder: Path) -> None:
    """Rows of several days come into the tables of another database when it has the partitions of these days, and are the
    same there; a whole dump needs none."""
    first = deliver(database, 1, "ann@example.com")
    day = make_older(database, 40)
    second = deliver(database, 2, "ann@example.com")
    tables = [f"--table=pipehandler.{table}" for table in ("delivery", *(f"{table}_*" for table in KEYS))]
    file = folder / "dump"
    file.write_text(database.server.run("pg_dump", *where(database), "--data-only", "--no-sync", *tables), "utf-8")
    file.chmod(0o644)
    with Database.fresh(database.server) as there:
        there.execute("SELECT pipehandler.create_days(0, %s)", day)
        there.server.run("psql", *where(there), "-q", "-v", "ON_ERROR_STOP=1", "-f", str(file))
        restored(Console(folder, there))
        assert set(cursors(there)) == {first, second}
        for table in (*KEYS, "delivery"):
            assert there.value(f"SELECT count(DISTINCT day) FROM pipehandler.{table}") == (table != "attachment") * 2
        assert there.value("SELECT incomplete FROM pipehandler.data_status()") == 0
    file = dump(database, folder / "whole")
    restore(database, file)
    restored(console)
    assert partitions(database)[0] == day
    assert set(cursors(database)) == {first, second}
    assert database.value("SELECT pipehandler.days_prepared()") == 2


CHANGES = {
    "cluster": "UPDATE pipehandler.cluster SET system_identifier = 1",
    "timeline": "UPDATE pipehandler.cluster SET timeline = 0",
    "dump": "UPDATE pipehandler.cluster SET relation = 1",
    "nothing recorded": "DELETE FROM pipehandler.cluster",
}


@pytest.mark.parametrize("change", CHANGES)
def test_nothing_lost(console: Console, database: Database, change: str) -> None:
    """After a fail-over or an upgrade that lost nothing, it is only recorded: numbers and cursors continue."""
    number = deliver(database, 1, "ann@example.com")
    kept = cursors(database)[number]
    database.execute(CHANGES[change])
    assert len(findings(database)) == 1
    done = restored(console, "--nothing-lost")
    assert (done["sequences"], done["cursors_refused"]) == ([], False)
    assert findings(database) == []
    assert deliver(database, 2, "ann@example.com") < 1000
    assert len(cursors(database, kept)) == 1


@pytest.mark.long
def test_after_pg_upgrade(folder: Path) -> None:
    """After a real pg_upgrade to a newer major version, the one command of docs/upgrade.md is enough: nothing is lost, numbers
    and cursors go on, a message that comes again is found, and `check` has no finding about the restore."""
    for name in ("old", "new", "console", "work"):
        (folder / name).mkdir()
    account.give(folder / "work")
    old, new = PostgreSQL(folder / "old" / "pg", 16, FAST), PostgreSQL(folder / "new" / "pg", 18, FAST)
    new.run("pg_checksums", "--disable", "-D", str(new.data), "--no-sync")
    with old.start(), Database.fresh(old) as database:
        number = deliver(database, 1, "ann@example.com")
        kept, first = cursors(database)[number], lease(database, "cat@example.com")
        old.stop()
        programs = ["-b", binaries()[16], "-B", binaries()[18], "-d", old.data, "-D", new.data, "-s", folder / "work"]
        command = [binaries()[18] / "pg_upgrade", "-U", "postgres", "--no-sync", *programs]
        done = subprocess.run(
            account.command(list(map(str, command))), cwd=folder / "work", capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        with new.start():
            database.move(new)
            console = Console(folder / "console", database)
            assert len(findings(database)) == 1
            done_there = restored(console, "--nothing-lost")
            assert (done_there["sequences"], done_there["cursors_refused"]) == ([], False)
            assert findings(database) == []
            assert (
                console.run("--conninfo", database.admin, "migrate").text == "nothing to do: the schema is up to date\n"
            )
            assert lease(database, "ben@example.com") == first + 1
            second = deliver(database, 2, "ann@example.com")
            assert number < second < 1000
            assert list(cursors(database, kept)) == [second]
            with closing(MessageStore(database.conninfo)) as store:
                assert store.ingest(submission(b"Subject: 1\n\nbody\n", "ann@example.com"))[0].duplicate
            new.stop()
        old.start()
        database.move(old)


@pytest.mark.parametrize(("change", "refused"), [("cluster", True), ("timeline", True), ("dump", False)])
def test_cursors(console: Console, database: Database, change: str, refused: bool) -> None:
    """Earlier cursors are refused in a cluster with new transaction numbers, and remain valid elsewhere."""
    number = deliver(database, 1, "ann@example.com")
    kept = cursors(database)
    database.execute(CHANGES[change])
    assert restored(console)["cursors_refused"] is refused
    if refused:
        with pytest.raises(RaiseException, match="begin with an empty cursor"):
            cursors(database, kept[number])
    else:
        assert cursors(database, kept[number]) == {}
    assert list(cursors(database)) == [number]


def test_a_clock_that_is_wrong(console: Console, database: Database) -> None:
    """Numbers that are already above the time still jump far ahead."""
    database.execute("ALTER SEQUENCE pipehandler.delivery_id_seq RESTART 5000000000000")
    before = deliver(database, 1, "ann@example.com")
    restored(console)
    assert deliver(database, 2, "ann@example.com") > before + 10**11


def test_text(console: Console, database: Database) -> None:
    """The text output."""
    said = console.run("--conninfo", database.admin, "restored").text
    assert "pipehandler.address_lease_seq: " in said
    assert "pipehandler.delivery_id_seq: " in said
    assert said.endswith("recorded this cluster\n")


def test_rights(console: Console) -> None:
    """Only the owner may run it."""
    done = console.run("restored")
    assert done.status != 0
    assert "permission denied" in done.errors or "must be owner" in done.errors
