"""`pipehandler check --part handler`: the configuration, the state directory and the database are broken one at a time;
each problem is found, fixed by the printed command, and not found again."""

import json
import os
import pwd
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner
from harness import account
from harness.database import CONNECTIONS, Database
from harness.handler import Handler
from harness.postgresql import DEBIAN, FAST, PostgreSQL
from harness.preloaded import PROGRAM
from harness.service import Service, wait_until
from harness.upgradable import Upgradable

from pipehandler.check.connections import LIMITS as LIMITS_QUERY
from pipehandler.check.connections import check_connections
from pipehandler.check.server import check_clock
from pipehandler.cli import cli
from pipehandler.settings.config import RENAMED
from pipehandler.settings.config_file import load
from pipehandler.store.connection import Store
from pipehandler.store.migrate import migrate


@pytest.fixture(scope="module")
def migrated(server: PostgreSQL) -> Iterator[Database]:
    """A database for tests that fix what they break."""
    with Database.fresh(server) as database:
        yield database


@pytest.fixture
def own_handler(folder: Path, migrated: Database) -> Handler:
    """The handler's files for one test."""
    migrated.execute(f"DROP ROLE IF EXISTS nosuch, {account.NAME}")  # which fixes of other tests have created
    migrated.execute(f"ALTER ROLE pipehandler CONNECTION LIMIT {CONNECTIONS // 2}")
    return Handler(folder, migrated.conninfo)


class Checked:
    """One run of the command, in this process if possible, by the account if necessary."""

    def __init__(self, handler: Handler, *arguments: str) -> None:
        self.command = ["--config", str(handler.config), "check", "--part", "handler", *arguments]

    def found(self) -> list[dict[str, str]]:
        """The findings; the status has to fit."""
        done = CliRunner().invoke(cli, [*self.command, "--json"])
        assert isinstance(done.exception, SystemExit | None), done.exception
        found: list[dict[str, str]] = json.loads(done.stdout)
        assert done.exit_code == (1 if found else 0)
        assert all(set(each) == {"code", "what", "detail", "fix"} and all(each.values()) for each in found)
        return found

    def by_account(self) -> list[dict[str, str]]:
        """The findings under the handler's account."""
        done = subprocess.run(
            account.command([PROGRAM, *self.command, "--json"]), capture_output=True, text=True, cwd="/"
        )
        found: list[dict[str, str]] = json.loads(done.stdout)
        errors = [line for line in done.stderr.splitlines() if not line.startswith("WARNING: password file ")]
        assert (done.returncode, errors) == (1 if found else 0, [])
        return found


def codes(found: list[dict[str, str]]) -> list[str]:
    """The codes, in order."""
    return [finding["code"] for finding in found]


def apply_fixes(database: Database, found: list[dict[str, str]]) -> None:
    """Run the fixes of the findings: a line that ends in a semicolon in psql, any other in a shell."""
    loaded = "SELECT pg_conf_load_time()"
    before = database.value(loaded)
    for finding in found:
        line = finding["fix"]
        assert not line.startswith("#"), finding
        if line.endswith(";"):
            for statement in line.rstrip(";").split("; "):
                database.execute(statement)
        else:
            subprocess.run(["bash", "-euc", line], check=True, cwd="/", capture_output=True)
    if any("pg_reload_conf" in finding["fix"] for finding in found):
        wait_until(lambda: database.value(loaded) != before, "the new configuration of the server")


RIGHTS = {
    "superuser": ["ALTER ROLE pipehandler SUPERUSER"],
    "may make roles": ["ALTER ROLE pipehandler CREATEROLE"],
    "may make databases": ["ALTER ROLE pipehandler CREATEDB"],
    "replicates": ["ALTER ROLE pipehandler REPLICATION"],
    "passes row security": ["ALTER ROLE pipehandler BYPASSRLS"],
    "reader": ["GRANT pipehandler_reader TO pipehandler"],
    "upkeep": ["GRANT pipehandler_maintenance TO pipehandler"],
    "gives addresses out": ["GRANT pipehandler_address_admin TO pipehandler"],
    "looks addresses up": ["GRANT pipehandler_lookup TO pipehandler_ingest"],
    "the group reads": ["GRANT pipehandler_reader TO pipehandler_ingest"],
    "reads everything": ["GRANT pg_read_all_data TO pipehandler"],
    "runs programs": ["GRANT pg_execute_server_program TO pipehandler"],
    "one table": ["GRANT SELECT, DELETE ON pipehandler.message TO pipehandler"],
    "one table, the group": ["GRANT SELECT ON pipehandler.delivery TO pipehandler_ingest"],
    "one table, everybody": ["GRANT SELECT ON pipehandler.inbox TO PUBLIC"],
    "one column": ["GRANT SELECT (subject) ON pipehandler.message TO pipehandler"],
    "creates in the schema": ["GRANT CREATE ON SCHEMA pipehandler TO pipehandler"],
    "creates schemas": ["GRANT CREATE ON DATABASE {database} TO pipehandler"],
    "a function with its owner's rights": [
        "CREATE OR REPLACE FUNCTION pipehandler.f(x text) RETURNS int LANGUAGE sql SECURITY DEFINER RETURN 1"
    ],
    "creates objects in public": ["GRANT CREATE ON SCHEMA public TO PUBLIC"],
    "creates objects in another schema": ["CREATE SCHEMA app", "GRANT CREATE ON SCHEMA app TO pipehandler"],
    "creates temporary objects": ["GRANT TEMPORARY ON DATABASE {database} TO PUBLIC"],
    "owns a table": ["ALTER TABLE pipehandler.raw_message OWNER TO pipehandler"],
    "owns the database": ["ALTER DATABASE {database} OWNER TO pipehandler"],
}


