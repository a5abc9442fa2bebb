"""Objects that the handler's role creates where it may, in the schema public of an older PostgreSQL for example, are never
executed with the rights of another role."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest
from harness.console import Console
from harness.database import Database
from harness.postgresql import VERSION, PostgreSQL
from harness.submission import MESSAGE, submission

from pipehandler.store.message_store import MessageStore
from pipehandler.store.migrate import MigrationError, migrate, pending, plan
from pipehandler.store.sql_files import code

# Each function of pg_catalog that a statement of ours may name, with arguments that would be a better match, or the
# same: it raises the handler's rights if it runs under a role that may do that, and leaves a trace if not.
FUNCTIONS = {
    "pg_advisory_xact_lock(integer)": "void",
    "pg_advisory_lock(integer)": "void",
    "pg_try_advisory_lock(integer)": "boolean",
    "pg_blocking_pids(integer)": "integer[]",
    "to_regclass(text)": "regclass",
    "to_regclass(unknown)": "regclass",
    "to_regprocedure(unknown)": "regprocedure",
    "to_regrole(unknown)": "regrole",
    "current_setting(unknown)": "text",
    "set_config(text, text, boolean)": "text",
    "format(text, name)": "text",
    "format(text, text)": "text",
    "octet_length(text)": "integer",
    "lower(text)": "text",
    "strpos(text, text)": "integer",
    "substring(text, text)": "text",
    "clock_timestamp()": "timestamptz",
    "now()": "timestamptz",
    "quote_ident(name)": "text",
    "extract(text, timestamptz)": "numeric",
    "jsonb_array_elements(jsonb)": "jsonb",
    "pg_current_xact_id()": "xid8",
    "encode(bytea, unknown)": "text",
    "sha256(text)": "bytea",
}
OPERATORS = {
    "=": ("text", "text", "boolean"),
    "<>": ("text", "text", "boolean"),
    "~": ("text", "text", "boolean"),
    "~~": ("text", "text", "boolean"),
    "||": ("text", "text", "text"),
    "/": ("integer", "integer", "integer"),
    ">": ("integer", "integer", "boolean"),
    "<=": ("timestamptz", "timestamptz", "boolean"),
    "->>": ("jsonb", "text", "text"),
    "@@": ("jsonb", "text", "boolean"),
}
BODY = """
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO public.trace VALUES (current_user);
    BEGIN EXECUTE 'ALTER ROLE pipehandler SUPERUSER'; EXCEPTION WHEN OTHERS THEN NULL; END;
    RETURN NULL;
END
$$
"""


@pytest.fixture
def planted(own_database: Database) -> Database:
    """A database in which the handler's role has planted objects that an unqualified name could resolve to."""
    database = own_database
    database.execute("GRANT CREATE ON SCHEMA public TO PUBLIC; CREATE TABLE trace (who text)")
    database.execute("GRANT INSERT ON trace TO PUBLIC")
    for role in ("pipehandler", "reader", "upkeep", "postgres"):
        database.execute(f"ALTER ROLE {role} SET search_path = public, pg_catalog")
    with psycopg.connect(database.conninfo, autocommit=True) as handler:
        handler.execute("SET search_path = pg_catalog")
        for name, returns in FUNCTIONS.items():
            arguments = name.partition("(")[2].replace("unknown", "name")
            body = BODY.replace("RETURN NULL;", "RETURN;") if returns == "void" else BODY
            handler.execute(
                f"CREATE OR REPLACE FUNCTION public.{name.partition('(')[0]}({arguments} RETURNS {returns} {body}"
            )
        for number, (name, (left, right, returns)) in enumerate(OPERATORS.items()):
            handler.execute(f"CREATE FUNCTION public.operator{number}({left}, {right}) RETURNS {returns} {BODY}")
            handler.execute(
                f"CREATE OPERATOR public.{name} (FUNCTION = public.operator{number}, LEFTARG = {left}, RIGHTARG = {right})"
            )
        for name in ("delivery", "message", "migration", "address", "retention"):
            handler.execute(f"CREATE TABLE public.{name} ()")
        for name in ("jsonb", "text", "bytea"):
            handler.execute(f"CREATE DOMAIN public.{name} AS pg_catalog.{name} CHECK (false)")
    return database


def test_search_path_of_every_function(database: Database) -> None:
    """Each function has its own, except where names are resolved when it is made (BEGIN ATOMIC), and the one that sets it
    for its caller's transaction."""
    without = (
        "SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'pipehandler'::regnamespace AND prosqlbody IS NULL"
        " AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false)"
    )
    assert database.rows(without) == [("pipehandler.secure_transaction()",)]


def untouched(database: Database) -> bool:
    """Whether nothing planted was executed, and the handler has gained no rights."""
    with psycopg.connect(database.admin, options="-c search_path=pg_catalog") as connection:
        traces = connection.execute("SELECT DISTINCT who FROM public.trace").fetchall()
        (handler,) = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = 'pipehandler'").fetchall()
    return not traces and handler == (False,)


