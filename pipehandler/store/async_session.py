"""A connection for asyncio whose session states the same about itself as every other one (store/session.py)."""

from typing import Any

import psycopg

from .conninfo import parameters
from .session import is_refused, statement_of_settings, with_settings

_APPLICATION = "pipehandler web"
_DEFAULTS = {"connect_timeout": 5, "keepalives_idle": 30, "keepalives_interval": 5, "keepalives_count": 3}  # seconds


class AsyncSession(psycopg.AsyncConnection[Any]):
    """Connected with `connect_session`, or by a pool with `arguments` as its kwargs."""

    @classmethod
    async def connect(cls, conninfo: str = "", **arguments: Any) -> "AsyncSession":
        """Connect as psycopg does, and state the settings where a pooler has dropped or refuses `options`."""
        try:
            connection = await super().connect(conninfo, **arguments)
        except psycopg.OperationalError as error:
            if not is_refused(error):
                raise
            connection = await super().connect(conninfo, **{**arguments, "options": ""})
        try:
            if statement := statement_of_settings(connection.info, _TIMEOUTS):
                await connection.execute(*statement)
        except BaseException:
            await connection.close()
            raise
        return connection


_TIMEOUTS = {"statement_timeout": 10_000, "lock_timeout": 5_000}
"""Milliseconds."""


def arguments(conninfo: str) -> dict[str, Any]:
    """The arguments of `AsyncSession.connect`. Raises StoreError (misconfigured) if libpq cannot parse `conninfo`."""
    settings = {**_DEFAULTS, "application_name": _APPLICATION, **parameters(conninfo)}
    return {
        **with_settings(settings, _TIMEOUTS),
        "client_encoding": "utf8",
        "autocommit": True,
        "prepare_threshold": None,
    }
