"""Why a server refuses a connection: the SQLSTATE and the place in the server's code, whatever language it speaks.

libpq reports a refusal as text only, in the language of lc_messages. Its trace (PQtrace) has the fields of the server's
ErrorResponse (PostgreSQL documentation, 55.8). One SQLSTATE, invalid_authorization_specification, has several meanings; the routine tells most of them apart.
"""

import os
import re
import select
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from psycopg.conninfo import make_conninfo
from psycopg.pq import ConnStatus, PGconn, PollingStatus, abc

from .conninfo import parameters
from .errors import INVALID_AUTHORIZATION_SPECIFICATION, INVALID_PASSWORD, TOO_MANY_CONNECTIONS, StoreError

_SECONDS = 5.0
_LARGEST = 65_536  # octets of the trace that are read

_CODE = re.compile(r'ErrorResponse\t S "[^"]*" V "[^"]*" C "(\w{5})"')
_PLACE = re.compile(r' F "([^"]*)" L "(\d+)" R "([^"]*)"')
_LOGIN = "InitializeSessionUserId"  # src/backend/utils/init/miscinit.c

_DATABASES = b"SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname"

MISSING_ROLE = "the role does not exist"
NO_LOGIN = "the role may not log in"
MISSING_ROLE_OR_NO_LOGIN = "the role does not exist, or may not log in"
NO_PASSWORD = "there is no password"  # noqa: S105 # a text
ROLE_LIMIT = "the connection limit of the role"
DATABASE_LIMIT = "the connection limit of the database"
"""What `Refusal.detail` distinguishes; "" where the SQLSTATE says it all."""


class Refusal(NamedTuple):
    """The server's last answer to an attempt to connect.

    sqlstate: as in its documentation, appendix A. detail: which of several reasons with this SQLSTATE. role, database: those
    that the attempt named.
    """

    sqlstate: str
    detail: str
    role: str
    database: str


class _Answer(NamedTuple):
    sqlstate: str
    place: tuple[str, str]
    routine: str


class _Attempt(NamedTuple):
    """role, database: those that libpq chose. needs_password: the server asked for one, and there was none."""

    role: str
    database: str
    connected: bool
    needs_password: bool
    answer: _Answer | None


def refusal(conninfo: str, seconds: float = _SECONDS) -> Refusal | None:
    """Try to connect once more, for at most `seconds`; why the server refuses. None if it does not, or if there was no answer.

    Raises StoreError.
    """
    settings = {**parameters(conninfo), "connect_timeout": int(_SECONDS)}
    attempt = _attempt(make_conninfo("", **settings), seconds)
    if attempt.answer is not None:
        detail = _detail(attempt.answer, settings, seconds)
        return Refusal(attempt.answer.sqlstate, detail, attempt.role, attempt.database)
    if attempt.needs_password:
        return Refusal(INVALID_PASSWORD, NO_PASSWORD, attempt.role, attempt.database)
    return None


def advice(conninfo: str, groups: Sequence[str], seconds: float = _SECONDS) -> str:
    """What lets this account in, if the server is up and refuses its role; "" otherwise. groups: for a role that is missing."""
    try:
        refused = refusal(conninfo, seconds)
    except StoreError:
        return ""
    if refused is None or refused.sqlstate[:2] != INVALID_AUTHORIZATION_SPECIFICATION[:2]:
        return ""
    role = '"' + refused.role.replace('"', '""') + '"'
    if refused.detail in (MISSING_ROLE, MISSING_ROLE_OR_NO_LOGIN):
        return f"the server is up, and has no such role: CREATE ROLE {role} LOGIN IN ROLE {', '.join(groups)};"
    if refused.detail == NO_LOGIN:
        return f"the server is up, and the role may not log in: ALTER ROLE {role} LOGIN;"
    return (
        "the server is up, and does not let this account in: run this as root, and set database.admin_conninfo to the role"
        " of root; `pipehandler check`"
    )


def answers(conninfo: str) -> bool:
    """Whether a server answers at all, be it with a refusal. Raises StoreError."""
    attempt = _attempt(make_conninfo("", **{**parameters(conninfo), "connect_timeout": int(_SECONDS)}))
    return attempt.connected or attempt.needs_password or attempt.answer is not None


def databases(conninfo: str) -> list[str]:
    """The databases of the server, as far as the role of `conninfo` may see them; none if it cannot log in anywhere."""
    for name in ("postgres", "template1"):
        connection = PGconn.connect(make_conninfo(conninfo, dbname=name, connect_timeout=int(_SECONDS)).encode())
        try:
            if connection.status == ConnStatus.OK:
                result = connection.exec_(_DATABASES)
                return [(result.get_value(row, 0) or b"").decode("utf-8", "replace") for row in range(result.ntuples)]
        finally:
            connection.finish()
    return []


def _detail(answer: _Answer, settings: dict[str, Any], seconds: float) -> str:
    if answer.sqlstate == TOO_MANY_CONNECTIONS:
        return {_LOGIN: ROLE_LIMIT, "CheckMyDatabase": DATABASE_LIMIT}.get(answer.routine, "")
    if answer.sqlstate != INVALID_AUTHORIZATION_SPECIFICATION or answer.routine != _LOGIN:
        return ""
    # Two reasons come from one routine. A role that certainly does not exist shows which of its lines says so, unless the
    # server asks for more than a name.
    missing = _attempt(make_conninfo("", **{**settings, "user": f"pipehandler-{os.urandom(8).hex()}"}), seconds).answer
    if missing is None or missing.routine != _LOGIN:
        return MISSING_ROLE_OR_NO_LOGIN
    return MISSING_ROLE if missing.place == answer.place else NO_LOGIN


def _attempt(conninfo: str, seconds: float = _SECONDS) -> _Attempt:
    trace = os.memfd_create("pipehandler-trace")  # in memory: it may hold a password
    connection = PGconn.connect_start(conninfo.encode())
    try:
        if connection.status != ConnStatus.BAD:
            connection.trace(trace)
            _finish(connection, seconds)
            connection.untrace()
        text = os.pread(trace, _LARGEST, 0).decode("utf-8", "replace")
        connected = connection.status == ConnStatus.OK
        role, database = connection.user.decode(), connection.db.decode()
        return _Attempt(role, database, connected, connection.needs_password, _answer(text))
    finally:
        connection.finish()
        os.close(trace)


def _finish(connection: abc.PGconn, seconds: float) -> None:
    """Wait until the attempt has ended, for a limited time."""
    until = time.monotonic() + seconds
    waiting: int = PollingStatus.WRITING
    while waiting not in (PollingStatus.OK, PollingStatus.FAILED) and (left := until - time.monotonic()) > 0:
        sockets = [connection.socket]
        readers, writers = (sockets, []) if waiting == PollingStatus.READING else ([], sockets)
        if any(select.select(readers, writers, [], left)):
            waiting = connection.connect_poll()


def _answer(trace: str) -> _Answer | None:
    codes = list(_CODE.finditer(trace))
    if not codes:
        return None
    place = _PLACE.search(trace, codes[-1].end())
    file, line, routine = place.groups() if place else ("", "", "")
    return _Answer(codes[-1][1], (file, line), routine)
