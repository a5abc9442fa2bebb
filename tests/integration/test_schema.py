"""The schema is self-explanatory, and has what a PostgreSQL expert looks for first."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.database import Database
from harness.missing import missing
from harness.postgresql import DEBIAN, PostgreSQL
from reference import schema

SCHEMA = Path(__file__).parents[2] / "docs" / "schema.md"

# Everything in the schema that can carry a comment: what it is, and its comment.
COMMENTS = """
SELECT 'schema ' || nspname AS what, obj_description(oid, 'pg_namespace') AS comment
  FROM pg_namespace WHERE nspname = 'pipehandler'
UNION ALL
SELECT 'relation ' || relname, obj_description(oid, 'pg_class')
  FROM pg_class
 WHERE relnamespace = 'pipehandler'::regnamespace AND relkind IN ('r', 'p', 'v', 'm') AND NOT relispartition
UNION ALL
SELECT 'column ' || relname || '.' || attname, col_description(attrelid, attnum)
  FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
 WHERE relnamespace = 'pipehandler'::regnamespace AND relkind IN ('r', 'p', 'v', 'm') AND attnum > 0 AND NOT attisdropped
   AND NOT relispartition
UNION ALL
SELECT 'function ' || proname, obj_description(oid, 'pg_proc')
  FROM pg_proc WHERE pronamespace = 'pipehandler'::regnamespace
UNION ALL
SELECT 'role ' || rolname, shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname LIKE 'pipehandler\\_%'
"""

# A foreign key without an index makes each deletion on the other side read the whole table.
UNINDEXED = """
SELECT conrelid::regclass::text || '.' || conname AS key
  FROM pg_constraint k
 WHERE contype = 'f' AND connamespace = 'pipehandler'::regnamespace
   AND NOT EXISTS (SELECT FROM pg_index i
                    WHERE i.indrelid = k.conrelid AND (i.indkey::int2[])[0:cardinality(k.conkey) - 1] = k.conkey)
"""


PROBLEMS = """
SELECT c.functionid || ' line ' || c.lineno || ': ' || c.level || ': ' || c.message AS problem
  FROM pg_proc p
  JOIN pg_language l ON l.oid = p.prolang
  LEFT JOIN pg_trigger t ON t.tgfoid = p.oid,
       plpgsql_check_function_tb(p.oid, relid => coalesce(t.tgrelid, 0)::regclass, performance_warnings => false,
                                 oldtable => t.tgoldtable, newtable => t.tgnewtable) AS c
 WHERE p.pronamespace = 'pipehandler'::regnamespace AND l.lanname = 'plpgsql'
"""

LESS_VOLATILE = {"cluster_now", "cursor_position", "cut_text", "u_label"}
"""Functions of which plpgsql_check 2.8 warns that they call one that is declared more volatile than they are: whether and
where this server is, and conversions of text, which PostgreSQL declares for all types and for conversions that users may
replace. None of it changes within a statement."""


def test_everything_has_a_comment(untouched: Database) -> None:
    """\\d+ explains the data to a newcomer: each table, view, column, function and role has a comment."""
    rows = untouched.rows(COMMENTS)
    assert {row.what.partition(" ")[0] for row in rows} == {"schema", "relation", "column", "function", "role"}
    assert [row.what for row in rows if not row.comment] == []


def test_documentation(untouched: Database) -> None:
    """docs/schema.md matches the schema on every version of PostgreSQL; if not, run script/reference."""
    assert SCHEMA.read_text("utf-8") == schema.page(untouched)


@pytest.fixture
def checker(servers: Callable[[int], PostgreSQL]) -> Iterator[Database]:
    """A migrated database on Debian's server, with the extension plpgsql_check."""
    with Database.fresh(servers(DEBIAN)) as database:
        if not database.rows("SELECT FROM pg_available_extensions WHERE name = 'plpgsql_check'"):
            missing("the extension plpgsql_check")
        database.execute("CREATE EXTENSION plpgsql_check")
        yield database


def test_bodies_of_functions(checker: Database) -> None:
    """PL/pgSQL is not checked when a function is created; plpgsql_check finds missing tables, columns, types and
    variables, and unused variables."""
    volatile = re.compile(rf"pipehandler\.({'|'.join(LESS_VOLATILE)}) line \d+: warning: routine is marked as ")
    assert [row.problem for row in checker.rows(PROBLEMS) if not volatile.match(row.problem)] == []
    checker.execute("ALTER TABLE pipehandler.message RENAME COLUMN sha256 TO digest")
    assert any("sha256" in row.problem for row in checker.rows(PROBLEMS))


def test_foreign_keys_have_indexes(untouched: Database) -> None:
    """Each foreign key is the leading part of an index."""
    assert untouched.value("SELECT count(*) FROM pg_constraint WHERE contype = 'f'") >= 3
    assert untouched.rows(UNINDEXED) == []


@pytest.mark.parametrize("column", ["raw_message.raw", "attachment.content", "message.text_body", "message.html_body"])
def test_compression(untouched: Database, column: str) -> None:
    """Large columns are compressed with lz4 if the server supports it, otherwise with the server's default."""
    table, _, name = column.partition(".")
    has_lz4 = untouched.value("SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'")
    compression = untouched.value(
        "SELECT attcompression::text FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s",
        f"pipehandler.{table}",
        name,
    )
    assert compression == ("l" if has_lz4 else "")


def test_inbox_hides_what_has_expired(database: Database) -> None:
    """The view inbox shows a delivery until it expires, and one without such a time always."""
    for recipient, expires in (("a", "NULL"), ("b", "now() + interval '1 hour'"), ("c", "now() - interval '1 s'")):
        database.execute(
            "INSERT INTO pipehandler.message (id, received_at, size, sha256, state, parser)"
            " VALUES (md5(%s)::uuid, now(), 0, sha256(''), 'parsed', 'x')",
            recipient,
        )
        database.execute(
            "INSERT INTO pipehandler.delivery"
            " (message, recipient, fingerprint, sender, mail_host, ingress, received_at, expires_at)"
            f" VALUES (md5(%s)::uuid, %s, sha256(''), '', 'x', 'pipe', now(), {expires})",
            recipient,
            recipient,
        )
    rows = database.rows("SELECT recipient FROM pipehandler.inbox ORDER BY recipient")
    assert [row.recipient for row in rows] == ["a", "b"]
