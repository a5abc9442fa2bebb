"""Report why there is no connection to the database, recognised by the server's SQLSTATE, never by its text."""

import os
import pwd
from difflib import get_close_matches

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
    databases,
    refusal,
)
from pipehandler.store.roles import INGEST
from pipehandler.store.secured import passfile_problem, tls_problem

from .finding import Finding
from .role import TOO_MANY, quoted


def account() -> str:
    """Return the name of the account that this process runs as."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def unreachable(
    conninfo: str,
    error: StoreError,
    path: str,
    key: str = "database.conninfo",
    groups: tuple[str, ...] = (INGEST,),
    limit: int = -1,
) -> Finding:
    """Return the finding that a connection failed with `error`.

    path: of the configuration; key: the name of `conninfo` there. groups: those that a missing role should be a member of.
    limit: the connection limit that the role should have, -1: none.
    """
    code, fix = "database-unreachable", f"# start the server, or correct host and port of {key} in {path}"
    what = f"no connection to the database: {error}"
    if error.outcome == MISCONFIGURED:
        code, fix = "conninfo", f"# correct {key} in {path}"
    elif refused := refusal(conninfo):
        where = f"in {path}, {key}"
        code, fix = _reason(refused, where, groups, limit) or (
            code,
            f"# read the server's log about SQLSTATE {refused.sqlstate}",
        )
        if refused.detail == NO_PASSWORD and (problem := passfile_problem(conninfo)):
            code, what, fix = "passfile", f"{what}; {problem.what}", problem.fix(account())
        elif code == "role-missing" and refused.role != account() and get_close_matches(refused.role, [account()], 1):
            fix = f"# {where}: user={account()}"
        elif refused.sqlstate == INVALID_CATALOG_NAME:
            names = databases(conninfo)
            what += f"; the databases are {', '.join(names)}" if names else ""
            if similar := get_close_matches(refused.database, names, 1):
                fix = f"# {where}: dbname={similar[0]}"
    elif problem_of_tls := tls_problem(conninfo):
        code, what, fix = "tls", f"{what} ({problem_of_tls.what})", f"# {problem_of_tls.advice}"
    effect = "Every message would be deferred (4.3.0 message store unavailable), and eventually returned to its sender."
    if code == "role-missing":
        effect += f" If there is no {groups[0]} either, the database was restored into a new cluster: `pipehandler restored` comes first."
    return Finding(code, what, effect, fix)


def _reason(refused: Refusal, where: str, groups: tuple[str, ...], limit: int) -> tuple[str, str] | None:
    """Return the code and the fix of a refusal; None if it has none of its own."""
    role, database = quoted(refused.role), quoted(refused.database)
    limited = f" CONNECTION LIMIT {limit}" if limit >= 0 else ""
    create, allow = f"CREATE ROLE {role} LOGIN IN ROLE {', '.join(groups)}{limited}", f"ALTER ROLE {role} LOGIN"
    either = (
        f"DO $do$ BEGIN EXECUTE CASE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = {_literal(refused.role)})"
        f" THEN {_literal(allow)} ELSE {_literal(create)} END;END $do$;"
    )
    by_detail = {
        MISSING_ROLE: ("role-missing", f"{create};"),
        NO_LOGIN: ("role-nologin", f"{allow};"),
        MISSING_ROLE_OR_NO_LOGIN: ("role-missing", either),
        NO_PASSWORD: ("authentication", f"# give {account()} a passfile, and name it {where} (passfile=...)"),
        ROLE_LIMIT: ("connections", f"ALTER ROLE {role} CONNECTION LIMIT {limit};"),
        DATABASE_LIMIT: ("connections", f"ALTER DATABASE {database} CONNECTION LIMIT -1;"),
    }
    by_sqlstate = {
        INVALID_CATALOG_NAME: ("database-missing", f"CREATE DATABASE {database};"),
        INSUFFICIENT_PRIVILEGE: ("rights-too-few", f"GRANT CONNECT ON DATABASE {database} TO {groups[0]};"),
        TOO_MANY_CONNECTIONS: ("connections", "ALTER SYSTEM SET max_connections = 200; -- and restart the server"),
        CANNOT_CONNECT_NOW: ("database-starting", "# wait until the server has started or recovered, or read its log"),
        OBJECT_NOT_IN_PREREQUISITE_STATE: ("database-closed", f"ALTER DATABASE {database} ALLOW_CONNECTIONS true;"),
        INVALID_AUTHORIZATION_SPECIFICATION: ("authentication", _let_in(refused.role, where)),
        INVALID_PASSWORD: ("authentication", _let_in(refused.role, where)),
    }
    return by_detail.get(refused.detail) or by_sqlstate.get(refused.sqlstate)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _let_in(role: str, where: str) -> str:
    """Return how the account logs in. Never as a role of another account, which may be stronger than the handler's."""
    own = account()
    if role == own:
        return f"# add to pg_hba.conf, above the line that refuses it: local all {role} peer; then SELECT pg_reload_conf();"
    rename = f"# {where}: user={own}, the role of the account that this was checked as"
    if is_account(role):
        return rename
    return (
        f"{rename}; or, if {role} was created for it alone, add to pg_hba.conf, above the line that refuses it:"
        f" local all {role} peer map=pipehandler, and to pg_ident.conf: pipehandler {own} {role};"
        " then SELECT pg_reload_conf();"
    )


def shared_role(role: str, path: str) -> Finding:
    """Return the finding that the handler has the role of the operator's commands."""
    return Finding(
        "role-shared",
        f"database.conninfo names the role {role}, as database.admin_conninfo does",
        TOO_MANY,
        f"# in {path}, database.conninfo: user={account()}, the role of the account that this was checked as",
    )


def is_account(name: str) -> bool:
    """Whether this host has an account with this name."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True