def test_nothing_to_find(own_handler: Handler) -> None:
    """A sound setup has no findings, and the command lists what it checked."""
    done = subprocess.run([PROGRAM, *Checked(own_handler).command], capture_output=True, text=True, cwd="/")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"everything is as it should be \(checked: the handler's part as \w+\)\n", done.stdout)
    assert Checked(own_handler).by_account() == []


def test_every_version(folder: Path, every_database: Database) -> None:
    """The queries work on every version of PostgreSQL. (These servers are configured for tests: without fsync.)"""
    checked = Checked(Handler(folder, every_database.conninfo))
    assert sorted(codes(checked.found())) == ["fsync", "full-page-writes"]
    every_database.execute("GRANT SELECT, TRIGGER ON pipehandler.message TO pipehandler")
    assert "rights-too-many" in codes(checked.found())


def test_role_of_the_commands(folder: Path, migrated: Database) -> None:
    """A conninfo with the role of admin_conninfo is one finding. Its fix takes no rights from that role, with which the
    commands would fail, and gives it none."""
    migrated.execute("DROP ROLE IF EXISTS commands")
    migrated.execute("CREATE ROLE commands LOGIN IN ROLE pipehandler_reader, pipehandler_maintenance")
    conninfo = migrated.server.conninfo(migrated.name, user="commands")
    found = Checked(Handler(folder, conninfo, database={"admin_conninfo": conninfo})).found()
    assert "role-shared" in codes(found)
    assert not [each for each in found if re.search("GRANT|REVOKE|ALTER ROLE", each["fix"])]


@pytest.mark.parametrize("what", RIGHTS)
def test_too_many_rights(own_handler: Handler, migrated: Database, what: str) -> None:
    """A privilege that the handler's role does not need is found, and revoked by the printed line."""
    for statement in RIGHTS[what]:
        migrated.execute(statement.replace("{database}", migrated.name))
    checked = Checked(own_handler)
    found = checked.found()
    # A function that is not ours is also found.
    assert codes(found) == ["rights-too-many", *["schema-unknown"] * ("function" in what)]
    apply_fixes(migrated, found)
    assert checked.found() == []


LACKING = {
    "the group": (["REVOKE pipehandler_ingest FROM pipehandler"], ["rights-too-few"]),
    "the schema": (["REVOKE USAGE ON SCHEMA pipehandler FROM pipehandler_ingest"], ["rights-too-few"]),
    "the function": (["REVOKE EXECUTE ON FUNCTION pipehandler.ingest FROM pipehandler_ingest"], ["rights-too-few"]),
    "health": (["REVOKE EXECUTE ON FUNCTION pipehandler.health FROM pipehandler_ingest"], ["rights-too-few"]),
    "login": (["ALTER ROLE pipehandler NOLOGIN"], ["role-nologin"]),
    "the database": (["REVOKE CONNECT ON DATABASE {database} FROM PUBLIC"], ["rights-too-few"]),
    "connections of the role": (["ALTER ROLE pipehandler CONNECTION LIMIT 3"], ["connections"]),
    "connections of the database": (["ALTER DATABASE {database} CONNECTION LIMIT 3"], ["connections"]),
    "any connection": (["ALTER ROLE pipehandler CONNECTION LIMIT 0"], ["connections"]),
    "a commit that is one": (["ALTER ROLE pipehandler SET synchronous_commit = off"], ["synchronous-commit"]),
    "the same, of the database": (["ALTER DATABASE {database} SET synchronous_commit = off"], ["synchronous-commit"]),
    "the same, in one database": (
        ["ALTER ROLE pipehandler IN DATABASE {database} SET synchronous_commit = off"],
        ["synchronous-commit"],
    ),
    "no triggers": (
        ["ALTER DATABASE {database} SET session_replication_role = replica"],
        ["session-replication-role"],
    ),
    "the same, of all": (["ALTER ROLE ALL SET synchronous_commit = off"], ["synchronous-commit"]),
    "a commit on one server": (["ALTER ROLE pipehandler SET synchronous_commit = local"], ["synchronous-commit"]),
    "writing": (["ALTER ROLE pipehandler SET default_transaction_read_only = on"], ["default-transaction-read-only"]),
}


@pytest.mark.parametrize("what", LACKING)
def test_too_little(own_handler: Handler, migrated: Database, what: str) -> None:
    """A privilege that the handler's role lacks is found, and granted by the printed line."""
    statements, expected = LACKING[what]
    for statement in statements:
        migrated.execute(statement.replace("{database}", migrated.name))
    checked = Checked(own_handler, "--maxproc", "8")
    found = checked.found()
    assert codes(found) == expected
    apply_fixes(migrated, found)
    assert checked.found() == []


