"""The ingress pipe: one message from pipe(8), with the envelope in argv and the bytes on a descriptor.

Both modes come here: the entrypoint itself (cold), and a resident worker to which it handed argv and its stdin. What is
costly to import (psycopg, mail-parser) is imported after argv, the configuration and the message are known to be good.
"""

import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..delivery.circuit_breaker import CircuitBreaker
from ..delivery.turn import Turn
from ..handover import option
from ..mail.envelope import from_argv
from ..mail.outcome import NEWLY_STORED, TOO_LARGE, Result, Undelivered, folded, outcome_of
from ..record.attempt import Attempt
from ..record.journal import Journal
from ..runtime import limits
from ..runtime.deadline import Deadline
from ..settings.config import DEFAULT_PATH, Config, ConfigError, load
from .truncation import Caller, is_smaller

if TYPE_CHECKING:
    from ..store.connection import Store

INGRESS = "pipe"


class Resident(NamedTuple):
    """What a resident worker has ready, and a cold delivery makes for itself: the configuration, a store with an open
    connection, and an open journal."""

    config: Config
    store: "Store"
    journal: Journal


class Finished:
    """A delivery that is decided: the exit `status` and the `line` for pipe(8), and what remains to do when it has them."""

    def __init__(self, result: Result, attempt: Attempt, store: "Store | None", keep_open: bool) -> None:
        self.result = result
        self.status = result.outcome.status
        self.line = result.line
        self._attempt = attempt
        self._store = store
        self._keep_open = keep_open

    def after_reply(self) -> None:
        """Record the attempt, announce what is new, and close the store unless a worker keeps it. Changes no status."""
        self._attempt.finish(self.result)  # first: the rest asks the database, which may not answer
        if self._store is not None:
            if self._attempt.config.store.notify and self.result.outcome in NEWLY_STORED:
                self._store.announce()
            if not self._keep_open:
                self._store.close()


def run(
    argv: Sequence[str], started: float, file: int = 0, caller: Caller | None = None, resident: Resident | None = None
) -> Finished:
    """Deliver the message on the descriptor `file`.

    `argv`: what follows `deliver`. `started`: time.monotonic at the start of the entrypoint. `caller`: the entrypoint, if it
    is not this process. `resident`: what a worker has ready. Whatever happens becomes the result.
    """
    attempt = Attempt(INGRESS, "resident" if resident else "cold", option(argv, "queue-id"), started)
    caller = caller or Caller(os.getpid(), os.getppid())  # before pipe(8) can be gone
    store = None
    deadline = None
    try:
        if resident:
            attempt.config, store, attempt.journal = resident
        else:
            attempt.config = load(option(argv, "config") or DEFAULT_PATH)
        envelope = from_argv(argv)
        deadline = Deadline(attempt.config.limits.deadline, started)
        limits.apply(attempt.config.limits)
        attempt.begin()
        attempt.recipients = len(envelope.recipients)
        turn = None if resident else Turn(attempt.config, deadline)
        if turn:  # before the breaker, whose probe must not wait
            turn.take(envelope.size or 0)
        with CircuitBreaker(attempt.config.state.directory):
            raw = _read_message(file, attempt)
            if turn:
                turn.take(len(raw))
            # Imported here, because what is refused above does not need it.
            from ..delivery.deliver import Session, deliver
            from ..mail.identity import identify
            from ..mail.parsed import Defect
            from ..store.connection import Store

            identity = identify(raw)
            smaller = is_smaller(raw, identity.prepended, envelope.size, caller)
            if store is None:
                database = attempt.config.database
                store = Store(database.conninfo, database.connect_timeout, database.statement_timeout)
            store.remaining = deadline.remaining
            session = Session(attempt.config, store, deadline, attempt.stopwatch, INGRESS)
            defects = [Defect("envelope-value", name) for name in envelope.left_out]
            defects[:0] = [Defect("smaller-than-declared")] if smaller else []
            result = folded(deliver(raw, identity, envelope, session, defects))
    except BaseException as error:  # noqa: BLE001 # the outcome table decides what it means
        if deadline is not None:
            deadline.disarm()
        if isinstance(error, ConfigError):
            attempt.config = error.usable
        result = outcome_of(error)
    return Finished(result, attempt, store, keep_open=resident is not None)


def _read_message(file: int, attempt: Attempt) -> bytes:
    """Read the message whole. Raises Undelivered for one that is larger than the limit."""
    largest = attempt.config.limits.message_size
    attempt.stopwatch.enter("read")
    os.set_blocking(file, True)  # or a pause of the writer would be taken for the end
    raw = io.BufferedReader(io.FileIO(file, closefd=False)).read(largest + 1)
    attempt.size = len(raw)
    attempt.stopwatch.enter("start")
    if len(raw) > largest:
        raise Undelivered(TOO_LARGE, f"larger than limits.message_size = {largest}")
    return raw
