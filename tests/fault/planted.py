"""Planted objects: functions, operators, casts, types, tables and views that look like ours or like PostgreSQL's, made
by the handler's role where it may create: in the schema public, and in one with the name of each stronger role, which
"$user" finds.

Each stronger role has a search path that puts them before pg_catalog. Then every command runs, as the superuser and as
the roles of docs/security.md, and mail is delivered. None of them executes anything planted, and the handler's role
gains no rights.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
from harness import account
from harness.console import Console
from harness.database import Database
from harness.handler import Handler
from harness.service import bounded

from .injection import Letter, fresh_database, letter
from .ledger import Ledger, Mode, Row, Scale
from .retried import REPORTS, deliver, stored

_REPOSITORY = Path(__file__).parents[2]
_ROLES = ("postgres", "reader", "upkeep", "lessor")
_SCHEMAS = ("public", *_ROLES)

_BODY = """
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.trace VALUES (current_user, {name});
    BEGIN EXECUTE 'ALTER ROLE pipehandler SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
    RETURN{value};
END
$$
"""
"""It leaves a trace, and raises the handler's rights if the role that executes it may do that."""

_OVERLOADS = """
SELECT DISTINCT p.proname, ARRAY(SELECT format_type(t, NULL) FROM unnest(p.proargtypes::oid[]) t) AS arguments,
       CASE WHEN t.typtype = 'p' AND t.typname <> 'void' THEN 'text' ELSE format_type(p.prorettype, NULL) END AS result,
       p.proretset
  FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_type t ON t.oid = p.prorettype
 WHERE p.pronamespace IN ('pg_catalog'::regnamespace, 'pipehandler'::regnamespace) AND p.proname = ANY (%s)
"""
_NARROWER = {
    "bigint": "integer",
    "text": "name",
    "numeric": "integer",
    "anyelement": "text",
    "anyarray": "text[]",
    "anycompatible": "text",
    "anycompatiblearray": "text[]",
    '"any"': "text",
    "timestamp with time zone": "date",
    "regclass": "oid",
    "interval": "time",
}
"""Types that match some call better than those of the genuine function."""

_OPERATORS = """
SELECT o.oprname, format_type(o.oprleft, NULL) AS l, format_type(o.oprright, NULL) AS r,
       format_type(o.oprresult, NULL) AS result
  FROM pg_catalog.pg_operator o
 WHERE o.oprleft <> 0 AND format_type(o.oprleft, NULL) = ANY (%(types)s) AND format_type(o.oprright, NULL) = ANY (%(types)s)
"""
_TYPES = (
    *(
        "text",
        "name",
        "integer",
        "bigint",
        "smallint",
        "boolean",
        "jsonb",
        "bytea",
        "uuid",
        "interval",
        "xid8",
        "inet",
        "oid",
    ),
    *("timestamp with time zone", "text[]", "bigint[]", "uuid[]", "numeric", "regclass"),
)
_RELATIONS = """
SELECT relname FROM pg_catalog.pg_class
 WHERE (relnamespace = 'pipehandler'::regnamespace AND relkind IN ('r', 'v'))
    OR (relnamespace = 'pg_catalog'::regnamespace AND relname = ANY (%s))
"""

_COMMANDS: dict[str, tuple[str, ...]] = {
    "postgres": (
        *("migrate --dry-run", "migrate", "check --part handler", "status", "metrics", "list", "show 1", "raw 1"),
        *("quarantine list", "quarantine drop --yes QUARANTINED", "reparse --all", "reparse --fingerprints", "expire"),
        *("follow", "address new --domain example.com", "address add own@example.com --ttl 1h", "address list"),
        *("address extend 1", "address expire 1", "address remove 1"),
        "import FOLDER/message.eml --recipient imported@example.com",
    ),
    "reader": ("list --json", "show --json 1", "raw 1", "follow"),
    "upkeep": ("expire --dry-run", "expire", "reparse --all --verbose", "quarantine list --reasons", "list"),
    "lessor": ("address add other@example.com", "address new --domain example.com --label own"),
}
"""What each role runs, in this order. Finally migrate starts from an empty database, as the superuser."""


_OWN_TYPES = (
    "text",
    "jsonb",
    "bytea",
    "bigint",
    "integer",
    "interval",
    "timestamptz",
    "uuid",
    "name",
    "regclass",
    "xid8",
    "inet",
)
"""Types of pg_catalog that get a domain of the same name, and a type with casts from and to them."""

_SAMPLE = ("migrate", "check --part handler", "expire", "list --json", "address add other@example.com")
_NAMES_OF_A_SAMPLE = [
    *(
        "lower",
        "to_regclass",
        "sha256",
        "now",
        "clock_timestamp",
        "current_setting",
        "format",
        "octet_length",
        "coalesce",
    ),
    *("pg_advisory_xact_lock", "jsonb_array_elements", "max", "count", "canonical", "ingest", "pg_roles", "pg_class"),
]