@pytest.mark.parametrize("name", ["fsync", "full_page_writes", "synchronous_commit"])
def test_settings_of_the_server(own_handler: Handler, migrated: Database, name: str) -> None:
    """A server on which commits are not durable."""
    migrated.server.configure({name: "off"})
    migrated.server.reload()
    found = Checked(own_handler).found()
    assert codes(found) == [name.replace("_", "-")]
    apply_fixes(migrated, found)
    assert Checked(own_handler).found() == []
    migrated.server.configure({name: "on"})


def test_options_of_the_client(own_handler: Handler, migrated: Database) -> None:
    """A setting in conninfo has to be removed by a person."""
    own_handler.configure(f"{migrated.conninfo} options='-c synchronous_commit=off'")
    (found,) = Checked(own_handler).found()
    assert found["code"] == "synchronous-commit"
    assert found["fix"].startswith("# remove synchronous_commit from the options in database.conninfo")


def test_connections(own_handler: Handler, migrated: Database) -> None:
    """max_connections and the limit of the role have to suffice for the transport, for twice the number of workers, and for
    others; the printed statements and a restart raise them far enough."""
    free = 100 - 3 - 10  # max_connections, without those reserved for superusers and for others
    migrated.execute(f"ALTER ROLE pipehandler CONNECTION LIMIT {free}")
    assert Checked(own_handler, "--maxproc", str(free - 10)).found() == []
    of_server, of_role = Checked(own_handler, "--maxproc", str(free - 9)).found()
    assert (of_server["code"], of_role["code"]) == ("connections", "connections")
    assert of_server["fix"] == "ALTER SYSTEM SET max_connections = 138; -- and restart the server"
    assert of_role["fix"] == "ALTER ROLE pipehandler CONNECTION LIMIT 88;"
    try:
        for statement in (of_server["fix"], "ALTER SYSTEM RESET max_connections"):
            migrated.execute(statement)
            migrated.execute(of_role["fix"])
            migrated.server.stop()
            migrated.server.start()
            if "RESET" not in statement:
                assert Checked(own_handler, "--maxproc", str(free - 9)).found() == []
    finally:
        migrated.execute("ALTER SYSTEM RESET max_connections")


LIMITS = {
    "none": ("-1", "connection-limit", "ALTER ROLE pipehandler CONNECTION LIMIT 18;"),
    "all connections of the server": ("97", "connection-limit", "ALTER ROLE pipehandler CONNECTION LIMIT 18;"),
    "less than is needed": ("17", "connections", "ALTER ROLE pipehandler CONNECTION LIMIT 18;"),
}


@pytest.mark.parametrize("what", LIMITS)
def test_connection_limit(own_handler: Handler, migrated: Database, what: str) -> None:
    """The role of the handler has a connection limit: enough for its deliveries, and not all that the server has."""
    limit, code, fix = LIMITS[what]
    migrated.execute(f"ALTER ROLE pipehandler CONNECTION LIMIT {limit}")
    checked = Checked(own_handler, "--maxproc", "8")
    (found,) = checked.found()
    assert (found["code"], found["fix"]) == (code, fix)
    apply_fixes(migrated, [found])
    assert checked.found() == []


def test_connection_limit_of_all_hosts(own_handler: Handler, migrated: Database) -> None:
    """It is for all mail hosts; other roles of the group have their own limits, which count together."""
    own_handler.configure(migrated.conninfo, database={"mail_hosts": 3})
    migrated.execute("ALTER ROLE pipehandler CONNECTION LIMIT 87")
    checked = Checked(own_handler, "--maxproc", "19")
    assert checked.found() == []  # 3 * (19 + 8 + 2) = 87
    migrated.execute("CREATE ROLE another LOGIN IN ROLE pipehandler_ingest CONNECTION LIMIT 1")
    try:
        found = checked.found()
        assert codes(found) == ["connections"]
        assert (
            "11 for others, is 86; the transport (19 processes) and the workers of 3 mail hosts may need 87"
            in found[0]["what"]
        )
        assert found[0]["fix"] == "ALTER SYSTEM SET max_connections = 138; -- and restart the server"
    finally:
        migrated.execute("DROP ROLE another")


def test_more_mail_hosts(own_handler: Handler, migrated: Database) -> None:
    """Sessions of the role from more addresses than there should be mail hosts: the limit is computed for too few. All
    addresses of loopback are one host."""
    with (
        psycopg.connect(migrated.conninfo),
        psycopg.connect(f"{migrated.server.conninfo(migrated.name, 'pipehandler', tcp=True)}"),
    ):
        store = Store(migrated.conninfo)
        (limits,) = store.rows(LIMITS_QUERY)
        store.close()
    assert limits["hosts"] == 1
    (found,) = check_connections(
        {**limits, "hosts": 2}, "pipehandler", "mail", load(str(own_handler.config)), "the file", 8
    )
    assert found.code == "mail-hosts"
    assert found.fix == "# in the file, on each mail host: [database], mail_hosts = 2"


