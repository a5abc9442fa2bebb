"""Check on how many servers acknowledged mail is, where a fail-over is planned."""

from collections.abc import Iterator
from typing import Any

from pipehandler.settings.config import Config
from pipehandler.store.connection import Store
from pipehandler.store.errors import INSUFFICIENT_PRIVILEGE, StoreError
from pipehandler.store.replication import replication, servers_expected

from .finding import Finding
from .role import quoted

_LOSS = (
    "A fail-over loses mail that was acknowledged and had not reached the standby yet. Postfix no longer has it, and nothing"
    " shows that it is missing."
)
_UNDER_PATRONI = "patronictl edit-config --set synchronous_mode=true"


def check_replication(store: Store, config: Config, path: str, about: dict[str, Any]) -> Iterator[Finding]:
    """Compare the servers that have a message when it is acknowledged with those that should have it.

    config: read from `path`. about: the row that check_database queried. Raises StoreError.
    """
    if about["standby"]:  # which check_server reports
        return
    try:
        found = replication(store)
    except StoreError as error:
        if error.sqlstate != INSUFFICIENT_PRIVILEGE:  # which check_role reports
            raise
        return
    expected = servers_expected(config.database.conninfo, config.database.servers, found)
    if found.servers < expected:
        names = "'*'" if expected == 2 else f"'ANY {expected - 1} (*)'"
        command = f"ALTER SYSTEM SET synchronous_standby_names = {names}; SELECT pg_reload_conf();"
        enough = found.connected >= expected - 1
        have = "one server only" if found.servers == 1 else f"{found.servers} servers only"
        yield Finding(
            "one-server-only" if found.servers == 1 else "too-few-servers",
            f"acknowledged by {have}, {expected} are expected: a commit waits for"
            f" {found.required or 'no'} synchronous standbys; {found.connected} standbys are connected",
            f"{_LOSS} If that is accepted, set database.servers = {found.servers} in {path}.",
            f"{command} -- or under Patroni: {_UNDER_PATRONI}"
            if enough
            else f"# attach a standby; then: {command} Or under Patroni: {_UNDER_PATRONI}",
        )
    if found.away:
        others = found.connected - (found.synchronous or 0)
        yield Finding(
            "standby-away",
            f"a commit waits for {found.required} synchronous standbys; {found.synchronous} are connected"
            + (f", and {others} not named or not caught up" if others else ""),
            "Nothing is acknowledged: every message is deferred until a standby is back. Until then all mail, that"
            " acknowledged before included, may be on one server only.",
            f"# {'let it catch up, or name it in synchronous_standby_names' if others else 'start the standby'}."
            " If it does not come back and one server has to do: ALTER SYSTEM SET synchronous_standby_names = ''; SELECT pg_reload_conf();",
        )
    elif found.required and found.synchronous is None:
        yield Finding(
            "replication-hidden",
            f"{about['owner']}, the owner of the database, may not see whether a synchronous standby is connected",
            "Monitoring cannot report that a standby is away before mail is deferred.",
            f"GRANT pg_read_all_stats TO {quoted(about['owner'].strip(chr(34)))};",
        )
