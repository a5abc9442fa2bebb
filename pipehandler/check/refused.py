"""Report why there is no connection to the database, recognised by the server's SQLSTATE, never by its text."""

import os
import pwd

from pipehandler.mail.outcome import MISCONFIGURED
from pipehandler.store.errors import (
    CANNOT_CONNECT_NOW,
    INSUFFICIENT_PRIVILEGE,
    INVALID_AUTHORIZATION_SPECIFICATION,
    INVALID_CATALOG_NAME,
    INVALID_PASSWORD,
    OBJECT_NOT_IN_PREREQUISITE_STATE,
    TOO_MANY_CONNECTIONS,
    StoreError,
)
from pipehandler.store.refusal import (
    DATABASE_LIMIT,
    MISSING_ROLE,
    MISSING_ROLE_OR_NO_LOGIN,
    NO_LOGIN,
    NO_PASSWORD,
    ROLE_LIMIT,
    Refusal,
    refusal,
)

from .finding import Finding
from .role import quoted


def account() -> str:
    """Return the name of the account that this process runs as."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def unreachable(conninfo: str, error: StoreError, path: str) -> Finding:
    """Return the finding that a connection failed with `error`. path: of the configuration."""
    code, fix = "database-unreachable", f"# start the server, or correct host and port of database.conninfo in {path}"
    if error.outcome == MISCONFIGURED:
        code, fix = "conninfo", f"# correct database.conninfo in {path}"
    elif refused := refusal(conninfo):
        code, fix = _reason(refused) or (code, f"# read the server's log about SQLSTATE {refused.sqlstate}")
    return Finding(
        code,
        f"no connection to the database: {error}",
        "Every message would be deferred (4.3.0 message store unavailable), and eventually returned to its sender.",
        fix,
    )


def _reason(refused: Refusal) -> tuple[str, str] | None:
    """Return the code and the fix of a refusal; None if it has none of its own."""
    role, database = quoted(refused.role), quoted(refused.database)
    create, allow = f"CREATE ROLE {role} LOGIN IN ROLE pipehandler_ingest", f"ALTER ROLE {role} LOGIN"
    either = (
        f"DO $do$ BEGIN EXECUTE CASE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = {_literal(refused.role)})"
        f" THEN {_literal(allow)} ELSE {_literal(create)} END;END $do$;"
    )
    by_detail = {
        MISSING_ROLE: ("role-missing", f"{create};"),
        NO_LOGIN: ("role-nologin", f"{allow};"),
        MISSING_ROLE_OR_NO_LOGIN: ("role-missing", either),
        NO_PASSWORD: ("authentication", "# give the account a passfile, and name it in conninfo (passfile=...)"),
        ROLE_LIMIT: ("connections", f"ALTER ROLE {role} CONNECTION LIMIT -1;"),
        DATABASE_LIMIT: ("connections", f"ALTER DATABASE {database} CONNECTION LIMIT -1;"),
    }
    by_sqlstate = {
        INVALID_CATALOG_NAME: ("database-missing", f"CREATE DATABASE {database};"),
        INSUFFICIENT_PRIVILEGE: ("rights-too-few", f"GRANT CONNECT ON DATABASE {database} TO pipehandler_ingest;"),
        TOO_MANY_CONNECTIONS: ("connections", "ALTER SYSTEM SET max_connections = 200; -- and restart the server"),
        CANNOT_CONNECT_NOW: ("database-starting", "# wait until the server has started or recovered, or read its log"),
        OBJECT_NOT_IN_PREREQUISITE_STATE: ("database-closed", f"ALTER DATABASE {database} ALLOW_CONNECTIONS true;"),
        INVALID_AUTHORIZATION_SPECIFICATION: ("authentication", _let_in(refused.role)),
        INVALID_PASSWORD: ("authentication", _let_in(refused.role)),
    }
    return by_detail.get(refused.detail) or by_sqlstate.get(refused.sqlstate)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _let_in(role: str) -> str:
    own = account()
    line = f"local all {role} peer" + ("" if own == role else " map=pipehandler")
    mapped = "" if own == role else f", and to pg_ident.conf: pipehandler {own} {role}"
    return f"# add to pg_hba.conf, above the line that refuses it: {line}{mapped}; then SELECT pg_reload_conf();"
