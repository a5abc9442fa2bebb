"""What every session states about itself, so that no setting of the server, the database or the role changes what a
statement does.

The settings go with the connection, as libpq's `options`: there they win over ALTER DATABASE and ALTER ROLE, and cost no
round trip. PgBouncer drops or refuses `options`, or applies some of them (from 1.20 on). The server reports some settings
without being asked (PQparameterStatus); where these differ, one statement sets them all.

Not stated: default_transaction_read_only, by which operators keep writers away from a server that was replaced; and
synchronous_commit and transaction_timeout (PostgreSQL 17), which the functions that store something raise in their own
transaction (pipehandler.secure_transaction).
"""

from typing import Any

import psycopg
from psycopg.types.string import BytesBinaryDumper, StrDumperUnknown

SETTINGS = {
    "search_path": "pg_catalog, pg_temp",  # pg_temp last, or temporary objects would come first
    "DateStyle": "ISO, YMD",  # psycopg reads ISO alone; YMD is not the default, so it shows that `options` arrived
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "quote_all_identifiers": "off",  # in the definitions of functions and views, which `migrate` compares
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "row_security": "on",
    "client_min_messages": "warning",  # a commit without its standby is reported as a warning
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "idle_in_transaction_session_timeout": "1min",  # of a process that was stopped, such as `migrate`
    "idle_session_timeout": "0",  # a worker keeps its session while no mail comes
}
"""By the names under which the server reports them."""

_SPELLED = {"DateStyle": "ISO,YMD"}
"""What `options` contain instead: the server reports it as in SETTINGS. PgBouncer from 1.20 on, with
ignore_startup_parameters = options, applies the few settings that it tracks, drops the rest, and reports them as they were written."""

_REPORTED = ("DateStyle", "IntervalStyle", "TimeZone", "standard_conforming_strings")

_REFUSED = "unsupported startup parameter"
"""PgBouncer, without ignore_startup_parameters = options; it speaks English alone."""


def open_session(parameters: dict[str, Any], timeouts: dict[str, int]) -> psycopg.Connection[Any]:
    """Connect, in autocommit mode, with SETTINGS and `timeouts`. Raises psycopg's errors.

    parameters: of libpq; its `options` count where they do not contradict. timeouts: settings in milliseconds.
    """
    try:
        connection = _connect(with_settings(parameters, timeouts))
    except psycopg.OperationalError as error:
        if not is_refused(error):
            raise
        connection = _connect({**parameters, "options": ""})
    if statement := statement_of_settings(connection.info, timeouts):
        try:
            connection.execute(*statement)
        except BaseException:
            connection.close()
            raise
    return connection


def with_settings(parameters: dict[str, Any], timeouts: dict[str, int]) -> dict[str, Any]:
    """`parameters` with SETTINGS and `timeouts` in their `options`."""
    own = parameters.get("options") or ""
    options = [f"-c {name}={_escaped(value)}" for name, value in {**_texts(timeouts), **_SPELLED}.items()]
    return {**parameters, "options": " ".join([own, *options]).strip()}


def is_refused(error: psycopg.OperationalError) -> bool:
    """Whether a pooler refuses `options`."""
    return _REFUSED in str(error)


def statement_of_settings(info: psycopg.ConnectionInfo, timeouts: dict[str, int]) -> tuple[str, list[str]] | None:
    """The statement that sets what `options` should have set, and its parameters; None where these arrived."""
    if all(info.parameter_status(name) == SETTINGS[name] for name in _REPORTED):
        return None
    settings = _texts(timeouts)
    calls = ", ".join(["pg_catalog.set_config(%s, %s, false)"] * len(settings))
    return f"SELECT {calls}", [text for setting in settings.items() for text in setting]


def _texts(timeouts: dict[str, int]) -> dict[str, str]:
    return {**SETTINGS, **{name: str(value) for name, value in timeouts.items()}}


class _Octets(BytesBinaryDumper):
    """Octets as they are. psycopg's own dumper, in C, copies them, and a message may have 50 MB."""


class _Text(StrDumperUnknown):
    """Text, encoded once. psycopg's own dumper, in C, encodes it twice: into the string itself, and into a copy."""


def _connect(parameters: dict[str, Any]) -> psycopg.Connection[Any]:
    connection = psycopg.connect(autocommit=True, prepare_threshold=None, **{**parameters, "client_encoding": "utf8"})
    connection.adapters.register_dumper(bytes, _Octets)
    connection.adapters.register_dumper(str, _Text)
    return connection


def _escaped(value: str) -> str:
    """A value in libpq's `options`, where a space separates (PostgreSQL documentation, 34.1.2)."""
    return value.replace(" ", "\\ ")
