"""The ingress pipe: one message from pipe(8), with the envelope in argv and the bytes on a descriptor.

Both modes come here: the entrypoint itself (cold), and a resident worker to which it handed argv and its stdin. What is
costly to import (psycopg, mail-parser) is imported after argv, the configuration and the message are known to be good.
"""

import os
from collections.abc import Sequence

from ..delivery.circuit_breaker import CircuitBreaker
from ..delivery.turn import Turn
from ..handover import option
from ..mail.envelope import from_argv
from ..mail.outcome import folded, outcome_of
from ..record.attempt import Attempt
from ..runtime import limits
from ..runtime.deadline import Deadline
from ..settings.config_file import DEFAULT_PATH, ConfigError, load
from .single import Finished, Resident, read_message
from .truncation import Caller, is_smaller

INGRESS = "pipe"


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
        breaker = CircuitBreaker(attempt.config.state.directory)
        breaker.check()
        turn = None if resident else Turn(attempt.config, deadline)
        if turn:
            turn.take(envelope.size or 0)
        raw = read_message(file, attempt, turn)
        with breaker:  # entered last: its probe must wait for no turn
            # Imported here, because what is refused above does not need it.
            from ..delivery.deliver import Session, deliver
            from ..mail.identity import identify
            from ..mail.parsed import Defect
            from ..store.message_store import MessageStore

            identity = identify(raw)
            smaller = is_smaller(raw, identity.prepended, envelope.size, caller)
            if store is None:
                database = attempt.config.database
                store = MessageStore(database.conninfo, database.connect_timeout, database.statement_timeout)
            store.remaining = deadline.remaining
            store.step = deadline.step
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
    return Finished([result], attempt, store, keep_open=resident is not None)