def test_migrate_executes_nothing_planted(planted: Database) -> None:
    """A migration by a superuser, in parts or whole, first or repeated, as a command or as its script, uses only our
    own objects."""
    with closing(MessageStore(planted.admin, statement_timeout=100)) as store:
        assert migrate(store) == []
        with psycopg.connect(planted.admin, options="-c search_path=pg_catalog", autocommit=True) as owner:
            owner.execute("UPDATE pipehandler.code SET version = 0")
            assert migrate(store) == [code()]
            owner.execute("DROP SCHEMA pipehandler CASCADE")
        script = plan(store)
        assert len(migrate(store)) > 1
        assert script
    assert untouched(planted)


def test_a_delivery_executes_nothing_planted(planted: Database) -> None:
    """Ingest, the readers' functions and the removal of mail resolve only their own objects."""
    with closing(MessageStore(f"{planted.conninfo} options='-csearch_path=pg_catalog'")) as store:
        store.ingest(submission())
    for role, statement in (
        ("reader", "SELECT * FROM pipehandler.deliveries_after('')"),
        ("reader", "SELECT * FROM pipehandler.lease_of('a@b'::pg_catalog.text)"),
        ("reader", "SELECT * FROM pipehandler.inbox"),
        ("upkeep", "SELECT * FROM pipehandler.retention_of('a@b', '', '', '')"),
        ("upkeep", "SELECT * FROM pipehandler.expire()"),
        ("upkeep", "SELECT * FROM pipehandler.expire('-infinity'::pg_catalog.timestamptz)"),
        ("upkeep", "SELECT * FROM pipehandler.delivery_under_current_rules"),
        ("upkeep", "SELECT pipehandler.canonical('Ä@xn--bcher-kva.example')"),
        ("upkeep", "SELECT * FROM pipehandler.set_web_domains('[]')"),
        ("upkeep", "SELECT pipehandler.close_network('192.0.2.0/24'::pg_catalog.cidr)"),
        ("page", "SELECT * FROM pipehandler.inboxes_of(ARRAY[''::pg_catalog.bytea])"),
        ("page", "SELECT * FROM pipehandler.arrivals_after('')"),
        ("page", "SELECT pipehandler.arrivals_waiting()"),
        ("pipehandler", "SELECT * FROM pipehandler.health()"),
        ("pipehandler", "SELECT * FROM pipehandler.code_status()"),
    ):
        with psycopg.connect(planted.server.conninfo(planted.name, user=role), autocommit=True) as connection:
            connection.execute(statement)
    assert untouched(planted)


COMMANDS = [
    *(["list"], ["show", "1"], ["raw", "1"], ["quarantine", "list"], ["reparse", "--all"], ["expire"], ["metrics"]),
    *(
        ["address", "add", "b@example.com", "--ttl", "1d"],
        ["address", "list"],
        ["import", "MESSAGE", "--recipient", "c@example.com"],
    ),
]


def test_commands_execute_nothing_planted(planted: Database, folder: Path) -> None:
    """A superuser who runs the commands executes nothing that the handler's role owns."""
    with closing(MessageStore(planted.conninfo)) as store:
        store.ingest(submission())
    console = Console(folder, planted)
    console.configure("postgres")
    message = folder / "message.eml"
    message.write_bytes(MESSAGE)
    for command in COMMANDS:
        assert console.run(*(str(message) if word == "MESSAGE" else word for word in command)).status == 0, command
    assert untouched(planted)


def test_migrate_refuses_the_schema_of_a_stranger(servers: Callable[[int], PostgreSQL]) -> None:
    """A schema that another role made first, with a trigger on what `migrate` writes to, is refused; its owner may
    migrate, and so may the owner of the database and a superuser in a schema of their own."""
    server = servers(VERSION)
    for statement in (
        "CREATE ROLE stranger LOGIN",
        "CREATE ROLE proprietor LOGIN",
        "CREATE DATABASE strange OWNER proprietor",
    ):
        server.psql("postgres", statement)
    try:
        server.psql("strange", "GRANT CREATE ON DATABASE strange TO stranger")
        for owner, others in (("stranger", ("postgres", "proprietor")), ("proprietor", ()), ("postgres", ())):
            server.psql(
                "strange", f"DROP SCHEMA IF EXISTS pipehandler CASCADE; CREATE SCHEMA pipehandler AUTHORIZATION {owner}"
            )
            for role in others:
                with closing(MessageStore(server.conninfo("strange", user=role))) as store:
                    for call in (migrate, plan):
                        with pytest.raises(MigrationError, match=f"belongs to {owner}, .* code run by {role}"):
                            call(store)
            with closing(MessageStore(server.conninfo("strange", user=owner))) as store:
                assert pending(store)
        server.psql("strange", "ALTER SCHEMA pipehandler OWNER TO proprietor")
        with closing(MessageStore(server.conninfo("strange"))) as store:
            assert pending(store)
    finally:
        server.psql("postgres", "DROP DATABASE strange WITH (FORCE)")
        server.psql("postgres", "DROP ROLE stranger")
        server.psql("postgres", "DROP ROLE proprietor")
