"""Commits that wait for a synchronous standby (PostgreSQL documentation, 27.2.8).

A wait that is cancelled, by an administrator, a pooler or a dying server, ends in success: the commit is on this server
alone. PostgreSQL says so with a warning, which names the function that waited, in every language and version. PL/Proxy passes
the text of a shard's warning on, without the function.
"""

from contextlib import suppress
from threading import Thread
from typing import Any

import psycopg
from psycopg.pq.abc import PGcancel

from ..runtime.child import processes_allowed
from .errors import OF_SHARD

_WAITING = "SyncRepWaitForLSN"

# A shard's warning comes through PL/Proxy as one of its own, in the language of the shard: `check` wants English there.
_WAITING_WORDS = "synchronous replication"
_CANCEL_SECONDS = 1.0


class CommitWatch:
    """A notice handler of one connection; `weak`: a commit did not wait for the standby, since that was set to False."""

    def __init__(self) -> None:
        self.weak = False

    def __call__(self, notice: psycopg.errors.Diagnostic) -> None:
        """Other warnings, such as that of a collation's version, say nothing about the commit."""
        of_shard = notice.source_function == OF_SHARD and _WAITING_WORDS in (notice.message_primary or "")
        self.weak = self.weak or of_shard or notice.source_function == _WAITING


def cancel(connection: psycopg.Connection[Any]) -> None:
    """Cancel what the server does for this connection, before it is closed; takes a second at most, and never raises.

    A session that waits for a standby does not notice that its client has gone, and keeps its place in max_connections.
    """
    with suppress(psycopg.Error, RuntimeError):  # RuntimeError: no thread can be started
        if psycopg.capabilities.has_cancel_safe():
            connection.cancel_safe(timeout=_CANCEL_SECONDS)
        elif not connection.closed:
            # libpq before 17 waits for the server to accept another connection, and knows no time limit for that.
            canceller = Thread(target=_send, args=(connection.pgconn.get_cancel(),), daemon=True)
            with processes_allowed():  # a delivery may start none otherwise (runtime/limits.py)
                canceller.start()
            canceller.join(_CANCEL_SECONDS)


def _send(request: PGcancel) -> None:
    with suppress(psycopg.Error):
        request.cancel()
