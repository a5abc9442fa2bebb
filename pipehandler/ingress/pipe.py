"""The ingress pipe: one message from pipe(8), envelope in argv, the bytes on a descriptor.

Both ways come here: the entrypoint itself (cold), and a resident worker to which it handed argv and its stdin. What is costly
to import (psycopg, mail-parser) is imported after argv, the configuration and the message are known to be good.
Statuses and texts come from the outcome table; how it ended is written down last.
"""

import io
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..delivery.circuit_breaker import CircuitBreaker
from ..handover import option
from ..mail import outcome
from ..mail.envelope import Envelope, UsageError, from_argv
from ..mail.outcome import Result
from ..mail.sysexits import EX_OK
from ..record import log
from ..record.attempt import Attempt
from ..record.journal import Journal
from ..runtime.deadline import Deadline, TimeUp
from ..runtime.limits import apply
from ..settings.config import DEFAULT_PATH, Config, ConfigError, load
from .truncation import Caller, is_orphan, queue_file_octets

if TYPE_CHECKING:
    from ..store.connection import Store

INGRESS = "pipe"


class Resident(NamedTuple):
    """What a resident worker has and a cold delivery gets for itself: the configuration, a store with an open
    connection, and an open journal."""

    config: Config
    store: "Store"
    journal: Journal


def run(
    argv: Sequence[str], started: float, file: int = 0, caller: Caller | None = None, resident: Resident | None = None
) -> tuple[Result, Callable[[], None]]:
    """Deliver the message on the descriptor `file`. `argv`: what follows `deliver`; `started`: time.monotonic at the start of the
    entrypoint; `caller`: who that is, if not this process; `resident`: what a worker has ready.

    Returns how it ended, and what announces and writes that down, to be called when pipe(8) has its line.
    """
    queue_id = option(argv, "queue-id")
    if resident:
        attempt = Attempt(INGRESS, "resident", queue_id, started, resident.config, resident.journal)
    else:
        attempt = Attempt(INGRESS, "cold", queue_id, started)
    caller = caller or Caller(os.getpid(), os.getppid())
    try:
        if not resident:
            attempt.config = load(option(argv, "config") or DEFAULT_PATH)
        envelope = from_argv(argv)
    except (UsageError, ConfigError) as error:
        if isinstance(error, ConfigError):
            attempt.config = error.usable
        wrong = Result(outcome.MISCONFIGURED, reason=str(error))
        return wrong, lambda: attempt.record(wrong)
    limits = attempt.config.limits
    deadline = Deadline(limits.deadline, started)
    news: Store | None = None
    try:
        apply(limits)
        attempt.begin()
        attempt.recipients = len(envelope.recipients)
        with CircuitBreaker(attempt.config.state.directory) as breaker:
            result, news = _deliver(
                attempt, envelope, deadline, breaker, file, caller, resident.store if resident else None
            )
    except TimeUp:
        result = Result(outcome.DEADLINE, reason="time was up before the message was stored")
    except MemoryError:
        result = Result(outcome.EXHAUSTED, reason="out of memory")
    except Exception as error:
        result = Result(outcome.FAULT, reason=log.described(error), fault=error)
    deadline.disarm()

    def record() -> None:
        if news:
            attempt.stopwatch.stop()  # it is stored; that others are told is no part of that
            news.announce()
            if not resident:
                news.close()
        attempt.record(result)

    return result, record


def _deliver(
    attempt: Attempt,
    envelope: Envelope,
    deadline: Deadline,
    breaker: CircuitBreaker,
    file: int,
    caller: Caller,
    kept: "Store | None",
) -> "tuple[Result, Store | None]":
    """How it ended; and, with its connection still open, the store that has to announce what is new there."""
    if breaker.refuses():
        return Result(outcome.OUTAGE, reason="the database is known to be down"), None

    config = attempt.config
    largest = config.limits.message_size
    attempt.stopwatch.enter("read")
    os.set_blocking(file, True)  # or a pause of the writer would be taken for the end
    raw = io.BufferedReader(io.FileIO(file, closefd=False)).read(largest + 1)
    attempt.size = len(raw)
    attempt.stopwatch.enter("start")
    if len(raw) > largest:
        return Result(outcome.TOO_LARGE, reason=f"larger than limits.message_size = {largest}"), None

    # Imported here, because what is refused above does not need it.
    from datetime import UTC, datetime

    from ..delivery.deliver import deliver
    from ..mail.identity import prepended
    from ..store.connection import Store

    # ${size} does not count what pipe(8) itself prepended to the message.
    short = envelope.size is not None and queue_file_octets(raw, prepended(raw)) < envelope.size
    if not raw or ((short or envelope.size is None) and is_orphan(caller)) or (short and caller.parent == 1):
        # The end of the input is that of pipe(8). Nobody reads this status; Postfix will deliver the whole message again.
        return Result(outcome.TRUNCATED, reason=f"{len(raw)} octets came of a message of {envelope.size}"), None

    database = config.database
    store = kept or Store(database.conninfo, database.connect_timeout, database.statement_timeout)
    store.remaining = deadline.remaining
    result = deliver(
        raw,
        envelope,
        config,
        store,
        deadline,
        attempt.stopwatch,
        ingress=INGRESS,
        mail_host=config.store.mail_host or os.uname().nodename,
        received_at=datetime.now(UTC).isoformat(),
        short=short,
    )
    news = store if config.store.notify and result.outcome in outcome.NEWS else None
    if not kept and not news:
        store.close()
    if result.outcome.status == EX_OK:
        breaker.succeeded()
    elif result.outage:
        breaker.failed()
    return result, news
