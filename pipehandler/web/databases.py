"""The databases of the page: one, or the shards behind a proxy. Which of them has what a key opens.

The page asks the proxy where the shards are, and then each of them itself. Each has its own connections and its own streams, so
one that is away or frozen holds up nobody whose inbox is elsewhere.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

from pipehandler.mail.outcome import STORE_UNAVAILABLE
from pipehandler.store.errors import INSUFFICIENT_PRIVILEGE, NotConnected, StoreError
from pipehandler.store.inbox_errors import KeyRefused
from pipehandler.store.inbox_shards import new_key, places, shard_of_key
from pipehandler.store.inboxes import Inboxes
from pipehandler.store.wakeups import ARRIVED, Wakeups

from .hub import Hub, LookUp

_log = logging.getLogger(__name__)

_AGAIN = 2.0  # seconds until the proxy is asked once more where the shards are, while one is away
_LONGEST = 60.0  # seconds for which the proxy is listened to at once


class Database:
    """One database: its pool, the connection that listens, and the streams that wait for its mail.

    turns: taken by what streams fetch, so that a wake of all of them leaves a connection to the pages. searches: taken by searches,
    each of which may take seconds.
    """

    def __init__(
        self, number: int, name: str, conninfo: str, connections: int, look_up: LookUp, announced: Callable[[], bool]
    ) -> None:
        self.number = number
        self.conninfo = conninfo
        self._inboxes = Inboxes(conninfo, connections)
        self.wakeups = Wakeups(conninfo)
        self.hub = Hub(self._inboxes, self.wakeups, look_up, name, announced)
        self.turns = asyncio.Semaphore(max(1, connections - 1))
        self.searches = asyncio.Semaphore(max(1, connections // 2))

    @property
    def inboxes(self) -> Inboxes:
        """What can be asked of it. Raises NotConnected while it is known to be away, so that nobody waits for that."""
        if self.hub.away:
            raise NotConnected(STORE_UNAVAILABLE, f"{self.hub.name} is away")
        return self._inboxes

    async def open_pool(self) -> None:
        """Start connecting."""
        await self._inboxes.open_pool()

    async def move(self, conninfo: str) -> None:
        """Connect to another place from now on."""
        self.conninfo = conninfo
        self.wakeups.move(conninfo)
        await self._inboxes.move(conninfo)

    async def close(self) -> None:
        """End all connections."""
        await self.wakeups.close()
        await self._inboxes.close()


class Databases:
    """All databases of the page. `run` serves them; until it knows them, every look-up raises NotConnected.

    count: how many shards there are, 1 on a single database. all: those that the page reaches, by their number. closing: the
    program stops, and every stream has to end.
    """

    def __init__(self, conninfo: str, connections: int, look_up: LookUp) -> None:
        self._conninfo = conninfo
        self._connections = connections
        self._look_up = look_up
        self._proxy = Wakeups(conninfo, (ARRIVED,))
        self._unknown = ""
        self.count = 1
        self.all: dict[int, Database] = {}
        self.closing = False

    # Which one.

    def home(self, key: bytes) -> Database:
        """The database where the inbox of a key is. Raises KeyRefused for a key of a shard that the page does not serve."""
        return self.numbered(self.number(key))

    def number(self, key: bytes) -> int:
        """The number of that database."""
        return shard_of_key(key, self.count)

    def of_delivery(self, delivery: int) -> Database:
        """The database that has a delivery: the number of each leaves that of its shard."""
        return self.numbered(delivery % self.count)

    def known(self) -> Sequence[Database]:
        """All of them. Raises NotConnected until they are known."""
        if not self.all:
            raise NotConnected(STORE_UNAVAILABLE, f"no connection to the database: {self._unknown}")
        return tuple(self.all.values())

    def reached(self) -> list[Database]:
        """Those that are not known to be away, in any order; all of them if they all are. Raises NotConnected."""
        databases = random.sample(self.known(), len(self.all))
        return [database for database in databases if not database.hub.away] or databases

    def new_key(self, database: Database) -> bytes:
        """A new key of this database."""
        return new_key(database.number, self.count)

    def numbered(self, number: int) -> Database:
        """The database with this number. Raises KeyRefused where the page does not serve it."""
        self.known()
        if number not in self.all:
            raise KeyRefused(STORE_UNAVAILABLE, "this key opens no inbox here", INSUFFICIENT_PRIVILEGE)
        return self.all[number]

    # Their state.

    @property
    def up(self) -> list[bool]:
        """Whether each answered the last time, in the order of their numbers; [False] until they are known."""
        return [database.hub.up for database in self.all.values()] or [False]

    @property
    def listening(self) -> bool:
        """Whether notifications arrive from all of them."""
        return bool(self.all) and all(database.hub.listening for database in self.all.values())

    @property
    def wakes(self) -> int:
        """How often a stream was woken by mail."""
        return sum(database.hub.wakes for database in self.all.values())

    # Their life.

    async def run(self) -> None:
        """Learn the databases and serve their streams, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            while True:
                if not self.all or (self.count > 1 and any(database.hub.away for database in self.all.values())):
                    try:
                        await self._learn(tasks)
                    except Exception as error:  # noqa: BLE001 # whatever it is, the page needs the next attempt
                        self._not_learned(error)
                await asyncio.sleep(_AGAIN if self.all else random.uniform(0.1, 0.5))  # noqa: S311 # jitter needs no secrecy

    async def _learn(self, tasks: asyncio.TaskGroup) -> None:
        """Ask where they are; one may have moved. Raises StoreError."""
        count, conninfos = await places(self._conninfo)
        if self.all:
            for number, database in self.all.items():
                if conninfos.get(number, database.conninfo) != database.conninfo:
                    _log.warning("%s has moved", database.hub.name)
                    await database.move(conninfos[number])
            return
        if through_proxy := [*conninfos.values()] != [self._conninfo]:
            tasks.create_task(self._hear_proxy())
        found = {}
        for number, conninfo in sorted(conninfos.items()):
            found[number] = Database(
                number,
                f"shard {number}" if count > 1 else "the database",
                conninfo,
                self._connections,
                self._look_up,
                lambda: self._proxy.heard or not through_proxy,
            )
            await found[number].open_pool()
            tasks.create_task(found[number].hub.run())
        self.count, self.all = count, found
        if self._unknown:
            _log.warning("the database is back")

    def _not_learned(self, error: Exception) -> None:
        if not self.all and not self._unknown:
            fault = None if isinstance(error, StoreError) else error
            _log.warning("the database is away: %s", error, exc_info=fault)
        self._unknown = str(error)

    async def _hear_proxy(self) -> None:
        """Wake all of them when mail has come through the proxy: what stores it notifies there."""
        while True:
            try:
                await self._proxy.open()
                if await self._proxy.wait(_LONGEST):
                    for database in self.all.values():
                        database.wakeups.note(ARRIVED)
            except Exception:  # noqa: BLE001 # as above; without it, mail appears a little later
                await self._proxy.close()
                await asyncio.sleep(_AGAIN)

    def end_streams(self) -> None:
        """Have every stream end: the program stops."""
        self.closing = True
        for database in self.all.values():
            database.hub.wake_all()

    async def close(self) -> None:
        """End all connections."""
        await self._proxy.close()
        for database in self.all.values():
            await database.close()
