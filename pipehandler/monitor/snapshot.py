"""A snapshot of this mail host from every source: the journal, the database, the service, the circuit breaker, the queue.

A source that does not answer is reported as unavailable, with the reason, and does not hold up the others.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import NamedTuple, TypeVar

from ..delivery.circuit_breaker import CircuitBreaker
from ..mail.outcome import MISCONFIGURED
from ..postfix.postconf import DEFAULT_DIRECTORY
from ..postfix.postqueue import Listing, Queued, QueueError, listing
from ..record.journal import NAME
from ..settings.config import Config
from ..store.blockers import holders
from ..store.connection import Store
from ..store.errors import LOCK_NOT_AVAILABLE, StoreError
from ..store.health import Health, health
from ..store.hints import hint
from ..store.refusal import advice
from ..store.replication import servers_expected
from ..store.roles import INGEST, MAINTENANCE, READER
from ..store.sql_files import migrations
from ..workers.listener import ServeError
from .journal_totals import JournalError, JournalTotals, totals
from .maildirs import Maildirs, look
from .service_status import ask
from .web_status import WebStatusError, ask_page, is_expected

_T = TypeVar("_T")

# Even with two hosts that do not answer, or one of them and one that hangs, this stays below the ten seconds that Prometheus
# waits; otherwise an outage of the database would cost all other numbers.
_CONNECT_SECONDS = 3
_STATEMENT_SECONDS = 4

_QUICK_SECONDS = 1.0
_ROLES = (READER, MAINTENANCE)

_GROUPS = f"{INGEST}, {READER} or {MAINTENANCE}"  # those that may call pipehandler.health


class Snapshot(NamedTuple):
    """The status of every source. None: unavailable; `reasons` says why, by "journal", "database", "service", "queue" or "web".
    A configuration that cannot be loaded is in there as "configuration".

    journal: empty before the first attempt. schema_expected: the version of the schema that this program brings. service: the
    counts of the supervisor (Supervisor.status). queue: by the name of each queue that is not empty. outage: deliveries have
    found the database down, and none has succeeded since. postfix_running: None where it is not known. refused: the database
    is up, and does not let this account in. maildirs: None if none are configured. web: the counts of the inbox page;
    web_expected: whether there should be one. blocked: the database is up, and a lock is in the way. servers_expected: that
    should have acknowledged mail; None where it is not known.
    """

    journal: JournalTotals | None
    health: Health | None
    schema_expected: int
    service: dict[str, int] | None
    queue: dict[str, Queued] | None
    outage: bool
    reasons: dict[str, str]
    postfix_running: bool | None = None
    refused: bool = False
    blocked: bool = False
    maildirs: Maildirs | None = None
    web: dict[str, int] | None = None
    web_expected: bool = False
    servers_expected: int | None = None


def take_snapshot(
    config: Config,
    conninfo: str | None = None,
    config_directory: str = DEFAULT_DIRECTORY,
    queue_seconds: float = 60,
    unloadable: str = "",
) -> Snapshot:
    """Query every source, all at the same time, so that it takes no longer than the slowest of them.

    unloadable: why the configuration cannot be loaded, "" if it was; `config` is then what can be used of it.
    conninfo: used instead of those in the configuration. config_directory: Postfix's. queue_seconds: the limit for listing the
    queue; everything else takes less than eight seconds.
    """
    conninfos = [config.database.conninfo] if conninfo is None else [conninfo]
    if conninfo is None and config.database.admin_conninfo:
        # With peer authentication, this is the only one that root can log in with.
        conninfos.append(config.database.admin_conninfo)
    reasons: dict[str, str] = {"configuration": unloadable} if unloadable else {}
    refusals: list[str] = []
    down: list[bool] = []
    blocked: list[bool] = []
    if unloadable and conninfo is None:
        conninfos = []
    with ThreadPoolExecutor() as pool:
        of_journal = pool.submit(_answer, "journal", lambda: _journal(config.state.directory), reasons)
        of_database = pool.submit(_answer, "database", lambda: _health(conninfos, refusals, blocked), reasons)
        of_service = pool.submit(_answer, "service", lambda: ask(config.serve.socket), reasons)
        of_maildirs = pool.submit(look, config.watch.maildirs)
        web_expected = is_expected(config.web)
        of_web = pool.submit(
            _answer, "web", lambda: ask_page(config.web.status_socket) if web_expected else None, reasons
        )
        of_queue = pool.submit(_answer, "queue", lambda: _queue(config_directory, queue_seconds, down), reasons)
    queue, found = of_queue.result(), of_database.result()
    return Snapshot(
        journal=of_journal.result(),
        health=found,
        schema_expected=max(migration.version for migration in migrations()),
        service=of_service.result(),
        queue=queue.queues if queue else None,
        outage=CircuitBreaker(config.state.directory).is_open,
        reasons=reasons,
        postfix_running=queue.running if queue else False if down else None,
        refused=bool(refusals),
        blocked=bool(blocked),
        maildirs=of_maildirs.result(),
        web=of_web.result(),
        web_expected=web_expected,
        servers_expected=_servers_expected(config, found),
    )


def _servers_expected(config: Config, found: Health | None) -> int | None:
    if found is None or found.replication is None:
        return None
    with suppress(StoreError):  # a conninfo that libpq cannot parse
        return servers_expected(config.database.conninfo, config.database.servers, found.replication)
    return None


def _answer(name: str, ask: Callable[[], _T], reasons: dict[str, str]) -> _T | None:
    """Return the result of `ask`; None if it raises one of its documented errors, whose text goes into `reasons`."""
    try:
        return ask()
    except StoreError as error:
        reasons[name] = "; ".join(filter(None, (str(error), hint(error.sqlstate, _GROUPS))))
    except (JournalError, ServeError, QueueError, WebStatusError) as error:
        reasons[name] = str(error)
    return None


def _journal(directory: str) -> JournalTotals:
    """Return the totals of the journal. A journal that does not exist yet is not an error: there was no attempt."""
    try:
        os.stat(os.path.join(directory, NAME))
    except FileNotFoundError:
        if os.path.isdir(directory):
            return JournalTotals([], [], 0)
    except OSError:
        pass  # totals() reports it in better words
    return totals(directory)


def _queue(directory: str, seconds: float, down: list[bool]) -> Listing:
    try:
        return listing(directory, seconds)
    except QueueError as error:
        if error.down:
            down.append(True)
        raise


def _health(conninfos: list[str], refusals: list[str], blocked: list[bool]) -> Health:
    """Query the first database that lets us in. Raises the StoreError of the last one, which is that of root's commands.

    refusals: gets what to do where the server is up, and refuses every one of the roles. blocked: gets an entry where the server
    is up, and another session holds a lock for too long.
    """
    failure = StoreError(MISCONFIGURED, "not asked, because the configuration cannot be loaded")
    advised: list[str] = []
    for conninfo in conninfos:
        started = time.monotonic()
        try:
            store = _connected(conninfo)
        except StoreError as error:
            failure = error
            quick = time.monotonic() - started < _QUICK_SECONDS  # asking again must not take longer than a scrape may
            if quick and (text := advice(conninfo, _ROLES, _QUICK_SECONDS)):
                advised.append(text)
                failure = StoreError(error.outcome, f"{error}; {text}", error.sqlstate)
        else:
            return _health_of(store, blocked)
    if conninfos and len(advised) == len(conninfos):
        refusals += advised
    raise failure


def _health_of(store: Store, blocked: list[bool]) -> Health:
    try:
        with _disconnected_after(store, _STATEMENT_SECONDS + 1):
            try:
                return health(store)
            except StoreError as error:
                if error.sqlstate != LOCK_NOT_AVAILABLE:
                    raise
                blocked.append(True)
                sessions = ", ".join(map(str, holders(store)))
                reason = f"blocked by {sessions}" if sessions else f"blocked: {error}"
                raise StoreError(error.outcome, reason, error.sqlstate) from error
    finally:
        store.close()


def _connected(conninfo: str) -> Store:
    store = Store(conninfo, _CONNECT_SECONDS, _STATEMENT_SECONDS)
    store.connect()
    return store


@contextmanager
def _disconnected_after(store: Store, seconds: float) -> Iterator[None]:
    """Shut the connection down after `seconds`: a pooler, or a server that hangs, does not apply statement_timeout."""
    with socket.socket(fileno=os.dup(store.connect().fileno())) as connection:

        def disconnect() -> None:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(seconds, disconnect)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