def test_no_connection_left(own_handler: Handler, migrated: Database) -> None:
    """All connections are in use."""
    taken = []
    try:
        with suppress(psycopg.OperationalError):
            while True:
                taken.append(psycopg.connect(migrated.conninfo))
        assert codes(Checked(own_handler).found()) == ["connections"]
    finally:
        for connection in taken:
            connection.close()


UNREACHABLE = {
    "no such server": ("host=/nonexistent dbname=x user=x", "database-unreachable"),
    "no server listens": ("host=127.0.0.1 port=1 dbname=x user=x", "database-unreachable"),
    "no such host": ("host=nohost.invalid dbname=x user=x", "database-unreachable"),
    "no conninfo": ("this is none", "conninfo"),
    "no such database": ("{server} dbname=nosuch user=pipehandler", "database-missing"),
    "no such role": ("{server} dbname={database} user=nosuch", "role-missing"),
}


@pytest.mark.parametrize("what", UNREACHABLE)
def test_unreachable(own_handler: Handler, migrated: Database, what: str) -> None:
    """The finding about a database that refuses the handler names what is missing."""
    conninfo, expected = UNREACHABLE[what]
    server = migrated.conninfo.partition(" dbname")[0]
    own_handler.configure(conninfo.format(server=server, database=migrated.name))
    found = Checked(own_handler).found()
    assert codes(found) == [expected]
    if expected == "role-missing":
        apply_fixes(migrated, found)
        assert Checked(own_handler).found() == []
        migrated.execute("DROP ROLE nosuch")
    if expected == "database-missing":
        apply_fixes(migrated, found)
        assert codes(Checked(own_handler).found()) == ["schema-missing"]  # the next step
        migrated.execute("DROP DATABASE nosuch")


def test_deaf_server(own_handler: Handler) -> None:
    """The check gives up on a silent server after database.connect_timeout."""
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        conninfo = f"host=127.0.0.1 port={deaf.getsockname()[1]} dbname=x user=x"
        own_handler.configure(conninfo, database={"conninfo": conninfo, "connect_timeout": 2})
        assert codes(Checked(own_handler).found()) == ["database-unreachable"]


@pytest.mark.parametrize("rule", ["scram-sha-256", "peer", "reject"])
def test_authentication(own_handler: Handler, migrated: Database, rule: str) -> None:
    """For a refused role, the finding has the line that pg_hba.conf needs."""
    hba = migrated.server.data / "pg_hba.conf"
    before = hba.read_text()
    hba.write_text(f"local all pipehandler {rule}\n{before}")
    migrated.server.reload()
    try:
        found = Checked(own_handler).by_account()
        assert codes(found) == ["authentication"]
        assert found[0]["fix"].startswith("# ")
    finally:
        hba.write_text(before)
        migrated.server.reload()


def test_standby(folder: Path, own_handler: Handler, migrated: Database) -> None:
    """A standby cannot store mail."""
    standby = migrated.server.standby(folder / "standby")
    try:
        own_handler.configure(standby.conninfo(migrated.name, user="pipehandler"))
        assert codes(Checked(own_handler).found()) == ["standby"]
    finally:
        standby.stop()


