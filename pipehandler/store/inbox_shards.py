"""Where the inbox page finds an inbox: the databases that it connects to, and the rule by which a key belongs to one of them.

On a single database every key belongs to it. On shards the digest of a key decides, as the address does about the mail: so keys
are drawn until theirs is the shard of the address. The rule is also in SQL (pipehandler.key_belongs_here).
"""

import secrets
from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple

from psycopg.rows import dict_row

from ..mail.outcome import STORE_UNAVAILABLE
from .async_session import AsyncSession, arguments
from .errors import StoreError, translated
from .shards import Shard

OCTETS = 32
"""The length of a key."""

_SHARDS = "SELECT s.shard, s.shards, s.conninfo FROM pipehandler.inbox_shards() AS s"


class Places(NamedTuple):
    """The databases behind a connection string. shards: how many there are; 1: the database is not sharded. conninfos: of each
    database, by its number: of all shards, or of one alone if it was named itself."""

    shards: int
    conninfos: Mapping[int, str]


async def places(conninfo: str) -> Places:
    """Ask a database, or the proxy of shards, where inboxes are. Raises StoreError."""
    with translated():
        connection = await AsyncSession.connect(**arguments(conninfo))
        try:
            cursor = connection.cursor(row_factory=dict_row)
            rows = await (await cursor.execute(_SHARDS)).fetchall()
        finally:
            await connection.close()
    if not rows:
        return Places(1, {0: conninfo})
    if any(row["shard"] is None for row in rows):
        raise StoreError(STORE_UNAVAILABLE, "this proxy was not migrated: run pipehandler migrate")
    found = [Shard(row["shard"], row["conninfo"]) for row in rows]
    own = {shard.number: shard.own(conninfo) if shard.conninfo else conninfo for shard in found}
    return Places(rows[0]["shards"], own)


def shard_of_key(key: bytes, count: int) -> int:
    """The shard of a key, from 0, of so many."""
    return sha256(key).digest()[0] % count


def new_key(shard: int = 0, count: int = 1) -> bytes:
    """A new key of a shard, of so many: OCTETS random octets."""
    while True:
        key = secrets.token_bytes(OCTETS)
        if shard_of_key(key, count) == shard:
            return key
