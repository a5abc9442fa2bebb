"""The stream of four shards under load, while one of them is killed, promoted on another server and found there."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from signal import SIGKILL

import psycopg
import pytest
from harness.shards import COUNT, Shards
from harness.stream import ingest

from pipehandler.store.stream import follow

_TOGETHER = 50  # messages in one transaction


def _store(shards: Shards, shard: int, address: str, first: int, count: int) -> None:
    """Store so many messages on a shard; a transaction whose end is not known is tried again, wherever the shard is then."""
    for start in range(first, first + count, _TOGETHER):
        while True:
            try:
                with psycopg.connect(shards.of[shard].conninfo) as connection:
                    for number in range(start, min(start + _TOGETHER, first + count)):
                        ingest(connection, number, address)
                break
            except psycopg.Error:
                time.sleep(0.1)


@pytest.mark.parametrize("deliveries", [400, pytest.param(100_000, marks=pytest.mark.long)])
def test_none_is_missed_or_repeated(shards: Shards, deliveries: int) -> None:
    """Each delivery comes once, and those of one recipient in the order of their numbers."""
    addresses = shards.addresses(f"stream{deliveries}.example")
    begin = shards.proxy.value("SELECT pipehandler.cursor_now()")
    old = shards.of[2].server
    standby = old.standby(old.folder.with_name(f"standby-{deliveries}"))
    old.synchronous()
    share = deliveries // COUNT
    reader = follow(shards.proxy.server.conninfo(shards.proxy.name, "reader"), begin, poll=0.1)
    seen: dict[int, str] = {}
    repeated = []
    with standby, closing(reader), ThreadPoolExecutor(COUNT) as pool:
        writers = [
            pool.submit(_store, shards, shard, address, share * shard, share) for shard, address in enumerate(addresses)
        ]
        for delivery in reader:
            if delivery.id in seen:
                repeated.append(delivery.id)
            seen[delivery.id] = delivery.recipient
            if len(seen) == deliveries // 4:
                old.stop(SIGKILL)
                standby.promote()
                standby.psql("postgres", "ALTER SYSTEM SET synchronous_standby_names = ''")
                standby.reload()
                shards.move(2, standby)
            if len(seen) == deliveries:
                break
        for writer in writers:
            writer.result()
        stored = {
            row.id
            for shard in shards.of
            for row in shard.rows("SELECT id FROM pipehandler.delivery WHERE recipient = ANY (%s)", addresses)
        }
    old.configure({"synchronous_standby_names": ""})
    (old.data / "postgresql.auto.conf").write_text("")
    shards.move(2, old.start())
    assert repeated == []
    assert set(seen) == stored
    for address in addresses:
        numbers = [number for number, recipient in seen.items() if recipient == address]
        assert len(numbers) == share
        assert numbers == sorted(numbers)


def test_a_frozen_shard(shards: Shards) -> None:
    """A shard freezes that the stream has read before: the mail of the others goes on, and its own comes when it is back."""
    addresses = shards.addresses("frozenstream.example")
    reading = shards.proxy.server.conninfo(shards.proxy.name, "reader")
    begin = shards.proxy.value("SELECT pipehandler.cursor_now()")
    with closing(follow(reading, begin, poll=0.1)) as reader:
        _store(shards, 1, addresses[1], 1, 1)
        assert next(reader).recipient == addresses[1]
        shards.of[1].server.freeze()
        try:
            _store(shards, 2, addresses[2], 2, 1)
            other = next(reader)
        finally:
            shards.of[1].server.thaw()
    assert other.recipient == addresses[2]
    _store(shards, 1, addresses[1], 3, 1)
    with closing(follow(reading, other.cursor, poll=0.1)) as reader:  # a new session asks the shard at once
        assert next(reader).recipient == addresses[1]
