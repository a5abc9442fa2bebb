"""How it goes on this mail host, from everybody who knows: the journal, the database, the service, the breaker, the queue.

Whoever does not answer, or may not be asked, is a reason instead of an answer, and keeps none of the others from answering.
"""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import NamedTuple, TypeVar

from ..delivery.circuit_breaker import CircuitBreaker
from ..postfix.postconf import DEFAULT_DIRECTORY
from ..postfix.postqueue import Queued, QueueError, queued
from ..record.journal import NAME
from ..settings.config import Config
from ..store.connection import Store
from ..store.errors import StoreError, hint
from ..store.health import Health, health
from ..store.migrate import migrations
from ..store.roles import INGEST, MAINTENANCE, READER
from ..workers.listener import ServeError
from .journal_totals import JournalError, Tally, tally
from .service_status import ask

_T = TypeVar("_T")

# Two hosts that do not answer, or one that does not and one that stands still: still less than the ten seconds that
# Prometheus waits, or an outage of the database would take all other numbers with it.
_CONNECT_SECONDS = 3
_STATEMENT_SECONDS = 4

_GROUPS = f"{INGEST}, {READER} or {MAINTENANCE}"  # those that may call pipehandler.health


class Observation(NamedTuple):
    """What was found. None: not known, and `reasons` says why, under "journal", "database", "service" or "queue".

    tally: what the journal says; without any attempt so far it is empty. schema_expected: the version of the schema that this
    program brings. service: what the supervisor says of itself (Supervisor.status). queue: by name; an empty queue is not in
    it. outage: deliveries have found the database down, and none has succeeded since.
    """

    tally: Tally | None
    health: Health | None
    schema_expected: int
    service: dict[str, int] | None
    queue: dict[str, Queued] | None
    outage: bool
    reasons: dict[str, str]


def observe(
    config: Config,
    conninfo: str | None = None,
    config_directory: str = DEFAULT_DIRECTORY,
    queue_seconds: float = 60,
) -> Observation:
    """Ask everybody, all at the same time, so that it takes no longer than the slowest answer.

    conninfo: instead of those in the configuration. config_directory: Postfix's. queue_seconds: so long it may take to list the
    queue; everything else takes less than eight.
    """
    conninfos = [config.database.conninfo] if conninfo is None else [conninfo]
    if conninfo is None and config.database.admin_conninfo:
        conninfos.append(
            config.database.admin_conninfo
        )  # with peer authentication, root can log in with this one alone
    reasons: dict[str, str] = {}
    with ThreadPoolExecutor() as pool:
        of_journal = pool.submit(_answer, "journal", lambda: _tally(config.state.directory), reasons)
        of_database = pool.submit(_answer, "database", lambda: _health(conninfos), reasons)
        of_service = pool.submit(_answer, "service", lambda: ask(config.serve.socket), reasons)
        of_queue = pool.submit(_answer, "queue", lambda: queued(config_directory, queue_seconds), reasons)
    return Observation(
        tally=of_journal.result(),
        health=of_database.result(),
        schema_expected=max(migration.version for migration in migrations()),
        service=of_service.result(),
        queue=of_queue.result(),
        outage=CircuitBreaker(config.state.directory).is_open,
        reasons=reasons,
    )


def _answer(name: str, ask: Callable[[], _T], reasons: dict[str, str]) -> _T | None:
    """What `ask` returns; None where it raises what it says it may."""
    try:
        return ask()
    except StoreError as error:
        reasons[name] = "; ".join(filter(None, (str(error), hint(error.sqlstate, _GROUPS))))
    except (JournalError, ServeError, QueueError) as error:
        reasons[name] = str(error)
    return None


def _tally(directory: str) -> Tally:
    """What the journal adds up to. One that nobody has begun yet is no fault: there was no attempt."""
    try:
        os.stat(os.path.join(directory, NAME))
    except FileNotFoundError:
        if os.path.isdir(directory):
            return Tally([], [], 0)
    except OSError:
        pass  # and tally() says it better
    return tally(directory)


def _health(conninfos: list[str]) -> Health:
    """Query the first database that can be connected to. Raises StoreError, that of the first one if there is none."""
    first, *others = conninfos
    try:
        store = _connected(first)
    except StoreError as error:
        for conninfo in others:
            with suppress(StoreError):
                store = _connected(conninfo)
                break
        else:
            raise error from None
    try:
        with _cut_after(store, _STATEMENT_SECONDS + 1):
            return health(store)
    finally:
        store.close()


def _connected(conninfo: str) -> Store:
    store = Store(conninfo, _CONNECT_SECONDS, _STATEMENT_SECONDS)
    store.connect()
    return store


@contextmanager
def _cut_after(store: Store, seconds: float) -> Iterator[None]:
    """Cut the connection after `seconds`: a pooler, or a server that is stopped, does not obey statement_timeout."""
    with socket.socket(fileno=os.dup(store.connect().fileno())) as line:

        def cut() -> None:
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(seconds, cut)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
