"""Least privilege: each role can do what it may, and everything else fails."""

import itertools
import json
from contextlib import closing
from typing import Any

import psycopg
import pytest
from harness import submission as submissions
from harness.database import Database
from harness.submission import MESSAGE, submission
from psycopg.errors import InsufficientPrivilege, InvalidParameterValue, NotNullViolation

from pipehandler.mail.identity import identify
from pipehandler.store.message_store import MessageStore

TABLES = (
    "address",
    "attachment",
    "capability",
    "cluster",
    "code",
    "delivery",
    "doubled",
    "message",
    "migration",
    "raw_message",
    "retention",
    "retention_change",
    "retention_hold",
    "sharding",
    "web_closed_network",
    "web_domain",
    "web_inbox",
    "web_tombstone",
)
ACTIONS = {
    "SELECT": "SELECT * FROM {}",
    "INSERT": "INSERT INTO {} DEFAULT VALUES",
    "UPDATE": "UPDATE {} SET {column} = {column}",
    "DELETE": "DELETE FROM {}",
    "TRUNCATE": "TRUNCATE {}",
}
ALLOWED = {
    "pipehandler": {},
    "postfix": {},
    "lessor": {},
    "page": {},
    "reader": {table: {"SELECT"} for table in TABLES},
    "upkeep": {
        "address": {"SELECT", "INSERT", "UPDATE", "DELETE"},
        "attachment": {"SELECT", "INSERT", "UPDATE", "DELETE"},
        "capability": {"SELECT"},
        "cluster": {"SELECT"},
        "code": {"SELECT"},
        "delivery": {"SELECT", "UPDATE", "DELETE"},
        "doubled": {"SELECT", "DELETE"},
        "message": {"SELECT", "UPDATE", "DELETE"},
        "migration": {"SELECT"},
        "raw_message": {"SELECT", "DELETE"},
        "retention": {"SELECT", "INSERT", "UPDATE", "DELETE"},
        "retention_change": {"SELECT", "INSERT", "UPDATE", "DELETE"},
        "retention_hold": {"SELECT", "INSERT", "UPDATE", "DELETE"},
        "sharding": {"SELECT"},
        "web_closed_network": {"SELECT"},
        "web_domain": {"SELECT"},
        "web_inbox": {"SELECT"},
        "web_tombstone": {"SELECT", "DELETE"},
    },
}
REPARSE = "SELECT * FROM pipehandler.reparse(NULL, '{}', NULL, NULL, NULL)"
INGEST = "SELECT * FROM pipehandler.ingest('{}', '{}', '', '', '', '', NULL)"


def attempt(database: Database, role: str, *statements: str) -> None:
    """Run statements as a role, in a transaction that is rolled back."""
    with psycopg.connect(database.server.conninfo(database.name, user=role)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.rollback()


def test_tables_are_all_there(untouched: Database) -> None:
    """The tables of this test are those of the schema."""
    rows = untouched.rows(
        "SELECT relname FROM pg_class WHERE relnamespace = 'pipehandler'::regnamespace AND relkind IN ('r', 'p')"
        "   AND NOT relispartition ORDER BY 1"
    )
    assert tuple(row.relname for row in rows) == TABLES


@pytest.mark.parametrize("role", ALLOWED)
def test_tables(untouched: Database, role: str) -> None:
    """Each role may do with each table what is granted to it, and nothing else: the handler nothing at all."""
    done: dict[str, set[str]] = {}
    for table in TABLES:
        column = untouched.value(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND attidentity = '' LIMIT 1",
            f"pipehandler.{table}",
        )
        for action, statement in ACTIONS.items():
            text = statement.replace("{column}", str(column)).replace("{}", f"pipehandler.{table}")
            try:
                attempt(untouched, role, text)
            except InsufficientPrivilege:
                continue
            except NotNullViolation:
                pass  # the privilege was there, so no error
            done.setdefault(table, set()).add(action)
    assert done == ALLOWED[role]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM pipehandler.inbox",
        "COPY pipehandler.raw_message TO STDOUT",
        "LOCK pipehandler.delivery",
        "CREATE TABLE pipehandler.mine (x int)",
        "CREATE TABLE public.mine (x int)",
        "CREATE FUNCTION pipehandler.ingest(x int) RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "DROP FUNCTION pipehandler.ingest",
        "ALTER FUNCTION pipehandler.ingest SECURITY INVOKER",
        "SELECT pg_read_file('/etc/passwd')",
        "SET ROLE pipehandler_reader",
        "SET SESSION AUTHORIZATION postgres",
    ],
)
def test_handler_gets_no_further(untouched: Database, statement: str) -> None:
    """A handler taken over by a hostile message can neither read mail in another way nor change the schema."""
    if untouched.server.version < 15:
        untouched.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")  # as later versions have it from the start
    with pytest.raises(InsufficientPrivilege):
        attempt(untouched, "pipehandler", statement)


