"""Check the database with the handler's conninfo, and so with the handler's role.

Here: whether it can be reached. The server's settings are in server.py, its limits in connections.py, the rights of the role in role.py, the schema in
schema.py, and what its indexes depend on in collation.py.
"""

import shlex
import time
from typing import Any

from pipehandler.postfix.templates import PROGRAM
from pipehandler.settings.config import Config
from pipehandler.store.connection import Store
from pipehandler.store.conninfo import for_user, is_local, parameters
from pipehandler.store.errors import StoreError

from .collation import check_collation
from .connections import LIMITS, PROCESSES, check_connections, sessions
from .contents import check_contents
from .days import check_days
from .finding import Finding
from .refused import is_account, shared_role, unreachable
from .replication import check_replication
from .restored import check_restored
from .role import check_role
from .schema import check_schema
from .server import check_clock, check_server
from .shards import check_shards

_ABOUT = """
SELECT current_user::text AS role, current_database()::text AS database, d.datdba::regrole::text AS owner,
       current_setting('server_version_num')::int AS number, current_setting('server_version') AS version,
       current_setting('server_encoding') AS encoding, pg_is_in_recovery() AS standby,
       extract(epoch FROM clock_timestamp())::float8 AS clock,
       (SELECT rolname::text FROM pg_roles WHERE rolsuper ORDER BY oid LIMIT 1) AS superuser,
       EXISTS (SELECT FROM pg_namespace WHERE nspname = 'pipehandler') AS schema
  FROM pg_database d
 WHERE d.datname = current_database()
"""


def check_database(config: Config, path: str, maxproc: int) -> list[Finding]:
    """Check the database that `config`, read from `path`, names. maxproc: as for check_handler."""
    store = Store(config.database.conninfo, config.database.connect_timeout, config.database.statement_timeout)
    try:
        try:
            store.connect()
        except StoreError as error:
            limit = sessions(config, maxproc or PROCESSES)
            return [unreachable(config.database.conninfo, error, path, limit=limit)]
        before = time.time()
        (about,) = store.rows(_ABOUT)
        after = time.time()
        (limits,) = store.rows(LIMITS)
        findings = [
            *check_clock(about["clock"], before, after),
            *check_server(store, about),
            *check_connections(limits, about["role"], about["database"], config, path, maxproc),
        ]
        if not about["schema"]:
            return [*findings, _migrate("schema-missing", "there is no schema pipehandler", config, about, path)]
        of_schema = check_schema(store, lambda code, what: _migrate(code, what, config, about, path))
        of_role = check_role(store, about["superuser"])
        if of_role and about["role"] == _role_of_commands(config):
            # The other fixes would limit that role, or take its rights away, and the commands would fail.
            kept = [finding for finding in findings if finding.code != "connection-limit"]
            return [*kept, shared_role(about["role"], path)]
        return [
            *findings,
            *of_role,
            *of_schema,
            *check_shards(store, config, path),
            *check_collation(store, about),
            *([] if of_schema else check_replication(store, config, path, about)),
            *([] if of_schema else check_days(store, path)),
            *([] if of_schema or of_role else check_contents(store)),
            *([] if of_schema else check_restored(store, lambda name: _as_owner(name, config, about, path))),
        ]
    except StoreError as error:
        return [
            Finding(
                "database-fails",
                f"a query failed: {error} (SQLSTATE {error.sqlstate})",
                "Messages would be deferred (4.3.0 message store unavailable).",
                "# read the server's log",
            )
        ]
    finally:
        store.close()


def _role_of_commands(config: Config) -> str:
    """Return the role that database.admin_conninfo names; "" if there is none."""
    return str(parameters(config.database.admin_conninfo).get("user", "")) if config.database.admin_conninfo else ""


def _migrate(code: str, what: str, config: Config, about: dict[str, Any], path: str) -> Finding:
    """Return a finding whose fix runs `migrate`."""
    effect = "Every message would be deferred (4.3.0 message store unavailable)."
    return Finding(code, what, effect, _as_owner("migrate", config, about, path))


def _as_owner(command: str, config: Config, about: dict[str, Any], path: str) -> str:
    """Return the line that runs a command as the owner of the database, without any password in it."""
    conninfo, owner = config.database.conninfo, about["owner"].strip('"')
    local = ["runuser", "-u", owner, "--"] if is_local(conninfo) and is_account(owner) else []
    return shlex.join([*local, PROGRAM, "--config", path, "--conninfo", for_user(conninfo, owner), command])