def run(scale: Scale, mode: Mode) -> Row:
    """Plant everything, then run everything, or a sample."""
    row, ledger = mode.row("planted"), Ledger()
    with fresh_database() as database, account.folder("pipehandler-") as folder:
        handler = Handler(folder / "handler", database.conninfo)
        sent = letter("imported")
        (folder / "message.eml").write_bytes(sent.raw)
        for number in range(1, 4):
            _deliver(handler, letter(f"before{number}"), "before", row, ledger)
        quarantined = letter("quarantined")
        deliver(handler, quarantined)
        number = database.value("SELECT id FROM pipehandler.delivery WHERE recipient = %s", quarantined.recipients[0])
        database.execute(
            "UPDATE pipehandler.message SET state = 'failed', error = 'not parsed'"
            " WHERE id = (SELECT message FROM pipehandler.delivery WHERE id = %s)",
            number,
        )
        _open_doors(database)
        with psycopg.connect(database.conninfo, autocommit=True, options="-csearch_path=pg_catalog") as connection:
            planted = sum(_plant(connection, schema, scale) for schema in (_SCHEMAS[:1] if scale.short else _SCHEMAS))
        sys.stderr.write(f"    {planted} objects are planted\n")
        # From here on our own queries use an empty search path; those of the commands use the search path of their
        # roles.
        database.admin += " options='-csearch_path=pg_catalog'"
        _prove(database, row)
        _deliver(handler, letter("beside"), "a delivery", row, ledger)
        _judge(database, "a delivery", row)
        for role, commands in _COMMANDS.items():
            own = folder / role
            own.mkdir()
            console = Console(own, database)
            console.configure(role, f"database.conninfo = '{database.conninfo}'\nserve.socket = '{folder / 'socket'}'")
            for words in commands:
                if scale.short and words not in _SAMPLE:
                    continue
                if words.startswith("import"):
                    ledger.send(sent.raw, "imported@example.com")
                _command(console, words.replace("FOLDER", str(folder)).replace("QUARANTINED", str(number)), row)
                _judge(database, f"{words} as {role}", row)
        if scale.short:  # the sample does not include the command that drops it
            ledger.send(quarantined.raw, *quarantined.recipients)
        ledger.check(database, row)
        _from_nothing(handler, folder, database, row)
    return row


def _deliver(handler: Handler, sent: Letter, where: str, row: Row, ledger: Ledger) -> None:
    stored(lambda each: deliver(handler, each), sent, where, row, ledger)


def _open_doors(database: Database) -> None:
    """Grant what an older PostgreSQL allows everyone, and set search paths that put it before pg_catalog."""
    database.execute("GRANT CREATE ON SCHEMA public TO PUBLIC; CREATE TABLE public.trace (who text, what text)")
    database.execute(f"GRANT CREATE ON DATABASE {database.name} TO pipehandler; GRANT INSERT ON public.trace TO PUBLIC")
    for role in _ROLES:
        database.execute(f'ALTER ROLE {role} SET search_path = "$user", public, pg_catalog')


def _plant(handler: "psycopg.Connection[Any]", schema: str, scale: Scale) -> int:
    """Plant all that can be planted in one schema, as the handler's role; returns how many objects."""
    if schema != "public":
        handler.execute(f"CREATE SCHEMA {schema}")
        handler.execute(f"GRANT USAGE ON SCHEMA {schema} TO PUBLIC")
    return sum(_created(handler, statement) for statement in _plants(handler, schema, scale))


def _created(handler: "psycopg.Connection[Any]", statement: str) -> bool:
    """Whether PostgreSQL lets the handler's role create it."""
    try:
        handler.execute(statement)
    except psycopg.Error:
        return False
    return True


