"""Store one message, and defer it at most once for what is in it.

What the server refuses, and what does not fit into the memory, is stored at once without what was parsed. What the size
or the shape of a message may do otherwise (the statement takes too long, the session dies of it) looks like a database in
trouble. So a query without the message decides: if the database answers that, the message is suspected, the circuit
breaker stays closed, and a second failure of this kind stores it without what was parsed.

The count is an empty file storing-ID in the state directory, beside the PoisonMark of parsing; ID is that of the message.
A lock, a conflict and an administrator's cancel never count. Where the file cannot be written, the first failure decides.
"""

import os
from collections.abc import Sequence
from contextlib import suppress

from ..mail.outcome import EXHAUSTED
from ..mail.parsed import Defect, ParsedMessage
from ..store.connection import Store
from ..store.errors import DataRefused, NotConnected, StoreError
from ..store.ingest import IngestRequest, Stored

Kept = tuple[list[Stored], ParsedMessage]
"""What Store.ingest returned, and what was stored as parsed."""


def guarded_store(store: Store, request: IngestRequest, directory: str, defects: Sequence[Defect]) -> Kept:
    """Store `request`, if need be without what was parsed.

    directory: the state directory. defects: those that were found before the message was parsed.
    Raises StoreError and MemoryError: nothing was stored, or it is not known, and the message must come again.
    """
    suspicion = os.path.join(directory, f"storing-{request.identity.id}")
    try:
        stored, parsed = _ingest(store, request), request.parsed
    except (DataRefused, MemoryError, StoreError) as failure:
        if not _refused(failure) and not _suspected_before(suspicion):
            raise
        parsed = ParsedMessage(error=_reason(failure), defects=list(defects))
        stored = _ingest(store, request._replace(parsed=parsed))
    with suppress(OSError):
        os.unlink(suspicion)
    return stored, parsed


def _ingest(store: Store, request: IngestRequest) -> list[Stored]:
    """As Store.ingest; a session that ended, though the database answers, costs a second try and not the delivery."""
    try:
        return store.ingest(request)
    except StoreError as error:
        _ask(store, error)
        if not (error.answered and error.stale):
            raise
    try:
        return store.ingest(request)
    except StoreError as error:
        _ask(store, error)
        raise


def _ask(store: Store, error: StoreError) -> None:
    """Find out whether the database answers, if that decides what the error means."""
    if not isinstance(error, NotConnected) and (error.outage or error.timed_out):
        error.answered = store.answers()


def _refused(failure: StoreError | MemoryError) -> bool:
    """Whether it would fail again for certain. Raises the failure if it says nothing about the message."""
    if isinstance(failure, (DataRefused, MemoryError)):
        return True
    if failure.outcome == EXHAUSTED and not isinstance(failure, NotConnected):
        return True  # libpq ran out of memory with the message in its hands
    if not failure.by_message:
        raise failure
    return False


def _suspected_before(path: str) -> bool:
    """Whether a failure of this message was counted before; it is from now on."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError:
        return True
    return False


def _reason(failure: StoreError | MemoryError) -> str:
    if isinstance(failure, DataRefused):
        return f"{failure} SQLSTATE {failure.sqlstate}"
    if isinstance(failure, MemoryError) or failure.outcome == EXHAUSTED:
        return "what was read from the message does not fit into the memory"
    return f"the database failed twice to store what was parsed: {failure} SQLSTATE {failure.sqlstate or 'none'}"
