"""Is the server set so that a commit is a commit, and so that all deliveries find a connection?"""

from collections.abc import Iterator
from typing import Any

from pipehandler.settings.config import Config
from pipehandler.store.connection import Store

from .finding import Finding
from .role import quoted

CLOCK = 5.0
"""Seconds by which the clocks of the two hosts may differ."""

_OLDEST = 140000

_SETTINGS = {
    "fsync": ("on", "After a power failure committed mail may be gone, and the whole database with it."),
    "full_page_writes": ("on", "After a power failure half-written pages may make the database unreadable."),
    "synchronous_commit": (
        "on",
        "A commit is confirmed before it is on disk: Postfix forgets mail that a crash of the server loses.",
    ),
    "default_transaction_read_only": ("off", "Nothing can be stored: every message would be deferred."),
}
"""What a setting should be (anything else than its opposite is good, too), and why."""

_OPPOSITE = {"on": "off", "off": "on"}


def check_clock(server: float, before: float, after: float) -> Iterator[Finding]:
    """Compare two clocks. server: its time, asked for between our times `before` and `after`."""
    ahead = max(server - after, before - server)
    if ahead > CLOCK:
        yield Finding(
            "clock",
            f"the clocks of this host and of the database server differ by {ahead:.0f} s",
            "Times of reception are wrong, and messages of several mail hosts come in a wrong order.",
            "timedatectl set-ntp true",
        )


def check_server(store: Store, about: dict[str, Any]) -> Iterator[Finding]:
    """What the server is, and how it is set for the role that `store` connects as. about: what check_database asked it."""
    if about["number"] < _OLDEST:
        yield Finding(
            "server-version",
            f"the server is PostgreSQL {about['version']}",
            "The schema needs PostgreSQL 14 or newer.",
            "# upgrade the server",
        )
    if about["encoding"] != "UTF8":
        yield Finding(
            "server-encoding",
            f"the encoding of database {about['database']} is {about['encoding']}",
            "Text that it does not have cannot be stored: such messages are kept without being parsed.",
            f"CREATE DATABASE {quoted(about['database'] + '_utf8')} ENCODING 'UTF8' TEMPLATE template0;",
        )
    if about["standby"]:
        yield Finding(
            "standby",
            "this server is a standby",
            "Nothing can be stored on it: every message would be deferred.",
            "# name all servers in database.conninfo (host=one,two), with target_session_attrs=read-write",
        )
    yield from _settings(store, about)


def _settings(store: Store, about: dict[str, Any]) -> Iterator[Finding]:
    names = list(_SETTINGS)
    for row in store.rows("SELECT name, setting, source FROM pg_settings WHERE name = ANY (%s)", [names]):
        good, why = _SETTINGS[row["name"]]
        if row["setting"] != _OPPOSITE[good]:
            continue
        role, database = quoted(about["role"]), quoted(about["database"])
        mend = {
            "user": f"ALTER ROLE {role} RESET {row['name']};",
            "database": f"ALTER DATABASE {database} RESET {row['name']};",
            "database user": f"ALTER ROLE {role} IN DATABASE {database} RESET {row['name']};",
            "global": f"ALTER ROLE ALL RESET {row['name']};",
            "client": f"# take {row['name']} out of the options in database.conninfo",
            "command line": f"# take {row['name']} out of the server's command line, and start it again",
        }.get(row["source"], f"ALTER SYSTEM SET {row['name']} = {good}; SELECT pg_reload_conf();")
        yield Finding(row["name"].replace("_", "-"), f"{row['name']} is {row['setting']} ({row['source']})", why, mend)


def check_connections(about: dict[str, Any], config: Config, maxproc: int) -> Iterator[Finding]:
    """Whether there are connections for all that may want one. maxproc: as for check_handler."""
    # While the service reloads there are twice as many workers.
    needed = maxproc + 2 * config.serve.workers
    limits = (
        (
            about["connections"],
            "max_connections, without those reserved,",
            # Others connect as well. In the server's configuration, because it may be read only at a start.
            f"ALTER SYSTEM SET max_connections = {needed + 50}; -- and restart the server",
        ),
        (
            about["of_role"],
            f"the connection limit of role {about['role']}",
            f"ALTER ROLE {quoted(about['role'])} CONNECTION LIMIT -1;",
        ),
        (
            about["of_database"],
            f"the connection limit of database {about['database']}",
            f"ALTER DATABASE {quoted(about['database'])} CONNECTION LIMIT -1;",
        ),
    )
    for limit, name, mend in limits:
        if 0 <= limit < needed:
            yield Finding(
                "connections",
                f"{name} is {limit}; the transport ({maxproc} processes) and {config.serve.workers} workers may need {needed}",
                "In a burst of mail messages are deferred because there is no connection left.",
                mend,
            )
