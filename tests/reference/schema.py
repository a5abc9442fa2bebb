"""docs/schema.md: the schema as the database describes it, from its COMMENTs."""

from collections.abc import Iterator
from typing import Any

from harness.database import Database

_HEAD = """# Schema

Every table, view, function and role of the schema `pipehandler`, with its comment.
`\\d+` of psql shows the same. [Reading mail](reading-mail.md) has the queries to begin with.

<!-- Written by script/reference from the COMMENTs in sql/. -->
"""

_RELATIONS = """
SELECT c.oid, c.relname AS name, c.relkind IN ('v', 'm') AS is_view, obj_description(c.oid, 'pg_class') AS comment
  FROM pg_class c WHERE c.relnamespace = 'pipehandler'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm') AND NOT c.relispartition
 ORDER BY 2
"""
_COLUMNS = """
SELECT a.attname AS name, format_type(a.atttypid, a.atttypmod) AS type, a.attnotnull AS required,
       col_description(a.attrelid, a.attnum) AS comment
  FROM pg_attribute a WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
"""
_FUNCTIONS = """
SELECT p.proname AS name, pg_get_function_arguments(p.oid) AS arguments, pg_get_function_result(p.oid) AS result,
       obj_description(p.oid, 'pg_proc') AS comment,
       ARRAY(SELECT r.rolname::text FROM aclexplode(p.proacl) x JOIN pg_roles r ON r.oid = x.grantee
              WHERE r.rolname LIKE 'pipehandler\\_%' ORDER BY 1) AS callers
  FROM pg_proc p WHERE p.pronamespace = 'pipehandler'::regnamespace ORDER BY 1, 2
"""
_ROLES = """
SELECT rolname AS name, shobj_description(oid, 'pg_authid') AS comment
  FROM pg_roles WHERE rolname LIKE 'pipehandler\\_%' ORDER BY 1
"""


def page(database: Database) -> str:
    """docs/schema.md, from a migrated database."""
    relations = database.rows(_RELATIONS)
    lines = [_HEAD, "## Tables"]
    for relation in relations:
        if not relation.is_view:
            lines += _relation(relation, database)
    lines += ["", "## Views"]
    for relation in relations:
        if relation.is_view:
            lines += _relation(relation, database)
    lines += ["", "## Functions"]
    for function in database.rows(_FUNCTIONS):
        lines += ["", f"### {function.name}", "", _text(function.comment), ""]
        lines += ["```text", f"{function.name}({function.arguments}) RETURNS {function.result}", "```"]
        if function.callers:
            lines += ["", f"May be called by {', '.join(f'`{role}`' for role in function.callers)}."]
    lines += ["", "## Roles", "", *_table("role", "comment")]
    lines += [f"| `{role.name}` | {_cell(role.comment)} |" for role in database.rows(_ROLES)]
    return "\n".join(lines) + "\n"


def _relation(relation: Any, database: Database) -> Iterator[str]:
    yield from ("", f"### {relation.name}", "", _text(relation.comment), "", *_table("column", "type", "comment"))
    for column in database.rows(_COLUMNS, relation.oid):
        required = " NOT NULL" if column.required else ""
        yield f"| `{column.name}` | {column.type}{required} | {_cell(column.comment)} |"


def _table(*names: str) -> Iterator[str]:
    yield f"| {' | '.join(names)} |"
    yield "|" + "---|" * len(names)


def _text(comment: str | None) -> str:
    return " ".join((comment or "").split())


def _cell(comment: str | None) -> str:
    return _text(comment).replace("|", "\\|")
