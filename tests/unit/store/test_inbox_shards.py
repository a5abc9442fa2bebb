"""The rule by which a key belongs to a shard."""

import hashlib

from pipehandler.store.inbox_shards import OCTETS, new_key, shard_of_key


def test_keys_are_drawn_for_a_shard() -> None:
    """The first octet of the digest, modulo the number of shards, as pipehandler.key_belongs_here has it."""
    for count in (1, 2, 4, 8, 16, 32):
        keys = [new_key(shard, count) for shard in range(count)]
        assert [shard_of_key(key, count) for key in keys] == list(range(count))
        assert [hashlib.sha256(key).digest()[0] & (count - 1) for key in keys] == list(range(count))
        assert {len(key) for key in keys} == {OCTETS}
        assert len({*keys, *(new_key(shard, count) for shard in range(count))}) == 2 * count