def test_readers_do_not_store(untouched: Database) -> None:
    """A reader may neither deliver nor repair."""
    for statement in (INGEST, REPARSE):
        with pytest.raises(InsufficientPrivilege):
            attempt(untouched, "reader", statement)


def test_the_handler_does_not_repair(untouched: Database) -> None:
    """A handler may not replace what is stored."""
    with pytest.raises(InsufficientPrivilege):
        attempt(untouched, "pipehandler", REPARSE)


def test_upkeep_imports_and_repairs(untouched: Database) -> None:
    """The maintenance role may store messages and replace what was parsed from their bytes; with its own rights, so it
    needs the privileges for it."""
    attempt(untouched, "upkeep", REPARSE)
    with pytest.raises(InvalidParameterValue, match="the envelope"):
        attempt(untouched, "upkeep", INGEST)
    assert not untouched.value("SELECT prosecdef FROM pg_proc WHERE oid = 'pipehandler.reparse'::regproc")


def test_shadow_objects_have_no_effect(every_database: Database) -> None:
    """Objects that a caller of ingest puts before the schema in its search path are not used by the function, which
    runs as its owner."""
    every_database.execute(f"GRANT TEMPORARY ON DATABASE {every_database.name} TO PUBLIC")
    store = MessageStore(every_database.conninfo)
    connection = store.connect()
    raising = "RETURNS {} LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'hijacked by %', current_user; END $$"
    for statement in (
        "CREATE TEMP TABLE delivery (id int)",
        "CREATE TEMP TABLE message (id int)",
        "CREATE DOMAIN pg_temp.jsonb AS text CHECK (false)",
        f"CREATE FUNCTION pg_temp.sha256(bytea) {raising.format('bytea')}",
        f"CREATE FUNCTION pg_temp.octet_length(bytea) {raising.format('int')}",
        f"CREATE FUNCTION pg_temp.decode(text, text) {raising.format('bytea')}",
        f"CREATE FUNCTION pg_temp.equal(uuid, uuid) {raising.format('boolean')}",
        "CREATE OPERATOR pg_temp.= (FUNCTION = pg_temp.equal, LEFTARG = uuid, RIGHTARG = uuid)",
        "SET search_path = pg_temp, pg_catalog",
    ):
        connection.execute(statement)
    connection.execute("SET search_path = pg_catalog, pg_temp")
    store.ingest(submission())
    connection.execute("SET search_path = pg_temp")
    with pytest.raises(InvalidParameterValue):
        connection.execute(
            "SELECT count(*) FROM pipehandler.ingest(%s, '{}', NULL, NULL, NULL, %s, NULL)",
            [json.dumps({"fingerprint": "00" * 32, "recipients": []}), MESSAGE],
        )
    store.close()
    assert every_database.value("SELECT sha256 = sha256(%s) FROM pipehandler.message", MESSAGE)
    assert every_database.value("SELECT count(*) FROM pipehandler.delivery") == 1


def test_functions_pin_search_path(untouched: Database) -> None:
    """No object of a caller is mistaken for one of ours, in any function that a role other than the owner may call. A
    function with an SQL body resolved its names when it was created."""
    rows = untouched.rows(
        "SELECT p.oid::regprocedure::text AS name, proconfig FROM pg_proc p"
        " WHERE p.pronamespace = 'pipehandler'::regnamespace AND p.prosqlbody IS NULL"
        " AND (p.proacl IS NULL OR EXISTS (SELECT FROM aclexplode(p.proacl) AS a WHERE a.grantee <> p.proowner))"
    )
    assert len(rows) > 10
    assert [row.name for row in rows if "search_path=pg_catalog, pg_temp" not in (row.proconfig or [])] == []


def test_functions(untouched: Database) -> None:
    """PUBLIC may not use the schema nor execute a function of it, and each that runs as its owner pins its search_path."""
    assert not untouched.value("SELECT has_schema_privilege('public', 'pipehandler', 'USAGE, CREATE')")
    functions = untouched.rows(
        "SELECT proname, prosecdef, proconfig, has_function_privilege('public', oid, 'EXECUTE') AS public"
        "  FROM pg_proc WHERE pronamespace = 'pipehandler'::regnamespace"
    )
    assert "ingest" in {function.proname for function in functions}
    for function in functions:
        assert not function.public
        if function.prosecdef:
            assert "search_path=pg_catalog, pg_temp" in (function.proconfig or [])


