"""Four shards and their proxy: five clusters of the server that has PL/Proxy."""

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import psycopg

from pipehandler.store.connection import Store
from pipehandler.store.shards import make_shards, proxy_conninfo

from .database import Database
from .missing import missing
from .postgresql import FAST, PostgreSQL

COUNT = 4
PROXY_VERSION = 15
"""Debian's server, for which there is a package of PL/Proxy."""

_CONTROL = Path(f"/usr/share/postgresql/{PROXY_VERSION}/extension/plproxy.control")
ROLE = "pipehandler_proxy"
"""As which the proxy connects to the shards."""


class Shards:
    """A sharded database. `proxy` is what handlers, Postfix and readers connect to; `of`, the shards by their number."""

    def __init__(self, proxy: Database, of: list[Database]) -> None:
        self.proxy = proxy
        self.of = of

    def number(self, address: str) -> int:
        """The shard of an address."""
        return int(self.proxy.value("SELECT (pipehandler.route(ARRAY[%s], '+'))[1]", address))

    def addresses(self, domain: str = "example.com", prefix: str = "user") -> list[str]:
        """An address on each shard, in the order of the shards."""
        names = [f"{prefix}{n}@{domain}" for n in range(100)]
        numbers = self.proxy.value("SELECT pipehandler.route(%s, '+')", names)
        return [names[numbers.index(number)] for number in range(COUNT)]

    def move(self, number: int, server: PostgreSQL) -> None:
        """Let the proxy find a shard on another server."""
        self.of[number].move(server)
        self.proxy.execute(f"ALTER SERVER pipehandler OPTIONS (SET p{number} E'{_options(self.of[number])}')")

    def revive(self) -> None:
        """Start the servers that are stopped."""
        for database in (self.proxy, *self.of):
            try:
                psycopg.connect(database.admin).close()
            except psycopg.OperationalError:
                database.server.start()

    def deliveries(self) -> list[str]:
        """The recipients of all deliveries, with the number of the shard that has each."""
        return sorted(
            f"{number} {row.recipient}"
            for number, shard in enumerate(self.of)
            for row in shard.rows("SELECT recipient FROM pipehandler.delivery")
        )


@contextmanager
def sharded(folder: Path, **settings: str) -> Iterator[Shards]:
    """A new sharded database, each part of which is a server of its own in `folder`."""
    if not _CONTROL.exists():
        missing("PL/Proxy (postgresql-15-plproxy)")
    with ExitStack() as stack:
        names = ["proxy", *(f"shard{number}" for number in range(COUNT))]
        template = _migrated(folder / "template")
        servers = [PostgreSQL(folder / name, PROXY_VERSION, {**FAST, **settings}, data=template) for name in names]
        databases = [stack.enter_context(Database.fresh(stack.enter_context(server).start())) for server in servers]
        proxy, *shards = databases
        with closing(Store(proxy.admin, statement_timeout=100)) as store:
            make_shards(store, proxy.admin, [shard.admin for shard in shards], "+", ROLE, print)
        yield Shards(proxy, shards)


def _migrated(folder: Path) -> Path:
    """The data of a server that has the migrated template and the login roles: copied five times, it is migrated once."""
    server = PostgreSQL(folder, PROXY_VERSION, FAST).start()
    with Database.fresh(server):
        pass
    server.stop()
    return server.data


def _options(database: Database) -> str:
    return proxy_conninfo(database.admin).replace("\\", "\\\\").replace("'", "''")
