"""Is everything there that should be? Numbers only, by a function that the handler's role may call."""

from collections.abc import Iterator

from pipehandler.store.connection import Store
from pipehandler.store.health import data_status

from .finding import Finding


def check_contents(store: Store) -> Iterator[Finding]:
    """Report what is stored twice, and messages whose bytes are missing. Reads the whole index of deliveries. Raises StoreError."""
    status = data_status(store)
    if status.incomplete:
        yield Finding(
            "bytes-missing",
            f"{status.incomplete} deliveries lack their message or its bytes, although retention has not removed them",
            "A restore was not complete, or a table is damaged. What is delivered or imported again is stored again.",
            "# pipehandler import ARCHIVE # with the mail of that time",
        )
    if status.doubled:
        yield Finding(
            "doubled",
            f"{status.doubled} deliveries or leases are there twice, from before the indexes became independent of the system",
            "Nothing was removed; docs/collation.md has what to decide about each.",
            "SELECT kind, id, found_at FROM pipehandler.doubled;",
        )
