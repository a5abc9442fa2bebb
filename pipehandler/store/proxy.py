"""What the database of a proxy has besides tables and functions: extensions, options of the foreign server, and a setting.

An earlier version made some of them differently or not at all. `migrate` adds what is missing and keeps what an operator
has set; `check` reports both.
"""

from typing import Any, NamedTuple

from psycopg import sql

from .connection import Store
from .errors import NO_SQLSTATE, StoreError
from .migrate import MigrationError

OPTIONS = {"connection_lifetime": "3600", "disable_binary": "0"}
"""Of the foreign server. Without binary values, which PL/Proxy leaves off, a message travels in hexadecimal digits."""

_SCHEMA = "pipehandler_dblink"
"""Nobody else may use it: the connections of dblink are those of the session, and lead to the shards with the proxy's role."""

_CHECK_MS, _LONGEST_CHECK_MS = 1_000, 5_000
"""How often a session of the proxy looks for its client while it waits for a shard; half of the time that it has for that
(store/message_store.py)."""

_STATE = """
SELECT (SELECT jsonb_object_agg(o.option_name, o.option_value)
          FROM pg_foreign_server f CROSS JOIN pg_options_to_table(f.srvoptions) AS o
         WHERE f.srvname = 'pipehandler') AS options,
       (SELECT e.extnamespace::regnamespace::text FROM pg_extension e WHERE e.extname = 'dblink') AS dblink,
       (SELECT s.setting::int FROM pg_settings s WHERE s.name = 'client_connection_check_interval') AS milliseconds,
       EXISTS (SELECT FROM pg_db_role_setting r JOIN pg_database d ON d.oid = r.setdatabase
                CROSS JOIN unnest(r.setconfig) AS c (setting)
                WHERE d.datname = current_database() AND r.setrole = 0
                  AND c.setting LIKE 'client_connection_check_interval=%%') AS is_set,
       current_database()::text AS name, p.proowner::regrole::text AS owner,
       EXISTS (SELECT FROM pg_user_mappings m
                WHERE m.srvname = 'pipehandler' AND m.umuser IN (p.proowner, 0)) AS is_mapped
  FROM pg_proc p
 WHERE p.oid = 'pipehandler.shards()'::regprocedure
"""


class Difference(NamedTuple):
    """Where a proxy is not as this version makes it.

    name: what differs; found: how it is; statement: what corrects it. is_missing: `migrate` adds it; otherwise an operator
    has set something else.
    """

    name: str
    found: str
    statement: str
    is_missing: bool = True


def differences(store: Store) -> list[Difference]:
    """Where this proxy is not as this version makes it. Raises StoreError."""
    (state,) = store.rows(_STATE)
    return [*_dblink(state), *_options(state), *_setting(state), *_mapping(state)]


def complete(store: Store) -> list[str]:
    """Add what this proxy lacks; returns the names. Raises MigrationError where that is not possible, StoreError."""
    found = differences(store)
    for each in found:
        if each.name == _DBLINK and not each.is_missing:
            raise MigrationError(
                f"{each.name} {each.found}, where others may use its connections to the shards; {each.statement}"
            )
    missing = [each for each in found if each.is_missing]
    for each in missing:
        try:
            store.script(each.statement)
        except StoreError as error:
            if error.sqlstate == NO_SQLSTATE:
                raise
            raise MigrationError(
                f"{each.name} {each.found}, and cannot be added: {error}; a superuser has to migrate the proxy, and dblink has"
                " to be installed (Debian: a part of postgresql-15)"
            ) from error
    return [each.name for each in missing]


_DBLINK = "the extension dblink"


def _dblink(state: dict[str, Any]) -> list[Difference]:
    make = f"CREATE SCHEMA IF NOT EXISTS {_SCHEMA}"
    if state["dblink"] is None:
        return [Difference(_DBLINK, "is missing", f"{make}; CREATE EXTENSION dblink SCHEMA {_SCHEMA}")]
    if state["dblink"] != _SCHEMA:
        moving = f"{make}; ALTER EXTENSION dblink SET SCHEMA {_SCHEMA}"
        return [Difference(_DBLINK, f"is in the schema {state['dblink']}", moving, is_missing=False)]
    return []


def _options(state: dict[str, Any]) -> list[Difference]:
    """An operator may let the connections live for another time; the reason for binary values does not change."""
    options = state["options"] or {}
    alter = "ALTER SERVER pipehandler OPTIONS"
    found = [
        Difference(
            f"the option {name} of the foreign server pipehandler", "is missing", f"{alter} (ADD {name} '{value}')"
        )
        for name, value in OPTIONS.items()
        if name not in options
    ]
    if (binary := options.get("disable_binary", "0")) != "0":
        name = "the option disable_binary of the foreign server pipehandler"
        found.append(Difference(name, f"is {binary}", f"{alter} (SET disable_binary '0')", is_missing=False))
    return found


def _setting(state: dict[str, Any]) -> list[Difference]:
    if 0 < state["milliseconds"] <= _LONGEST_CHECK_MS:
        return []
    name = sql.Identifier(state["name"]).as_string(None)
    statement = f"ALTER DATABASE {name} SET client_connection_check_interval = {_CHECK_MS}"
    found = f"is {state['milliseconds']} ms" if state["milliseconds"] else "is off"
    is_missing = not state["is_set"] and not state["milliseconds"]
    return [Difference("the setting client_connection_check_interval of the database", found, statement, is_missing)]


def _mapping(state: dict[str, Any]) -> list[Difference]:
    if state["is_mapped"]:
        return []
    statement = f"CREATE USER MAPPING FOR {state['owner']} SERVER pipehandler OPTIONS (user 'pipehandler_proxy')"
    name = f"the user mapping of {state['owner']}, who owns the functions,"
    return [Difference(name, "is missing", statement, is_missing=False)]
