"""On how many servers a message is when it is acknowledged: this one, and the standbys that its commit waits for
(PostgreSQL documentation, 27.2.8). Without a synchronous standby a fail-over loses acknowledged mail."""

from typing import NamedTuple

from .connection import Store
from .conninfo import has_several_servers

_STATUS = "SELECT required, synchronous, connected FROM pipehandler.replication_status()"


class Replication(NamedTuple):
    """The standbys of the server.

    required:    for how many a commit waits; 0: for none.
    synchronous: those that are connected and count for that; None: the owner of the schema may not see that.
    connected:   all that are connected, the asynchronous ones included.
    """

    required: int
    synchronous: int | None
    connected: int

    @property
    def servers(self) -> int:
        """Servers that have a message when it is acknowledged."""
        return 1 + self.required

    @property
    def away(self) -> bool:
        """Whether commits wait for a standby that is not connected: nothing is acknowledged until it is back."""
        return self.synchronous is not None and self.synchronous < self.required


def replication(store: Store) -> Replication:
    """Query the database. Raises StoreError; with SQLSTATE 42883 the schema is older than this function."""
    (row,) = store.rows(_STATUS, row=Replication)
    return row


def servers_expected(conninfo: str, configured: int, found: Replication) -> int:
    """Return how many servers should have acknowledged mail.

    conninfo: of the handler. configured: database.servers; where it is 0, several hosts in conninfo, or a standby, show
    that a fail-over is planned. Raises StoreError if libpq cannot parse conninfo.
    """
    if configured:
        return configured
    return 2 if has_several_servers(conninfo) or found.connected or found.required else 1
