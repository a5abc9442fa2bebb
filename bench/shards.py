"""Four shards behind a proxy: what a message costs their servers, compared with one database, and with a shard killed.

    bench/run shards [--messages 4000] [--rounds 3]

Parsed newsletters go to one database, to the four shards themselves, and to their proxy in turn, from four processes, each
for one recipient, by the statement of a delivery, on sessions that have stored some before. CPU is that of all processes of
the servers, the proxy's apart. All servers are on this host, with fsync. What the shards cost without the proxy is what it
costs to have four servers instead of one; the client knows where each address is, which no handler does. Then a shard is
killed, and every message is tried once.
"""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from signal import SIGKILL

from harness import account
from harness.database import Database
from harness.postgresql import PostgreSQL
from harness.shards import PROXY_VERSION, sharded
from harness.submission import submission
from mail import newsletter
from report import Aim, Report, Table
from setting import Setting

from pipehandler.mail.parsed import ParsedMessage
from pipehandler.store.errors import StoreError
from pipehandler.store.message_store import MessageStore

SMALL = {"messages": 40, "rounds": 1}
_CLIENTS = 4
_USERS = 1000
_WARM = 200
_LETTERS = 32
"""Distinct newsletters; each message is one of them with a Message-ID of its own."""

_SETTINGS = {"fsync": "on", "full_page_writes": "on", "max_wal_size": "4GB"}


def measure(setting: Setting, *, messages: int = 4000, rounds: int = 3) -> Report:
    """Store in one database and in four shards in turn; raises unless each message is stored, once."""
    rows: list[list[object]] = []
    cost: dict[str, list[float]] = {}
    with (
        account.folder("pipehandler-bench-") as folder,
        _one(folder) as one,
        sharded(folder, **_SETTINGS) as shards,
        ExitStack() as stack,
    ):
        clients = [stack.enter_context(ProcessPoolExecutor(1)) for _ in range(_CLIENTS)]
        users = [_recipient(number) for number in range(_USERS)]
        home = shards.proxy.value("SELECT pipehandler.route(%s, '+')", users)
        ways = {
            "one database": ([one.conninfo], [0] * _USERS),
            "four shards, without a proxy": ([shard.conninfo for shard in shards.of], home),
            "four shards, through the proxy": ([shards.proxy.conninfo], [0] * _USERS),
        }
        numbers = iter(range(0, 1 << 40, max(messages, _WARM)))
        for way in ways.values():
            _store(clients, *way, next(numbers), _WARM)
        for _ in range(rounds):
            for name, way in ways.items():
                before = _spent([one, *shards.of]), _spent([shards.proxy])
                began = time.monotonic()
                failed = _store(clients, *way, next(numbers), messages)
                seconds = time.monotonic() - began
                if failed:
                    raise RuntimeError(f"{failed} messages were not stored")
                own, proxy = _spent([one, *shards.of]) - before[0], _spent([shards.proxy]) - before[1]
                cost.setdefault(name, []).append(own + proxy)
                rows.append([name, messages / seconds, *(1000 * each / messages for each in (own, proxy, own + proxy))])
        stored = [_stored([one]), _stored(shards.of)]
        each = _WARM + rounds * messages
        if stored != [each, 2 * each]:
            raise RuntimeError(f"{stored} messages are stored, not {each} and {2 * each}")
        lost = shards.of[1].server
        lost.stop(SIGKILL)
        began = time.monotonic()
        first = next(numbers)
        failed = _store(clients, *ways["four shards, through the proxy"], first, _WARM)
        seconds = time.monotonic() - began
        lost.start()
        expected = sum(home[number % _USERS] == 1 for number in range(first, first + _WARM))
        if failed != expected:
            raise RuntimeError(f"{failed} messages failed, {expected} belong to the shard that was killed")
        killed = [_WARM, expected, _WARM - failed, seconds]
    single, alone, proxied = (sorted(each)[len(each) // 2] for each in cost.values())
    return Report(
        [
            Table(
                "Four shards, and one database",
                ["where", "messages/s", "CPU ms of the databases", "of the proxy", "both"],
                rows,
                f"Newsletters of 12 KB, {_CLIENTS} clients, alternately; all servers on this host.",
            ),
            Table(
                "One of four shards killed",
                ["messages", "for that shard", "stored", "seconds"],
                [killed],
                "Each message once; all others are stored.",
            ),
        ],
        [
            Aim("server CPU of four shards, relative to one database (median)", proxied / single, 1.5),
            Aim("server CPU of four shards, relative to the same without a proxy (median)", proxied / alone, 1.5),
        ],
    )


@contextmanager
def _one(folder: Path) -> Iterator[Database]:
    """One database on a server like those of the shards."""
    with PostgreSQL(folder / "one", PROXY_VERSION, _SETTINGS) as server, Database.fresh(server.start()) as database:
        yield database


def _spent(databases: list[Database]) -> float:
    """The CPU seconds of the servers, sessions that have ended included."""
    return sum(_of_server(database.server) for database in databases)


def _of_server(server: PostgreSQL) -> float:
    postmaster = int((server.data / "postmaster.pid").read_text().split("\n")[0])
    total = 0.0
    for folder in Path("/proc").iterdir():
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split() if folder.name.isdecimal() else []
        except OSError:
            continue
        if fields and int(fields[1]) == postmaster:
            total += int(fields[11]) + int(fields[12])
        elif folder.name == str(postmaster):
            total += sum(map(int, fields[11:15]))  # with the children that it has waited for
    return total / os.sysconf("SC_CLK_TCK")


def _recipient(number: int) -> str:
    return f"user{number % _USERS}@example.com"


def _stored(databases: list[Database]) -> int:
    return sum(int(database.value("SELECT count(*) FROM pipehandler.delivery")) for database in databases)


def _store(clients: list[ProcessPoolExecutor], conninfos: list[str], home: list[int], first: int, messages: int) -> int:
    """Store so many newsletters from all clients; return how many failed. home: the place in `conninfos` of each user."""
    share = messages // len(clients)
    begins = range(first, first + share * len(clients), share)
    done = [client.submit(_client, conninfos, home, at, share) for client, at in zip(clients, begins, strict=True)]
    return sum(each.result() for each in done)


def _client(conninfos: list[str], home: list[int], first: int, messages: int) -> int:
    failed = 0
    for number in range(first, first + messages):
        raw, parsed = _letter(number % _LETTERS)
        marked = raw.replace(b"<%d.bench@" % (number % _LETTERS), b"<%d.bench@" % number, 1)
        request = submission(marked, _recipient(number), parsed=parsed)
        try:
            _session(conninfos[home[number % _USERS]]).ingest(request)
        except StoreError:
            failed += 1
    return failed


@cache
def _session(conninfo: str) -> MessageStore:
    """The session of this client there, which it keeps, as a resident worker does."""
    return MessageStore(conninfo)


@cache
def _letter(number: int) -> tuple[bytes, ParsedMessage]:
    raw = newsletter(number)
    return raw, submission(raw).parsed