def test_encoding(own_handler: Handler, migrated: Database) -> None:
    """A database that cannot hold every character."""
    migrated.execute("CREATE DATABASE latin ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    own_handler.configure(migrated.server.conninfo("latin", user="pipehandler"))
    assert codes(Checked(own_handler).found()) == ["server-encoding", "schema-missing"]
    migrated.execute("DROP DATABASE latin")


SCHEMAS: dict[str, tuple[str, str]] = {
    "missing": ("DROP SCHEMA pipehandler CASCADE", "schema-missing"),
    "before health": ("DROP FUNCTION pipehandler.health, pipehandler.code_status", "schema-old"),
    "older": ("DELETE FROM pipehandler.migration WHERE version > 4", "schema-old"),
    "newer": ("INSERT INTO pipehandler.migration VALUES (9999, '9999_new.sql', 'x')", "schema-new"),
    "older functions": ("UPDATE pipehandler.code SET version = 0", "schema-old"),
    "functions never recorded": ("DELETE FROM pipehandler.code", "schema-old"),
    "newer functions": ("UPDATE pipehandler.code SET version = 9999", "schema-new"),
    "functions of another build": ("UPDATE pipehandler.code SET checksum = 'x'", "schema-build"),
    "without ingest": ("DROP FUNCTION pipehandler.ingest", "schema-damaged"),
    "without health": ("DROP FUNCTION pipehandler.health", "schema-damaged"),
    "without the comparison": ("DROP FUNCTION pipehandler.code_objects", "schema-damaged"),
    "another function": ("ALTER FUNCTION pipehandler.canonical RESET search_path", "schema-damaged"),
    "a foreign function": (
        "CREATE FUNCTION pipehandler.ingest(x text) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "schema-unknown",
    ),
    "a foreign view": ("CREATE VIEW pipehandler.mine AS SELECT 1 AS x", "schema-unknown"),
}


@pytest.mark.parametrize("what", SCHEMAS)
def test_schema(folder: Path, server: PostgreSQL, what: str) -> None:
    """The schema has to match this program; if `migrate` helps, the fix runs it."""
    statement, expected = SCHEMAS[what]
    with Database.fresh(server) as database:
        handler = Handler(folder, database.conninfo)
        database.execute(statement)
        found = Checked(handler).found()
        assert codes(found) == [expected]
        if what == "missing":
            # The server is not the machine's, so the account that runs this is its superuser.
            apply_fixes(database, [{**found[0], "fix": re.sub("^runuser -u postgres -- ", "", found[0]["fix"])}])
            assert Checked(handler).found() == []
        elif expected == "schema-unknown":
            apply_fixes(database, found)
            assert Checked(handler).found() == []
        else:
            assert found[0]["fix"].endswith(" migrate") == (expected in ("schema-old", "schema-damaged"))


COLLATIONS = {
    "of the database": ("UPDATE pg_database SET datcollversion = '0' WHERE datname = current_database()", "DATABASE"),
    "of an index": ("UPDATE pg_collation SET collversion = '0' WHERE collname = 'und-x-icu'", "COLLATION"),
}


@pytest.mark.parametrize("what", COLLATIONS)
def test_collation(folder: Path, what: str) -> None:
    """An index created under another text order than the server's current one is found, and the fix works."""
    statement, kind = COLLATIONS[what]
    # Debian's server has ICU; its database as operators make them, with a locale that has versions.
    with account.folder("pipehandler-pg-") as place, PostgreSQL(place / str(DEBIAN), DEBIAN).start() as server:
        database = Database(server, "sorted")
        server.psql(
            "postgres",
            "CREATE DATABASE sorted TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'und' LOCALE 'C.UTF-8'",
        )
        server.psql("postgres", "REVOKE TEMPORARY ON DATABASE sorted FROM PUBLIC")
        store = Store(database.admin, statement_timeout=60)
        store.script("CREATE SCHEMA pipehandler")
        migrate(store)
        store.close()
        database.execute("CREATE ROLE pipehandler LOGIN IN ROLE pipehandler_ingest CONNECTION LIMIT 30")
        checked = Checked(Handler(folder, database.conninfo))
        assert checked.found() == []
        if kind == "COLLATION":
            database.execute('CREATE INDEX own ON pipehandler.message (subject COLLATE "und-x-icu")')
        database.execute(statement)
        found = checked.found()
        assert codes(found) == ["collation"]
        assert kind in found[0]["fix"]
        apply_fixes(database, found)
        assert checked.found() == []


def test_no_password_in_the_line(folder: Path, server: PostgreSQL) -> None:
    """The line for migrate names the owner of the database, and never a password."""
    with Database.fresh(server) as database:
        database.execute("DROP SCHEMA pipehandler CASCADE")
        host = server.conninfo(database.name, user="pipehandler", tcp=True)
        uri = f"postgresql://pipehandler:secret@127.0.0.1:{server.port}/{database.name}"
        query = f"postgresql:///{database.name}?host=127.0.0.1&port={server.port}&user=pipehandler&password=secret"
        for number, conninfo in enumerate((f"{host} password = 'se\\'cret' passfile=secret", uri, query)):
            handler = Handler(folder / str(number), conninfo)
            handler.config.chmod(0o640)
            (found,) = Checked(handler).found()
            assert "cret" not in found["fix"]
            assert "user=postgres" in found["fix"]
            subprocess.run(["bash", "-euc", found["fix"]], check=True, capture_output=True)
            assert Checked(handler).found() == []
            database.execute("DROP SCHEMA pipehandler CASCADE")


def file_for_state(handler: Handler) -> None:
    """A file is in the place of the state directory."""
    handler.state.rmdir()
    handler.state.touch()


def journal_of_root(handler: Handler) -> None:
    """A command that root ran created the journal."""
    (handler.state / "journal.sqlite").touch(0o600)


FILES: dict[str, tuple[Callable[[Handler], Any], list[str], bool]] = {
    "no state directory": (lambda handler: handler.state.rmdir(), ["state-directory"], True),
    "a file": (file_for_state, ["state-directory"], True),
    "of another account": (lambda handler: os.chown(handler.state, 0, 0), ["state-directory"], True),
    "journal of another account": (journal_of_root, ["journal"], True),
    "open": (lambda handler: handler.state.chmod(0o777), ["state-directory-open"], True),
    "open to a group": (lambda handler: handler.state.chmod(0o770), ["state-directory-open"], True),
    "log file": (lambda handler: handler.log.touch(0o600), ["log-file"], True),
    "closed configuration": (lambda handler: handler.config.chmod(0o600), ["configuration"], True),
    "no TOML": (lambda handler: handler.config.write_text("[database\n"), ["configuration"], False),
    "no such key": (lambda handler: handler.config.write_text("[limits]\nsize = 1\n"), ["configuration"], False),
}


@pytest.mark.skipif(not account.IS_ROOT, reason="only root can take files away from the account")
@pytest.mark.parametrize("what", FILES)
def test_files(own_handler: Handler, migrated: Database, what: str) -> None:
    """Files that the account may not read or write, or that others may."""
    spoil, expected, fixable = FILES[what]
    spoil(own_handler)
    checked = Checked(own_handler)
    found = checked.by_account()
    assert codes(found) == expected
    if fixable:
        apply_fixes(migrated, found)
        assert checked.by_account() == []
    else:
        assert found[0]["fix"].startswith(f"# edit {own_handler.config}: ")


@pytest.mark.skipif(not account.IS_ROOT, reason="only root mounts")
@pytest.mark.parametrize("options", ["size=1m", "size=100m,nr_inodes=100"])
def test_full(own_handler: Handler, options: str) -> None:
    """No free space or inodes for the state directory."""
    where = str(own_handler.state)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=700,uid={_uid()},{options}", "tmpfs", where], check=True)
    try:
        assert codes(Checked(own_handler).by_account()) == ["state-directory-full"]
    finally:
        subprocess.run(["umount", where], check=True)


def _uid() -> int:
    return pwd.getpwnam(account.NAME).pw_uid


@pytest.mark.parametrize("old", RENAMED)
def test_old_key(own_handler: Handler, migrated: Database, old: str) -> None:
    """A key with its old name works and is one finding, which names the new one; the command renames it."""
    section, _, name = old.partition(".")
    sections: dict[str, dict[str, object]] = {section: {name: 7 if name != "growth" else 10_000_000}}
    own_handler.configure(migrated.conninfo, **sections)
    (found,) = Checked(own_handler).found()
    assert found["code"] == "configuration-key-renamed"
    assert found["what"].endswith(f": {old} is now called {RENAMED[old]}")
    before = load(str(own_handler.config))
    subprocess.run(["bash", "-euc", found["fix"]], check=True, capture_output=True)
    assert Checked(own_handler).found() == []
    assert load(str(own_handler.config)) == before._replace(old_keys=())


@pytest.mark.parametrize(
    "lines",
    ["serve.wait = 7", "serve = {wait = 7}", "[serve]\nwait = 7\n[sentry]\ndsn = '''\nwait = 7\n'''"],
    ids=["dotted", "inline table", "the same text elsewhere"],
)
def test_old_key_spelled_otherwise(own_handler: Handler, lines: str) -> None:
    """A command is offered only if it changes the key and nothing else; otherwise the finding describes what to
    edit."""
    others = own_handler.config.read_text().partition("[serve]")[0]
    own_handler.config.write_text(f"{lines}\n{others}")
    findings = [each for each in Checked(own_handler).found() if each["code"] == "configuration-key-renamed"]
    assert len(findings) == 1
    if findings[0]["fix"].startswith("# edit"):
        assert findings[0]["fix"] == f"# edit {own_handler.config}: in section [serve] rename wait to queue_timeout"
        assert lines != "serve.wait = 7"
    else:
        subprocess.run(["bash", "-euc", findings[0]["fix"]], check=True, capture_output=True)
        assert load(str(own_handler.config)).serve.queue_timeout == 7
        assert "configuration-key-renamed" not in codes(Checked(own_handler).found())


def test_both_names_of_a_key(own_handler: Handler, migrated: Database) -> None:
    """A key under both names cannot be loaded; the finding names both."""
    own_handler.configure(migrated.conninfo, serve={"wait": 7, "queue_timeout": 7})
    (found,) = Checked(own_handler).found()
    assert found["code"] == "configuration"
    assert "serve.wait is the old name of serve.queue_timeout, and both are set; remove serve.wait" in found["what"]


def test_no_configuration(own_handler: Handler, migrated: Database) -> None:
    """Without a configuration, the fix creates one that can be loaded."""
    own_handler.config.unlink()
    found = Checked(own_handler).found()
    assert codes(found) == ["configuration"]
    apply_fixes(migrated, found)
    assert "configuration" not in codes(Checked(own_handler).found())


def test_password(own_handler: Handler, migrated: Database) -> None:
    """A password in a world-readable file."""
    own_handler.configure(f"{migrated.conninfo} password=secret")
    found = Checked(own_handler).by_account()
    assert codes(found) == ["password-exposed"]
    apply_fixes(migrated, found)
    assert Checked(own_handler).by_account() == []
    own_handler.configure(f"{migrated.conninfo} passfile=/nonexistent")
    assert Checked(own_handler).by_account() == []


def test_clock(own_handler: Handler, migrated: Database) -> None:
    """A server whose clock is wrong: here one whose clock_timestamp() is not PostgreSQL's own."""
    replace = "SET allow_system_table_mods = on; CREATE OR REPLACE FUNCTION pg_catalog.clock_timestamp()"
    migrated.execute(f"{replace} RETURNS timestamptz LANGUAGE sql AS $$ SELECT now() - interval '1 hour' $$")
    try:
        (found,) = Checked(own_handler).found()
        assert found["code"] == "clock"
        assert "differ by 3600 s" in found["what"]
    finally:
        migrated.execute(f"{replace} RETURNS timestamptz LANGUAGE internal STRICT AS 'clock_timestamp'")


@pytest.mark.parametrize(("server_time", "count"), [(94.0, 1), (95.5, 0), (100.0, 0), (106.0, 0), (107.5, 1)])
def test_clock_is_compared(server_time: float, count: int) -> None:
    """Five seconds are allowed, in addition to the time of the query."""
    assert len(list(check_clock(server_time, 100.0, 102.0))) == count


def test_what_is_missing_and_what_is_doubled(own_handler: Handler, migrated: Database) -> None:
    """Deliveries that lack their bytes are counted, and so are duplicates; bytes that retention removed are not."""
    assert [own_handler.deliver(b"Subject: %d\n\n" % number).status for number in range(3)] == [0, 0, 0]
    checked = Checked(own_handler)
    assert checked.found() == []
    migrated.execute(
        "UPDATE pipehandler.delivery SET raw_until = 'epoch' WHERE id = (SELECT max(id) FROM pipehandler.delivery)"
    )
    migrated.execute("DELETE FROM pipehandler.raw_message")
    migrated.execute("INSERT INTO pipehandler.doubled (kind, id) VALUES ('lease', 7)")
    try:
        found = {each["code"]: each["what"] for each in checked.found()}
        assert set(found) == {"bytes-missing", "doubled"}
        assert found["bytes-missing"].startswith("2 deliveries")
        assert found["doubled"].startswith("1 deliveries or leases")
    finally:
        migrated.execute(
            "TRUNCATE pipehandler.message, pipehandler.raw_message, pipehandler.attachment, pipehandler.delivery, pipehandler.doubled"
        )


def test_messages_in_the_log(own_handler: Handler, migrated: Database) -> None:
    """A server that logs parameters writes messages into its log; after the printed fix its log contains none of their
    text."""
    log = migrated.server.log
    migrated.execute(f"ALTER DATABASE {migrated.name} SET log_min_duration_statement = 0")
    try:
        assert own_handler.deliver(b"Subject: x\n\nVerraeterisches\n").status == 0
        wait_until(lambda: "Verraeterisches" in log.read_text("utf-8", "replace"), "the line in the log")
        found = Checked(own_handler).found()
        assert codes(found) == ["messages-in-log"]
        assert "log_min_duration_statement is 0 ms" in found[0]["what"]
        apply_fixes(migrated, found)
        assert Checked(own_handler).found() == []
        assert own_handler.deliver(b"Subject: y\n\nUnauffaelliges\n").status == 0
        wait_until(lambda: log.read_text("utf-8", "replace").count("pipehandler.ingest") > 1, "the line in the log")
        assert "Unauffaelliges" not in log.read_text("utf-8", "replace")
        migrated.execute("ALTER ROLE pipehandler SET log_parameter_max_length_on_error = -1")
        found = Checked(own_handler).found()
        assert codes(found) == ["messages-in-log"]
        apply_fixes(migrated, found)
        assert Checked(own_handler).found() == []
    finally:
        migrated.execute(f"ALTER DATABASE {migrated.name} RESET ALL")
        migrated.execute("ALTER ROLE pipehandler RESET ALL")
        migrated.execute(
            "TRUNCATE pipehandler.message, pipehandler.raw_message, pipehandler.attachment, pipehandler.delivery"
        )


@pytest.mark.parametrize("dsn", ["nonsense", "https://sentry.example.org/1", "https://key@sentry.example.org/project"])
def test_sentry_dsn(own_handler: Handler, migrated: Database, dsn: str) -> None:
    """With a DSN that sentry-sdk refuses, nothing would ever be reported."""
    own_handler.configure(migrated.conninfo, sentry={"dsn": dsn})
    (found,) = Checked(own_handler).found()
    assert found["code"] == "sentry-dsn"
    own_handler.configure(migrated.conninfo, sentry={"dsn": "https://key@sentry.example.org/1"})
    assert Checked(own_handler).found() == []


def test_name_of_the_database(own_handler: Handler, migrated: Database) -> None:
    """For a missing database the finding lists the existing ones, and for a typo it suggests the right one."""
    server = migrated.conninfo.partition(" dbname")[0]
    own_handler.configure(f"{server} dbname={migrated.name}l user=pipehandler")
    (found,) = Checked(own_handler).found()
    assert found["code"] == "database-missing"
    assert migrated.name in found["what"]
    assert found["fix"] == f"# in {own_handler.config}, database.conninfo: dbname={migrated.name}"
    own_handler.configure(f"{server} dbname={found['fix'].partition('dbname=')[2]} user=pipehandler")
    assert Checked(own_handler).found() == []


def test_role_of_another_account(own_handler: Handler, migrated: Database) -> None:
    """The handler is never given the role of another account, which may do more than deliver."""
    hba = migrated.server.data / "pg_hba.conf"
    before = hba.read_text()
    hba.write_text(f"local all root,daemon,{account.NAME} peer\n{before}")
    migrated.server.reload()
    migrated.execute(f"CREATE ROLE {account.NAME} LOGIN IN ROLE pipehandler_ingest CONNECTION LIMIT 30")
    try:
        server = migrated.conninfo.partition(" dbname")[0]
        own_handler.configure(f"{server} dbname={migrated.name} user=daemon")
        (found,) = Checked(own_handler).by_account()
        assert found["code"] == "authentication"
        assert found["fix"] == (
            f"# in {own_handler.config}, database.conninfo: user={account.NAME},"
            " the role of the account that this was checked as"
        )
        user = found["fix"].partition("user=")[2].partition(",")[0]
        own_handler.configure(f"{server} dbname={migrated.name} user={user}")
        assert Checked(own_handler).by_account() == []
    finally:
        migrated.execute(f"DROP ROLE {account.NAME}")
        hba.write_text(before)
        migrated.server.reload()


def missing_passfile(file: Path) -> None:
    """The file is missing."""
    file.unlink()


def passfile_of_another(file: Path) -> None:
    """The account may not read it."""
    os.chown(file, 0, 0)
    file.chmod(0o600)


def folder_for_passfile(file: Path) -> None:
    """A directory has that name."""
    file.unlink()
    file.mkdir()


PASSFILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (missing_passfile, "No such file or directory"),
    "open": (lambda file: file.chmod(0o644), "is ignored, because its mode is 0644"),
    "of another account": (passfile_of_another, "this account may not read the passfile"),
    "without a line": (lambda file: file.write_text("otherhost:*:*:*:x\n"), "has no line for this connection"),
    "a folder": (folder_for_passfile, "is not a regular file"),
}


