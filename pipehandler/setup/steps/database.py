"""The database, its schema, and the roles that log in."""

import shlex

from pipehandler.check.connections import PROCESSES, sessions
from pipehandler.check.transport import processes, transports
from pipehandler.postfix.templates import PROGRAM
from pipehandler.store.conninfo import located, parameters
from pipehandler.store.roles import INGEST, LOOKUP, MAINTENANCE, READER

from ..host import Host, checked_name
from ..record import Record
from ..step import Change, SetupError, Step, output

_ENCODING = "SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = :'name'"
_ROLE = "SELECT 1 FROM pg_roles WHERE rolname = :'role'"
_LIMIT = "SELECT rolconnlimit FROM pg_roles WHERE rolname = :'role'"
_MEMBER = """
SELECT 1 FROM pg_roles r, pg_roles g
 WHERE r.rolname = :'role' AND g.rolname = :'group' AND pg_has_role(r.oid, g.oid, 'USAGE')
"""

_ELSEWHERE = "the database is on another host, where setup changes nothing"


def database(host: Host, _: Record) -> Step:
    """Return the step that creates the database, in UTF-8 whatever the server's default. Raises SetupError."""
    if not host.server.is_local:
        return Step("database", _ELSEWHERE)
    name = host.database
    encoding = _ask(host, _ENCODING, name=name)
    if encoding and encoding != ["UTF8"]:
        raise SetupError(
            f"the database {name} is {encoding[0]}, not UTF8; name another one with --database, which setup creates"
        )
    if encoding:
        return Step("database", f"{name} exists")
    of_template = _ask(host, _ENCODING, name="template0")
    # The locale of a server that does not use UTF-8 may be incompatible with it; C never is.
    locale = "" if of_template in ([], ["UTF8"]) else ' LOCALE "C"'
    statements = [
        f"CREATE DATABASE {name} TEMPLATE template0 ENCODING UTF8{locale}",
        # No role of ours needs temporary tables, and a compromised handler could fill the disk with them.
        f"REVOKE TEMPORARY ON DATABASE {name} FROM PUBLIC",
    ]
    # Before PostgreSQL 15, every role may create objects in the schema public.
    return Step(
        "database",
        f"{name} does not exist",
        (
            host.server.command("postgres", *statements),
            host.server.command(name, "REVOKE CREATE ON SCHEMA public FROM PUBLIC"),
        ),
        (Change("kept", f"database {name}"),),
    )


def schema(host: Host, _: Record) -> Step:
    """Return the step that brings the schema up to date."""
    if not host.server.is_local:
        return Step("schema", _ELSEWHERE)
    conninfo = located(host.server.conninfo, host.database, host.server.account)
    command = ["runuser", "-u", host.server.account, "--", PROGRAM, "--conninfo", conninfo, "migrate"]
    if (output([*command, "--dry-run"]) or "").startswith("-- nothing to do"):
        return Step("schema", "it is up to date")
    return Step("schema", "it is missing, or older than this program", (shlex.join(command),))


def roles(host: Host, _: Record) -> Step:
    """Return the step that lets the handler, root and Postfix log in, each with the privileges that it needs."""
    if not host.server.is_local:
        return Step("roles", _ELSEWHERE)
    statements, changes = [], []
    wanted = _wanted(host)
    for name, groups in wanted.items():
        lacking = [group for group in groups if not _ask(host, _MEMBER, role=name, group=group)]
        wants_limit = sessions(host.configuration, _processes(host) or PROCESSES) if INGEST in groups else -1
        if not _ask(host, _ROLE, role=name):
            limit = f" CONNECTION LIMIT {wants_limit}" if INGEST in groups else ""
            statements.append(f'CREATE ROLE "{name}" LOGIN IN ROLE {", ".join(groups)}{limit}')
            changes.append(Change("role", name))
            if INGEST in groups:
                # Otherwise a server that logs slow statements would write whole messages to its log.
                statements.append(f'ALTER ROLE "{name}" SET log_parameter_max_length = 0')
            continue
        statements += [f'GRANT {group} TO "{name}"' for group in lacking]
        changes += [Change("grant", name, after=group) for group in lacking]
        for limited in _ask(host, _LIMIT, role=name):
            if int(limited) < wants_limit:  # -1: none
                statements.append(f'ALTER ROLE "{name}" CONNECTION LIMIT {wants_limit}')
                changes.append(Change("limit", name, limited, str(wants_limit)))
    if not statements:
        return Step("roles", f"{', '.join(wanted)} exist")
    command = host.server.command(host.database, *statements)
    return Step("roles", "roles, their memberships or their connection limit are missing", (command,), tuple(changes))


def _processes(host: Host) -> int:
    """Return how many processes the transports may have, or will have."""
    postfix = host.postfix()
    return sum(processes(postfix, service) for service in transports(postfix)) if postfix else 0


def _wanted(host: Host) -> dict[str, list[str]]:
    """Return the roles, and the groups that each must be a member of."""
    settings = host.configuration.database
    handler = str(parameters(settings.conninfo).get("user") or host.account)
    admin = str(parameters(settings.admin_conninfo).get("user") or "root")
    postfix = host.postfix()
    lookup = postfix.parameters["mail_owner"] if postfix else "postfix"
    wanted = {handler: [INGEST], admin: [READER, MAINTENANCE], lookup: [LOOKUP]}
    return {checked_name(name, "a role"): groups for name, groups in wanted.items()}


def _ask(host: Host, statement: str, **variables: str) -> list[str]:
    """Return the output lines of a query; none if there is no server yet."""
    return host.server.query("postgres", statement, **variables) or []
