"""libpq connection strings (PostgreSQL documentation, 34.1.1), as key=value pairs or as a URI.

libpq itself parses them and knows which parameters are secrets, so both forms are treated alike. It also reads the service
that they may name (pg_service.conf, 34.17), so its hosts are resolved and shown like others.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo

from ..mail.outcome import MISCONFIGURED
from .errors import StoreError

_LOCATION = ("host", "hostaddr", "port", "sslmode", "sslrootcert")
_SERVICE = ("service", "servicefile")
_SECRET = b"*"  # libpq: a value that a dialogue should not show


def parameters(conninfo: str) -> dict[str, Any]:
    """The parameters that `conninfo` sets, and its service beside them. Raises StoreError (misconfigured) if libpq cannot parse
    it."""
    try:
        found: dict[str, Any] = dict(conninfo_to_dict(conninfo))
    except psycopg.ProgrammingError as error:
        reason = f"database.conninfo is not a libpq connection string: {str(error).strip()}"
        raise StoreError(MISCONFIGURED, reason) from error
    service, file = found.get("service") or os.environ.get("PGSERVICE"), found.get("servicefile")
    return {**_of_service(service, file), **found} if service else found


def has_several_servers(conninfo: str) -> bool:
    """Whether `conninfo` names more than one server, of which one is the primary. Raises StoreError."""
    settings = parameters(conninfo)
    return any("," in str(settings.get(name) or "") for name in ("host", "hostaddr", "port"))


def uri(conninfo: str) -> str:
    """Where the database of `conninfo` is, as a URI for other programs: without user and secrets. Raises StoreError."""
    settings = parameters(conninfo)
    location = {name: str(settings[name]) for name in _LOCATION if settings.get(name)} or {"host": "/run/postgresql"}
    # A comma between hosts would end the URI for pgsql_table(5).
    database = quote(str(settings.get("dbname") or ""), "")
    return f"postgresql:///{database}?{urlencode(location, quote_via=quote, safe='/')}"


def for_user(conninfo: str, user: str) -> str:
    """`conninfo` for another user, without the secrets of the first one. Raises StoreError."""
    return make_conninfo(without_secrets(conninfo), user=user)


def without_secrets(conninfo: str) -> str:
    """`conninfo` without what is secret in it, and without a passfile. Raises StoreError."""
    secret = {option.keyword.decode() for option in Conninfo.get_defaults() if option.dispchar == _SECRET} | {
        "passfile"
    }
    return make_conninfo("", **{name: value for name, value in parameters(conninfo).items() if name not in secret})


def located(conninfo: str, database: str = "", user: str = "") -> str:
    """Where the server of `conninfo` is, with another database and user where they are given. Raises StoreError."""
    settings = {name: value for name, value in parameters(conninfo).items() if name in _LOCATION}
    return make_conninfo(
        "", **settings, **({"dbname": database} if database else {}), **({"user": user} if user else {})
    )


def has_secret(conninfo: str) -> bool:
    """Whether `conninfo` itself contains a password. False for one that libpq cannot parse."""
    try:
        return bool(_secrets(conninfo))
    except psycopg.OperationalError:
        return False


def is_local(conninfo: str) -> bool:
    """Whether `conninfo` names this host's socket alone, where peer authentication works. Raises StoreError."""
    settings = parameters(conninfo)
    hosts = str(settings.get("host") or "").split(",")
    # A name that begins with @ is a socket in the abstract namespace.
    return not settings.get("hostaddr") and all(not host or host[0] in "/@" for host in hosts)


def _of_service(name: str, file: str | None) -> dict[str, str]:
    """What the service adds; nothing where there is no such service, which libpq reports when it connects."""
    with _environment(PGSERVICE=None):
        without = _defaults()
    with _environment(PGSERVICE=name, **({"PGSERVICEFILE": file} if file else {})):
        found = _defaults()
    return {key: value for key, value in found.items() if value != without.get(key) and key not in _SERVICE}


def _defaults() -> dict[str, str]:
    return {
        option.keyword.decode(): option.val.decode() for option in Conninfo.get_defaults() if option.val is not None
    }


@contextmanager
def _environment(**changes: str | None) -> Iterator[None]:
    """Variables that libpq reads, for a moment."""
    before = {name: os.environ.get(name) for name in changes}
    _set(changes)
    try:
        yield
    finally:
        _set(before)


def _set(variables: dict[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _secrets(conninfo: str) -> set[str]:
    options = Conninfo.parse(conninfo.encode())
    return {option.keyword.decode() for option in options if option.val and option.dispchar == _SECRET}
