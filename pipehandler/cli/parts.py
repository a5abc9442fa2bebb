"""Commands that work on a whole database, be it one or several shards."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import NamedTuple

import click

from pipehandler.store.connection import Store
from pipehandler.store.errors import StoreError
from pipehandler.store.shards import shard_of_lease, shards

from .command import LOCK_SECONDS, STATEMENT_SECONDS, chosen_conninfo
from .upkeep import hint_for, opened_for_upkeep


class Parts(NamedTuple):
    """The parts of a database: itself, or its shards, in the order of their numbers. front: what the options name."""

    front: Store
    stores: list[Store]

    def home(self, lease: str) -> int:
        """The number of the part that has a lease, or would have it. lease: its number, or its address. Raises StoreError."""
        return 0 if len(self.stores) == 1 else shard_of_lease(self.front, lease, len(self.stores))


@contextmanager
def opened_parts(context: click.Context) -> Iterator[Parts]:
    """Open the parts of the database that the options name; a shard is connected to when it is needed."""
    with opened_for_upkeep(context, of_proxy=True) as front, ExitStack() as stack:
        found = shards(front)
        conninfo = chosen_conninfo(context) if found else ""
        stores = [
            stack.enter_context(closing(Store(shard.own(conninfo), statement_timeout=STATEMENT_SECONDS)))
            for shard in found
        ]
        for store in stores:
            store.longest_lock = LOCK_SECONDS
        yield Parts(front, stores or [front])


def on_each(parts: Parts, work: Callable[[Store], object]) -> list[str]:
    """Call `work` with each part. Returns a line for each shard that failed; the others go on."""
    if len(parts.stores) == 1:
        work(parts.front)
        return []
    failed: list[str] = []
    for number, store in enumerate(parts.stores):
        try:
            work(store)
        except StoreError as error:
            text = "; ".join(filter(None, (str(error), hint_for(error.sqlstate))))
            failed.append(f"shard {number}: {text}")
    return failed
