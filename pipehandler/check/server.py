"""Check the server's settings: whether commits are durable, and whether its log keeps mail out."""

from collections.abc import Iterator
from typing import Any

from pipehandler.store.connection import Store

from .finding import Finding
from .role import quoted

CLOCK = 5.0
"""Seconds by which the clocks of the two hosts may differ."""

_OLDEST = 140000

_SETTINGS = {
    "fsync": ("on", ("off",), "After a power failure committed mail may be gone, and the whole database with it."),
    "full_page_writes": ("on", ("off",), "After a power failure half-written pages may make the database unreadable."),
    "synchronous_commit": (
        "on",
        ("off", "local"),
        "`ingest` raises it for its message. What else is committed may be lost in a crash (off) or a fail-over (local).",
    ),
    "session_replication_role": (
        "origin",
        ("replica",),
        "Foreign keys and triggers do nothing: what belongs to a message can go without it, or stay when it is removed.",
    ),
    "default_transaction_read_only": ("off", ("on",), "Nothing can be stored: every message would be deferred."),
}
"""The value that each setting should have, those that are reported, and their effect; any other value is accepted."""


def check_clock(server: float, before: float, after: float) -> Iterator[Finding]:
    """Compare the server's clock with ours. server: its time, queried between our times `before` and `after`."""
    ahead = max(server - after, before - server)
    if ahead > CLOCK:
        yield Finding(
            "clock",
            f"the clocks of this host and of the database server differ by {ahead:.0f} s",
            "Times of reception are wrong, and messages from several mail hosts are in the wrong order.",
            "timedatectl set-ntp true",
        )


def check_server(store: Store, about: dict[str, Any]) -> Iterator[Finding]:
    """Check the server and its settings for the role that `store` connects as. about: the row that check_database queried."""
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
            "Characters that the encoding lacks cannot be stored: such messages are kept without being parsed.",
            f"CREATE DATABASE {quoted(about['database'] + '_utf8')} ENCODING 'UTF8' TEMPLATE template0;",
        )
    if about["standby"]:
        yield Finding(
            "standby",
            "this server is a standby",
            "It is read-only: every message would be deferred.",
            "# name all servers in database.conninfo (host=one,two), with target_session_attrs=read-write",
        )
    yield from _settings(store, about)
    yield from _logged(store, about)


_LOGGED = """
SELECT current_setting('log_parameter_max_length')::integer AS length,
       current_setting('log_parameter_max_length_on_error')::integer AS length_on_error,
       current_setting('log_statement') AS statement,
       current_setting('log_min_duration_statement')::integer AS duration,
       current_setting('log_min_duration_sample')::integer AS sample,
       current_setting('log_transaction_sample_rate')::float8 AS transactions,
       coalesce(current_setting('auto_explain.log_min_duration', true)::integer, -1) AS explained,
       coalesce(current_setting('auto_explain.log_parameter_max_length', true)::integer, 0) AS explained_length
"""


def _logged(store: Store, about: dict[str, Any]) -> Iterator[Finding]:
    """Report settings by which the server logs the parameters of a statement: whole messages."""
    (row,) = store.rows(_LOGGED)
    logs = [
        f"{name} is {value}"
        for name, value, does in (
            ("log_statement", row["statement"], row["statement"] in ("mod", "all")),
            ("log_min_duration_statement", f"{row['duration']} ms", row["duration"] >= 0),
            ("log_min_duration_sample", f"{row['sample']} ms", row["sample"] >= 0),
            ("log_transaction_sample_rate", row["transactions"], row["transactions"] > 0),
        )
        if does and row["length"]
    ]
    names = ["log_parameter_max_length"] if logs else []
    if row["length_on_error"]:
        logs.append(f"log_parameter_max_length_on_error is {row['length_on_error']}")
        names.append("log_parameter_max_length_on_error")
    if row["explained"] >= 0 and row["explained_length"]:
        logs.append(f"auto_explain.log_min_duration is {row['explained']} ms")
        names.append("auto_explain.log_parameter_max_length")
    if logs:
        yield Finding(
            "messages-in-log",
            f"{', and '.join(logs)} for role {about['role']}: the server logs the parameters of statements",
            "Whole messages are written into PostgreSQL's log, in clear, six times their size.",
            " ".join(f"ALTER ROLE {quoted(about['role'])} SET {name} = 0;" for name in names),
        )


def _settings(store: Store, about: dict[str, Any]) -> Iterator[Finding]:
    names = list(_SETTINGS)
    for row in store.rows("SELECT name, setting, source FROM pg_settings WHERE name = ANY (%s)", [names]):
        good, bad, detail = _SETTINGS[row["name"]]
        if row["setting"] not in bad:
            continue
        role, database = quoted(about["role"]), quoted(about["database"])
        writing = "SET default_transaction_read_only = off; " if row["name"] == "default_transaction_read_only" else ""
        fix = {
            "user": f"ALTER ROLE {role} RESET {row['name']};",
            # A session with default_transaction_read_only may not even change that.
            "database": f"{writing}ALTER DATABASE {database} RESET {row['name']};",
            "database user": f"ALTER ROLE {role} IN DATABASE {database} RESET {row['name']};",
            "global": f"{writing}ALTER ROLE ALL RESET {row['name']};",
            "client": f"# remove {row['name']} from the options in database.conninfo",
            "command line": f"# remove {row['name']} from the server's command line, and restart the server",
        }.get(row["source"], f"ALTER SYSTEM SET {row['name']} = {good}; SELECT pg_reload_conf();")
        yield Finding(
            row["name"].replace("_", "-"), f"{row['name']} is {row['setting']} ({row['source']})", detail, fix
        )