@pytest.mark.skipif(not account.IS_ROOT, reason="only root can take files away from the account")
@pytest.mark.parametrize("what", PASSFILES)
def test_passfile(own_handler: Handler, migrated: Database, what: str) -> None:
    """A passfile that libpq ignores is reported with the reason, and with a command if one can fix it."""
    spoil, expected = PASSFILES[what]
    hba = migrated.server.data / "pg_hba.conf"
    before = hba.read_text()
    migrated.execute("ALTER ROLE pipehandler PASSWORD 'secret'")
    hba.write_text(f"local all pipehandler scram-sha-256\n{before}")
    migrated.server.reload()
    file = own_handler.folder / "it's a passfile"
    file.write_text("*:*:*:*:secret\n")
    file.chmod(0o600)
    account.give(file)
    try:
        quoted = str(file).replace("'", "\\'")
        own_handler.configure(f"{migrated.conninfo} passfile='{quoted}'")
        assert Checked(own_handler).by_account() == []
        spoil(file)
        found = Checked(own_handler).by_account()
        assert codes(found) == ["passfile"]
        assert expected in found[0]["what"]
        if not found[0]["fix"].startswith("#"):
            apply_fixes(migrated, found)
            assert Checked(own_handler).by_account() == []
    finally:
        hba.write_text(before)
        migrated.execute("ALTER ROLE pipehandler PASSWORD NULL")
        migrated.server.reload()


