"""What an operator can do about an error of the database. No delivery loads it."""

from .errors import (
    CANNOT_CONNECT_NOW,
    CLASS_INVALID_AUTHORIZATION,
    CLASS_INVALID_CATALOG_NAME,
    CLASS_INVALID_SCHEMA_NAME,
    CLASS_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION,
    CLASS_TRANSACTION_ROLLBACK,
    DISK_FULL,
    INSUFFICIENT_PRIVILEGE,
    LOCK_NOT_AVAILABLE,
    QUERY_CANCELED,
    READ_ONLY_SQL_TRANSACTION,
    TOO_MANY_CONNECTIONS,
    TRANSACTION_TIMEOUT,
    UNDEFINED_FUNCTION,
)
from .roles import INGEST

_HANDLER = f"{INGEST}; `pipehandler check` prints the GRANT"
"""The group of the role that delivers."""

_HINTS = {
    CLASS_INVALID_AUTHORIZATION: "the role may not log in: correct pg_hba.conf or the passfile, see `pipehandler check`",
    CLASS_INVALID_CATALOG_NAME: "create the database, or correct database.conninfo",
    CLASS_INVALID_SCHEMA_NAME: "there is no schema pipehandler: run `pipehandler migrate`",
    CLASS_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION: "the schema is missing or older than this program: run `pipehandler migrate`",
    CLASS_TRANSACTION_ROLLBACK: "another transaction changed the same rows: trying again resolves it",
    INSUFFICIENT_PRIVILEGE: "the role lacks a right: it must be a member of {group}",
    UNDEFINED_FUNCTION: "the schema is older than this program: run `pipehandler migrate`",
    READ_ONLY_SQL_TRANSACTION: (
        "this server is read-only: name all servers in database.conninfo, with target_session_attrs=read-write"
    ),
    TRANSACTION_TIMEOUT: "transaction_timeout is set on the database or the role: set it to 0, or higher",
    DISK_FULL: "make room on the disk of the database",
    TOO_MANY_CONNECTIONS: (
        "all connections of the database or the role are in use: start a synchronous standby that is away; or raise"
        " max_connections or the limit of the role (`pipehandler check`), or lower maxproc and serve.workers"
    ),
    LOCK_NOT_AVAILABLE: "another transaction holds a lock; to see what waits: SELECT * FROM pg_stat_activity",
    QUERY_CANCELED: "the database is slow, or waits for a lock: SELECT * FROM pg_stat_activity",
    CANNOT_CONNECT_NOW: "the database is starting or recovering: wait, or read its log",
}
"""What an operator can do, by SQLSTATE or its class."""


def hint(sqlstate: str, group: str = _HANDLER) -> str:
    """What an operator can do about an error of the database, "" where nothing is known.

    group: the group role whose right is missing after 42501, and where to set that.
    """
    return (_HINTS.get(sqlstate) or _HINTS.get(sqlstate[:2], "")).format(group=group)
