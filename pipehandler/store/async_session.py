"""A connection for asyncio whose session states the same about itself as every other one (store/session.py).

A server that is frozen, or a host that is gone, neither answers nor ends a connection, and its statement_timeout is of no use.
So a session gives up by itself, and is closed.
"""

import asyncio
import os
import socket
from typing import Any

import psycopg

from .conninfo import parameters
from .session import is_refused, statement_of_settings, with_settings

_APPLICATION = "pipehandler web"
_DEFAULTS = {"connect_timeout": 5, "keepalives_idle": 30, "keepalives_interval": 5, "keepalives_count": 3}  # seconds


class AsyncSession(psycopg.AsyncConnection[Any]):
    """Connected with `arguments`, or by a pool with them as its kwargs.

    patience: seconds to wait for the server each time; longer than statement_timeout, which a server that works keeps to.
    """

    patience = 12.0

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

    async def wait(self, *waited: Any, **arguments: Any) -> Any:
        """Wait for the server as psycopg does. After `patience`, raise psycopg.OperationalError; the connection is lost then."""
        seconds, given_up = self.patience, False

        def give_up() -> None:
            nonlocal given_up
            given_up = True
            # psycopg would ask a server that does not answer to cancel; the end of the connection it notices at once.
            with socket.socket(fileno=os.dup(self.fileno())) as connected:
                connected.shutdown(socket.SHUT_RDWR)

        timer = asyncio.get_running_loop().call_later(seconds, give_up)
        try:
            return await super().wait(*waited, **arguments)
        except psycopg.OperationalError as error:
            if given_up:
                raise psycopg.OperationalError(f"the server did not answer for {seconds:g} s") from error
            raise
        finally:
            timer.cancel()


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