def test_tls(folder: Path) -> None:
    """Each TLS failure has its own code; a server that is down is not reported as one."""
    for name in ("server", "other"):
        subject = ["-subj", f"/CN={name}.example", "-addext", f"subjectAltName=DNS:{name}.example"]
        files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.crt")]
        make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject, *files]
        subprocess.run(make, check=True, capture_output=True)
        account.give(folder / f"{name}.key")
    rest = "dbname=postgres user=postgres"
    handler = Handler(folder / "handler", rest)

    def reported(conninfo: str) -> str:
        handler.configure(f"{conninfo} {rest}")
        found = Checked(handler).found()
        tls = [each["what"].partition(" (")[2] for each in found if each["code"] == "tls"]
        assert tls or "schema-missing" in codes(found), found
        return tls[0] if tls else ""

    # Debian's server, because not every build has TLS.
    with account.folder("pipehandler-pg-") as place, PostgreSQL(place / str(DEBIAN), DEBIAN, FAST).start() as server:
        host = f"host=server.example hostaddr=127.0.0.1 port={server.port}"
        assert "the server has no TLS" in reported(f"{host} sslmode=require")
        server.configure({"ssl": "on", "ssl_cert_file": f"{folder}/server.crt", "ssl_key_file": f"{folder}/server.key"})
        server.reload()
        wait_until(lambda: not reported(f"{host} sslmode=require"), "the new settings of the server")
        trusted = f"sslrootcert={folder}/server.crt"
        assert reported(f"{host} sslmode=verify-full {trusted}") == ""
        assert "does not exist" in reported(f"{host} sslmode=verify-full sslrootcert={folder}/none.crt")
        assert "is not signed by" in reported(f"{host} sslmode=verify-ca sslrootcert={folder}/other.crt")
        name = f"host=localhost hostaddr=127.0.0.1 port={server.port}"
        assert "not for the name localhost" in reported(f"{name} sslmode=verify-full {trusted}")
    handler.configure(f"host=127.0.0.1 port=1 {rest} sslmode=verify-full {trusted}")
    assert codes(Checked(handler).found()) == ["database-unreachable"]


def test_workers_of_before(folder: Path, own_handler: Handler, migrated: Database) -> None:
    """A service that runs other code than the installed one is found; one that only has to reload its configuration
    does so."""
    with Service(own_handler):
        own_handler.configure(migrated.conninfo, limits={"deadline": 33})
        assert Checked(own_handler).found() == []
    with Service(own_handler, program=Upgradable(folder / "other").program):
        (found,) = Checked(own_handler).found()
        assert found["code"] == "service-stale"
        assert found["what"] == "the resident workers run other code than is installed now"
