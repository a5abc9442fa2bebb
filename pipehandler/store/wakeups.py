"""One connection that waits for notifications, for a program that serves many readers (LISTEN).

A notification is a hint: whoever waits here queries afterwards, and queries now and then without one. Nothing is notified on a
standby, nor behind PgBouncer in transaction mode; `heard` says so, and the caller queries more often.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress

import psycopg

from ..mail.outcome import STORE_UNAVAILABLE
from .async_session import AsyncSession, arguments
from .errors import READ_ONLY_SQL_TRANSACTION, NotConnected, StoreError, translated
from .notify import CHANNEL

ARRIVED = CHANNEL
"""The channel for new mail."""

CHANGED = "pipehandler_inbox"
"""The channel for changed leases and keys."""


class Wakeups:
    """A connection that listens; opened by `open`, and again after it was lost.

    heard: whether notifications arrive here.
    """

    def __init__(self, conninfo: str, channels: Iterable[str] = (ARRIVED, CHANGED)) -> None:
        self._conninfo = conninfo
        self._channels = tuple(channels)
        self._connection: AsyncSession | None = None
        self._arrived = asyncio.Event()
        self._noted: set[str] = set()
        self.heard = False

    async def open(self) -> None:
        """Connect and listen, if there is no connection. Raises StoreError."""
        if self._connection is not None:
            if not self._connection.closed:
                return
            await self.close()
        with translated():
            connection = await AsyncSession.connect(**arguments(self._conninfo))
        self._connection = connection
        connection.add_notify_handler(self._note)
        try:
            self.heard = await self._listen(connection)
        except BaseException:
            await self.close()
            raise

    async def _listen(self, connection: AsyncSession) -> bool:
        try:
            with translated():
                for channel in self._channels:
                    await connection.execute(f"LISTEN {channel}")
                (pid,) = await (await connection.execute("SELECT pg_backend_pid()")).fetchone() or (0,)
        except StoreError as error:
            if error.sqlstate == READ_ONLY_SQL_TRANSACTION:
                return False
            raise
        # A pooler gives out numbers of its own, and may pass our LISTEN to a session that it then gives to others.
        return bool(pid == connection.info.backend_pid)

    async def wait(self, seconds: float) -> set[str]:
        """Wait for a notification, at most `seconds`; return the channels notified since the last call.

        Raises StoreError if the connection ended.
        """
        connection = self._connection
        if connection is None or connection.closed:
            raise NotConnected(STORE_UNAVAILABLE, "the connection that listens has ended")
        if not self._noted:
            loop, descriptor = asyncio.get_running_loop(), connection.fileno()
            self._arrived.clear()
            loop.add_reader(descriptor, self._arrived.set)
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self._arrived.wait()
            finally:
                loop.remove_reader(descriptor)
            with translated():
                connection.pgconn.consume_input()
                while notification := connection.pgconn.notifies():
                    self._noted.add(notification.relname.decode("utf-8", "replace"))
        noted, self._noted = self._noted, set()
        return noted

    def interrupt(self) -> None:
        """End the present `wait`."""
        self._arrived.set()

    def note(self, channel: str) -> None:
        """Take a channel for notified: what concerns this database was notified elsewhere."""
        self._noted.add(channel)
        self._arrived.set()

    def move(self, conninfo: str) -> None:
        """Connect to another place the next time: the database has moved."""
        self._conninfo = conninfo

    def _note(self, notification: psycopg.Notify) -> None:
        self.note(notification.channel)

    async def close(self) -> None:
        """End the connection."""
        connection, self._connection, self.heard = self._connection, None, False
        if connection is not None:
            with suppress(psycopg.Error):
                await connection.close()
