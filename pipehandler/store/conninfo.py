"""libpq connection strings (PostgreSQL documentation, 34.1.1), as key=value pairs or as a URI.

libpq itself parses them and knows which parameters are secrets, so both forms are treated alike.
"""

from typing import Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo

from ..mail.outcome import MISCONFIGURED
from .errors import StoreError

_LOCATION = ("host", "hostaddr", "port", "sslmode", "sslrootcert")
_SECRET = b"*"  # libpq: a value that a dialogue should not show


def parameters(conninfo: str) -> dict[str, Any]:
    """The parameters that `conninfo` sets. Raises StoreError (misconfigured) if libpq cannot parse it."""
    try:
        return dict(conninfo_to_dict(conninfo))
    except psycopg.ProgrammingError as error:
        reason = f"database.conninfo is not a libpq connection string: {str(error).strip()}"
        raise StoreError(MISCONFIGURED, reason) from error


def uri(conninfo: str) -> str:
    """Where the database of `conninfo` is, as a URI for other programs: without user and secrets. Raises StoreError."""
    settings = parameters(conninfo)
    location = {name: str(settings[name]) for name in _LOCATION if settings.get(name)} or {"host": "/run/postgresql"}
    # A comma between hosts would end the URI for pgsql_table(5).
    database = quote(str(settings.get("dbname") or ""), "")
    return f"postgresql:///{database}?{urlencode(location, quote_via=quote, safe='/')}"


def for_user(conninfo: str, user: str) -> str:
    """`conninfo` for another user, without the secrets of the first one. Raises StoreError."""
    settings = parameters(conninfo)
    secret = {*_secrets(conninfo), "passfile"}
    kept = {name: value for name, value in settings.items() if name not in secret}
    return make_conninfo("", **{**kept, "user": user})


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


def _secrets(conninfo: str) -> set[str]:
    options = Conninfo.parse(conninfo.encode())
    return {option.keyword.decode() for option in options if option.val and option.dispchar == _SECRET}
