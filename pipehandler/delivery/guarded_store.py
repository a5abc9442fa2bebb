"""Store one message, and defer it at most once because of its content.

A message that the server refuses, or that does not fit into memory, is stored at once without its parsed content. Other
effects of its size or shape (the statement times out, the session dies) look like a database in trouble. So a query
without the message decides: if the database answers it, the message is suspected, the circuit breaker stays closed, and
a second failure of this kind stores the message without its parsed content. A message that was still being sent when the
deadline came is suspected as well; the next attempt to send it ends early enough for that query.

The first failure is recorded as an empty file storing-ID in the state directory, beside the PoisonMark of parsing; ID
is that of the message. A lock, a conflict and an administrator's cancel never count. If the file cannot be written, the
first failure is treated as the second.

On a host under load the second attempt may have no time left for the raw message. The reason is written into the file then,
and the next attempt begins with the raw message: it has the whole of the deadline, and there is nothing that could defer it
again and again but a database that does not take the bytes themselves.
"""

import os
import stat
from collections.abc import Sequence
from contextlib import suppress

from ..mail.outcome import EXHAUSTED
from ..mail.parsed import Defect, ParsedMessage
from ..runtime.deadline import TimeUp
from ..store.errors import DataRefused, NotConnected, StoreError
from ..store.ingest import IngestRequest, Stored
from ..store.message_store import MessageStore

_LONGEST_REASON = 1000

Kept = tuple[list[Stored], ParsedMessage]
"""The result of MessageStore.ingest, and the parsed message that was stored."""


def guarded_store(store: MessageStore, request: IngestRequest, directory: str, defects: Sequence[Defect]) -> Kept:
    """Store `request`, if necessary without its parsed content.

    directory: the state directory. defects: those found before the message was parsed.
    Raises StoreError, MemoryError or TimeUp: nothing was stored, or it is unknown whether it was, and delivery must be retried.
    """
    suspicion = os.path.join(directory, f"storing-{request.identity.id}")
    recorded = _recorded(suspicion)
    parsed, reason = request.parsed, recorded
    if not reason:
        try:
            stored = _ingest(store, request, spare=recorded is not None)
        except TimeUp:
            if store.unsent:
                _suspected_before(suspicion)
            raise
        except (MemoryError, StoreError) as failure:
            if not _refused(failure) and not _suspected_before(suspicion):
                raise
            reason = _reason(failure)
    if reason:
        parsed = ParsedMessage(error=reason, defects=list(defects))
        stored = _ingest_raw(store, request._replace(parsed=parsed), suspicion)
    with suppress(OSError):
        os.unlink(suspicion)
    return stored, parsed


def _ingest_raw(store: MessageStore, request: IngestRequest, suspicion: str) -> list[Stored]:
    """The same without parsed content, in all the time that is left; if that is too short, the next attempt begins here."""
    try:
        return _ingest(store, request, last=True)
    except DataRefused as failure:
        if store.answers():
            raise
        # Every message meets this, such as a database that gives out no transaction ids any more.
        raise StoreError(failure.outcome, f"the database takes nothing: {failure}", failure.sqlstate) from failure
    except (TimeUp, StoreError) as failure:
        if isinstance(failure, TimeUp) or failure.by_message:
            _give_up(suspicion, request.parsed.error or "")
        raise


def _ingest(store: MessageStore, request: IngestRequest, spare: bool = False, last: bool = False) -> list[Stored]:
    """Call MessageStore.ingest; retry once if the session had ended although the database answers."""
    try:
        return store.ingest(request, spare, last)
    except StoreError as error:
        _ask(store, error)
        if not (error.answered and error.stale):
            raise
    try:
        return store.ingest(request, spare, last)
    except StoreError as error:
        _ask(store, error)
        raise


def _ask(store: MessageStore, error: StoreError) -> None:
    """Set `error.answered` to whether the database answers, if that decides how the error is treated."""
    if error.unrouted:
        return  # it is tried again where the shard is known, and can be asked
    if not isinstance(error, NotConnected) and (error.outage or error.timed_out):
        error.answered = store.answers()
        if error.timed_out and store.unrouted:  # a shard may be frozen, which says nothing about the message
            error.unrouted, error.answered = True, False


def _refused(failure: StoreError | MemoryError) -> bool:
    """Return whether another attempt would certainly fail. Raises the failure if the message did not cause it."""
    if isinstance(failure, (DataRefused, MemoryError)):
        return True
    if failure.outcome == EXHAUSTED and not isinstance(failure, NotConnected):
        return True  # libpq ran out of memory while sending the message
    if not failure.by_message:
        raise failure
    return False


def _suspected_before(path: str) -> bool:
    """Record a failure of this message; return whether one was recorded before."""
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except OSError:
        return True
    return False


def _give_up(path: str, reason: str) -> None:
    """Record that there was no time for the raw message, and why nothing else is stored."""
    with suppress(OSError):
        os.unlink(path)  # `import` may run as root: what another name of a file of root's leads to is never written
    with suppress(OSError):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(file, "w", encoding="utf-8", errors="replace") as opened:
            opened.write(reason)


def _recorded(path: str) -> str | None:
    """Return what _give_up recorded for this message; "" after a failure without it, None if there was no failure."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        about = os.fstat(file)
        if not stat.S_ISREG(about.st_mode) or about.st_nlink != 1:
            return ""
        return os.read(file, _LONGEST_REASON).decode("utf-8", "replace").replace("\0", "")
    finally:
        os.close(file)


def _reason(failure: StoreError | MemoryError) -> str:
    if isinstance(failure, DataRefused):
        return f"{failure} SQLSTATE {failure.sqlstate}"
    if isinstance(failure, MemoryError) or failure.outcome == EXHAUSTED:
        return "what was read from the message does not fit into the memory"
    return f"the database failed twice to store what was parsed: {failure} SQLSTATE {failure.sqlstate or 'none'}"