FUNCTIONS = {
    "pipehandler": {
        "cluster_status",
        "code_status",
        "data_status",
        "days_prepared",
        "health",
        "ingest",
        "shard_status",
        "replication_status",
        "retention_held",
    },
    "postfix": {"lookup"},
    "lessor": {
        *("expire_lease", "extend_lease", "find_lease", "lease_address", "lease_random_address", "place_lease"),
        "remove_lease",
    },
    "page": {
        *("arrivals_after", "arrivals_waiting", "cursor_now", "expire_inbox", "extend_inbox", "inbox_after"),
        *("inbox_attachment", "inbox_attachments", "inbox_domains", "inbox_message", "inbox_of", "inbox_page"),
        *(
            "inbox_raw",
            "inbox_shards",
            "inboxes_of",
            "open_inbox",
            "remove_inbox",
            "remove_inbox_mail",
            "shard_of_inbox",
            "share_inbox",
        ),
        "unshare_inbox",
    },
}
"""The functions that roles without the right to read may call."""


@pytest.mark.parametrize("role", FUNCTIONS)
def test_functions_of_a_role(untouched: Database, role: str) -> None:
    """The role that looks up recipients for Postfix may call one function, the role that issues addresses those for
    leases."""
    rows = untouched.rows(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'pipehandler'::regnamespace"
        "   AND has_function_privilege(%s, oid, 'EXECUTE')",
        role,
    )
    assert {row.proname for row in rows} == FUNCTIONS[role]


def test_addresses_are_given_out_and_found(untouched: Database) -> None:
    """Roles that may neither read nor change a table can fulfil their purpose."""
    attempt(untouched, "postfix", "SELECT pipehandler.lookup('a@example.com', '+')")
    attempt(
        untouched,
        "lessor",
        "SELECT pipehandler.lease_random_address('example.com', '1 h')",
        "SELECT pipehandler.remove_lease((pipehandler.extend_lease((pipehandler.expire_lease((a).lease)).lease)).lease)"
        "  FROM pipehandler.lease_address('a@example.com') AS a",
    )


def test_upkeep_leases_addresses(untouched: Database) -> None:
    """Upkeep adds an address without knowing its number: identity columns need no separate privilege."""
    attempt(untouched, "upkeep", "INSERT INTO pipehandler.address (address) VALUES ('a@example.com')")


def test_a_handler_cannot_hand_out_messages_of_others(database: Database) -> None:
    """A role that may call ingest cannot attach a stored message to another recipient by its id: the bytes decide."""
    store = MessageStore(database.conninfo)
    (stored,) = store.ingest(submission())
    assert stored.message == identify(MESSAGE).id
    envelope = {
        "message": stored.message,
        "fingerprint": "00" * 32,
        "recipients": [{"recipient": "thief@example.com"}],
        "sender": "",
        "mail_host": "x",
        "ingress": "pipe",
        "received_at": "2026-01-01T00:00:00Z",
    }
    parsed = json.loads(submission(b"mine").arguments()[1])
    store.connect().execute(
        "SELECT FROM pipehandler.ingest(%s, %s, NULL, NULL, NULL, %s, NULL)",
        [json.dumps(envelope), json.dumps(parsed), b"mine"],
    )
    store.close()
    taken = "SELECT message::text FROM pipehandler.delivery WHERE recipient = 'thief@example.com'"
    assert database.value(taken) == identify(b"mine").id


def test_a_handler_cannot_exchange_what_is_stored(database: Database) -> None:
    """A role that may call ingest, and knows the fingerprint of a stored message, can change neither its bytes nor its
    attachments."""
    picture = b"Message-ID: <1@x>\nContent-Type: image/gif\n\nGIF"
    with closing(MessageStore(database.conninfo)) as store:
        store.ingest(submission(MESSAGE))
        store.ingest(submission(picture))
        database.execute("UPDATE pipehandler.attachment SET content = NULL")  # as retention does
        before = stored_mail(database)
        _, parsed, *_ = submission(picture).arguments()
        for raw in (MESSAGE, picture):
            envelope, *_ = submission(raw).arguments()
            forged = b"Received: forged\n" + raw
            for octets, contents in itertools.product((forged, raw + b"forged", raw), ([b"forged"], [b"forged"] * 9)):
                store.rows(submissions.INGEST, [envelope, parsed, "forged", "forged", b"forged", octets, contents])
    assert stored_mail(database) == before


def stored_mail(database: Database) -> list[Any]:
    """Every delivery with the bytes, the text and the contents of attachments that belong to it."""
    return database.rows(
        "SELECT d.id, d.message, d.prepended, r.raw, m.text_body, m.html_body,"
        "       array(SELECT a.content FROM pipehandler.attachment a"
        "              WHERE a.day = m.day AND a.message = m.id ORDER BY a.ordinal) AS contents"
        "  FROM pipehandler.delivery d JOIN pipehandler.message m ON m.day = d.day AND m.id = d.message"
        "  JOIN pipehandler.raw_message r ON r.day = m.day AND r.message = m.id ORDER BY d.id"
    )
