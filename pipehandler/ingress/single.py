"""What the ways in for single messages, pipe and LMTP, share: the message on a descriptor, and the end of its delivery."""

import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..delivery.turn import LARGE, Turn
from ..mail.outcome import NEWLY_STORED, TOO_LARGE, Result, Undelivered
from ..record.attempt import Attempt
from ..record.journal import Journal
from ..settings.config import Config

if TYPE_CHECKING:
    from ..store.message_store import MessageStore


class Resident(NamedTuple):
    """What a resident worker has ready, and a cold delivery makes for itself: the configuration, a store with an open
    connection, and an open journal."""

    config: Config
    store: "MessageStore"
    journal: Journal


class Finished:
    """A delivery that is decided, and what remains to do when Postfix knows: `results`, one for each recipient, or a single
    one for all, whose `status` and `line` are for pipe(8)."""

    def __init__(
        self, results: Sequence[Result], attempt: Attempt, store: "MessageStore | None", keep_open: bool
    ) -> None:
        self.results = results
        self.status = results[0].outcome.status
        self.line = results[0].line
        self._attempt = attempt
        self._store = store
        self._keep_open = keep_open

    def after_reply(self) -> None:
        """Record the attempt, announce what is new, and close the store unless a worker keeps it. Changes no status."""
        self._attempt.finish(*self.results)  # first: the rest asks the database, which may not answer
        if self._store is not None:
            is_new = any(result.outcome in NEWLY_STORED for result in self.results)
            if self._attempt.config.store.notify and is_new:
                self._store.announce()
            if self._keep_open:
                self._store.recognize()
            else:
                self._store.close()


def read_message(file: int, attempt: Attempt, turn: Turn | None = None) -> bytes:
    """Read the message whole. Raises Undelivered for one that is larger than the limit.

    turn: a large message takes it before the rest of it is read, because what waits is held in memory.
    """
    largest = attempt.config.limits.message_size
    attempt.stopwatch.enter("read")
    os.set_blocking(file, True)  # or a pause of the writer would be taken for the end
    reader = io.BufferedReader(io.FileIO(file, closefd=False))
    raw = reader.read(min(LARGE, largest + 1) if turn else largest + 1)
    if turn and len(raw) == LARGE:
        attempt.stopwatch.enter("start")
        turn.take(LARGE)
        attempt.stopwatch.enter("read")
        raw += reader.read(largest + 1 - LARGE)
    attempt.size = len(raw)
    attempt.stopwatch.enter("start")
    if len(raw) > largest:
        raise Undelivered(TOO_LARGE, f"larger than limits.message_size = {largest}")
    return raw
