"""Check the limits on connections: enough for all deliveries, and never so many that no one else can log in.

A process that is killed while its commit waits for a synchronous standby leaves a session behind, which stays as long as the
standby is away: nothing cancels it, and no timeout applies to it. Only the connection limit of the role stops them from
taking all of max_connections, after which no administrator could log in to repair the standby.
"""

from collections.abc import Iterator
from typing import Any

from pipehandler.settings.config import Config

from .finding import Finding
from .role import quoted

PROCESSES = 20
"""maxproc where it is not known: that of the lines which `pipehandler postfix` prints."""

_OTHERS = 10
"""Connections that are left to everything but the handlers: administrators, readers, Postfix's lookups, `expire`."""

_BESIDE_DELIVERIES = 2
"""Sessions of each mail host that deliver nothing: `metrics` and `check`."""

_DEFERRED = "In a burst of mail, messages are deferred because no connection is left."
_LOCKED_OUT = (
    "While a synchronous standby is away, deliveries that are killed leave sessions behind that wait for it. They take all"
    " connections of the server, and then only a superuser can log in."
)

LIMITS = """
SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
       - coalesce(current_setting('reserved_connections', true)::int, 0) AS connections,
       r.rolconnlimit AS of_role, r.rolsuper AS superuser, d.datconnlimit AS of_database,
       (SELECT coalesce(sum(m.rolconnlimit), 0)::int
          FROM pg_roles m, pg_roles g
         WHERE g.rolname = 'pipehandler_ingest' AND m.rolname <> current_user AND m.rolcanlogin AND NOT m.rolsuper
           AND m.rolconnlimit > 0 AND pg_has_role(m.oid, g.oid, 'MEMBER')) AS of_other_roles,
       (SELECT count(DISTINCT CASE WHEN a.client_addr IS NULL OR a.client_addr <<= '127.0.0.0/8' OR a.client_addr = '::1'
                                   THEN 'this host' ELSE host(a.client_addr) END)
          FROM pg_stat_activity a
         WHERE a.usename = current_user AND a.backend_type = 'client backend')::int AS hosts
  FROM pg_roles r, pg_database d
 WHERE r.rolname = current_user AND d.datname = current_database()
"""
"""What check_connections compares, as a query. of_other_roles: the sum of the limits of the other handlers' roles. hosts: from how many
the role is logged in now."""


def sessions(config: Config, maxproc: int) -> int:
    """Return how many sessions the handlers of all mail hosts may have at the same time.

    maxproc: processes of the transport, each of which may deliver cold; 0: not known.
    """
    # While the service or the watcher reloads, the number of its workers doubles.
    watching = config.watch.workers if config.watch.maildirs else 0
    of_one = maxproc + 2 * (config.serve.workers + watching) + _BESIDE_DELIVERIES
    return config.database.mail_hosts * of_one


def check_connections(
    about: dict[str, Any], role: str, database: str, config: Config, path: str, maxproc: int
) -> Iterator[Finding]:
    """Compare the limits on connections with the number that may be needed.

    about: the row of LIMITS, for `role` and `database`. path: of the configuration. maxproc: as for check_handler.
    """
    if about["hosts"] > config.database.mail_hosts:
        yield Finding(
            "mail-hosts",
            f"role {role} is logged in from {about['hosts']} hosts; database.mail_hosts is {config.database.mail_hosts}",
            "The connection limit of the role is computed for too few mail hosts. " + _DEFERRED,
            f"# in {path}, on each mail host: [database], mail_hosts = {about['hosts']}",
        )
    needed = sessions(config, maxproc)
    wanted = sessions(config, maxproc or PROCESSES)
    limit = f"ALTER ROLE {quoted(role)} CONNECTION LIMIT {wanted};"
    raised = f"ALTER SYSTEM SET max_connections = {wanted + about['of_other_roles'] + 50}; -- and restart the server"
    hosts = f"{config.database.mail_hosts} mail hosts" if config.database.mail_hosts > 1 else "this mail host"
    of_others = about["of_other_roles"] + _OTHERS
    free = max(0, about["connections"] - of_others)
    limits = (
        (free, f"max_connections, without the reserved ones and {of_others} for others,", raised),
        (about["of_role"], f"the connection limit of role {role}", limit),
        (
            about["of_database"],
            f"the connection limit of database {database}",
            f"ALTER DATABASE {quoted(database)} CONNECTION LIMIT -1;",
        ),
    )
    for number, name, fix in limits:
        if 0 <= number < needed:
            yield Finding(
                "connections",
                f"{name} is {number}; the transport ({maxproc} processes) and the workers of {hosts} may need {needed}",
                _DEFERRED,
                fix,
            )
    if about["superuser"]:  # for whom no limit applies; check_role reports it
        return
    if about["of_role"] < 0:
        yield Finding("connection-limit", f"role {role} has no connection limit", _LOCKED_OUT, limit)
    elif about["of_role"] > free >= wanted:
        yield Finding(
            "connection-limit",
            f"the connection limit of role {role} is {about['of_role']}; max_connections, without the reserved ones and"
            f" {of_others} for others, is {free}",
            _LOCKED_OUT,
            limit,
        )