def _plants(handler: "psycopg.Connection[Any]", schema: str, scale: Scale) -> Iterator[str]:
    """The statements, the most specific first."""
    names = _NAMES_OF_A_SAMPLE if scale.short else _names()
    for name, arguments, result, is_set in handler.execute(_OVERLOADS, [names]).fetchall():
        for types in {tuple(arguments), tuple(_NARROWER.get(each, each) for each in arguments)}:
            yield _function(f'{schema}."{name}"', types, result, is_set)
    operators = handler.execute(_OPERATORS, {"types": list(_TYPES[: 3 if scale.short else None])}).fetchall()
    for number, (name, left, right, result) in enumerate(operators):
        function = f"{schema}.operator{number}"
        yield _function(function, (left, right), result)
        yield f"CREATE OPERATOR {schema}.{name} (FUNCTION = {function}, LEFTARG = {left}, RIGHTARG = {right})"
    yield _function(f"{schema}.holds", ('"any"',), "boolean")
    for name in _OWN_TYPES[: 2 if scale.short else None]:
        yield _function(f"{schema}.holds", (f"pg_catalog.{name}",), "boolean")
        yield f"CREATE DOMAIN {schema}.{name} AS pg_catalog.{name} CHECK ({schema}.holds(VALUE))"
        yield f"CREATE TYPE {schema}.own_{name} AS (value pg_catalog.{name})"
        yield _function(f"{schema}.to_own_{name}", (f"pg_catalog.{name}",), f"{schema}.own_{name}")
        yield _function(f"{schema}.from_own_{name}", (f"{schema}.own_{name}",), f"pg_catalog.{name}")
        yield (
            f"CREATE CAST (pg_catalog.{name} AS {schema}.own_{name}) WITH FUNCTION {schema}.to_own_{name} AS IMPLICIT"
        )
        yield (
            f"CREATE CAST ({schema}.own_{name} AS pg_catalog.{name}) WITH FUNCTION {schema}.from_own_{name} AS IMPLICIT"
        )
        for function in ("lower", "length", "octet_length", "to_regclass", "coalesce", "format", "quote_ident"):
            yield _function(f"{schema}.{function}", (f"{schema}.own_{name}",), "text")
    yield _function(f"{schema}.seen", (), "text")
    for (name,) in handler.execute(_RELATIONS, [names]).fetchall():
        as_view = f"CREATE VIEW {schema}.{name} AS SELECT {schema}.seen() AS id FROM generate_series(1, 3)"
        yield as_view if name.startswith("pg_") or len(name) % 2 else f"CREATE TABLE {schema}.{name} (id text)"
        yield f"GRANT ALL ON {schema}.{name} TO PUBLIC"


def _function(name: str, types: tuple[str, ...], result: str, is_set: bool = False) -> str:
    body = _BODY.format(name=f"$n${name}$n$", value="" if is_set or result == "void" else " NULL")
    returns = f"SETOF {result}" if is_set else result
    return f"CREATE FUNCTION {name}({', '.join(types)}) RETURNS {returns} {body}"


def _names() -> list[str]:
    """Every name in our SQL, and in the SQL of our Python."""
    files = [*_REPOSITORY.glob("sql/**/*.sql"), *_REPOSITORY.glob("pipehandler/**/*.py")]
    return sorted({name for file in files for name in re.findall(r"\b[a-z_][a-z0-9_]+\b", file.read_text("utf-8"))})


def _prove(database: Database, row: Row) -> None:
    """Control: a statement without schema-qualified names does execute what is planted."""
    with psycopg.connect(database.server.conninfo(database.name, user="upkeep"), autocommit=True) as careless:
        careless.execute("SELECT lower('X'::text), 'a'::text = 'b'::text")
    executed = {found.what for found in database.rows("DELETE FROM public.trace RETURNING what")}
    if len(executed) < 2:
        row.note(f"the plants do not work: a careless statement executed only {executed}")


def _judge(database: Database, what: str, row: Row) -> None:
    """Whether something planted was executed since the last check."""
    row.points += 1
    for found in database.rows("DELETE FROM public.trace RETURNING who, what"):
        row.note(f"{what}: {found.what} was executed as {found.who}")
    if database.value("SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = 'pipehandler'"):
        row.note(f"{what}: the handler's role is superuser")


def _command(console: Console, words: str, row: Row) -> None:
    """A command does its work despite the planted objects."""
    arguments = words.split()
    if arguments[0] == "follow":
        running = console.start("follow", "--from-start")
        with bounded(running):
            assert running.stdout
            first = running.stdout.readline()
            running.kill()
            _, errors = running.communicate()
        if not first:
            row.note(f"follow shows nothing: {errors.decode()[-400:]}")
        return
    done = console.run(*arguments)
    allowed = REPORTS.get(arguments[0], (0,))
    if done.status not in allowed or "Traceback" in done.errors:
        row.note(f"{words}: {done.status}, {done.errors[-400:]}")
    if arguments[0] == "check" and b"CREATE" not in done.output:
        row.note(f"check does not report that everyone may create in public: {done.output[-600:]!r}")


def _from_nothing(handler: Handler, folder: Path, database: Database, row: Row) -> None:
    """migrate creates the whole schema despite the planted objects, and mail is delivered into it."""
    database.execute("DROP SCHEMA pipehandler CASCADE")
    console = Console(folder, database)
    console.configure("postgres")
    _command(console, "migrate", row)
    _judge(database, "migrate from nothing", row)
    again = Ledger()
    _deliver(handler, letter("again"), "a delivery after all", row, again)
    _judge(database, "a delivery after all", row)
    again.check(database, row)
