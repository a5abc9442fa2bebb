"""Four shards behind a proxy: what a message costs their servers, compared with one database, and with a shard killed.

    bench/run shards [--messages 4000] [--rounds 3]

The same parsed newsletters go to one database and to the proxy in turn, from four processes, each for one recipient, by
the statement of a delivery. CPU is that of all processes of the servers, the proxy's apart. All servers are on this
host, with fsync. Then a shard is killed, and every message is tried once.
"""

import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
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

from pipehandler.store.connection import Store
from pipehandler.store.errors import StoreError

SMALL = {"messages": 40, "rounds": 1}
_CLIENTS = 4
_USERS = 1000
_SETTINGS = {"fsync": "on", "full_page_writes": "on", "max_wal_size": "4GB"}


def measure(setting: Setting, *, messages: int = 4000, rounds: int = 3) -> Report:
    """Store on one database and on four shards in turn; raises unless each message is stored once."""
    rows: list[list[object]] = []
    ratios: list[float] = []
    with account.folder("pipehandler-bench-") as folder, _one(folder) as one, sharded(folder, **_SETTINGS) as shards:
        warm = 200
        for conninfo in (one.conninfo, shards.proxy.conninfo):
            _store(conninfo, 0, warm)
        for number in range(1, rounds + 1):
            first = number * messages * 10
            cost = {}
            for name, conninfo in (("one database", one.conninfo), ("four shards", shards.proxy.conninfo)):
                before = _spent([one, *shards.of]), _spent([shards.proxy])
                began = time.monotonic()
                failed = _store(conninfo, first, messages)
                seconds = time.monotonic() - began
                if failed:
                    raise RuntimeError(f"{failed} messages were not stored")
                own, proxy = _spent([one, *shards.of]) - before[0], _spent([shards.proxy]) - before[1]
                cost[name] = own + proxy
                rows.append([name, messages / seconds, *(1000 * each / messages for each in (own, proxy, own + proxy))])
            ratios.append(cost["four shards"] / cost["one database"])
        lost = shards.of[1].server
        lost.stop(SIGKILL)
        began = time.monotonic()
        failed = _store(shards.proxy.conninfo, 0, warm, other=1)
        seconds = time.monotonic() - began
        lost.start()
        expected = sum(shards.number(_recipient(n)) == 1 for n in range(warm))
        if failed != expected:
            raise RuntimeError(f"{failed} messages failed, {expected} belong to the shard that was killed")
        killed = [warm, expected, warm - failed, seconds]
    ratio = sorted(ratios)[len(ratios) // 2]
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
        [Aim("server CPU of four shards, relative to one database (median)", ratio, 1.5)],
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


def _store(conninfo: str, first: int, messages: int, other: int = 0) -> int:
    """Store so many newsletters from several processes; return how many failed."""
    share = messages // _CLIENTS
    with ProcessPoolExecutor(_CLIENTS) as pool:
        done = [pool.submit(_client, conninfo, first + share * n, share, other) for n in range(_CLIENTS)]
        return sum(each.result() for each in done)


def _client(conninfo: str, first: int, messages: int, other: int) -> int:
    store, failed = Store(conninfo), 0
    raw = newsletter(12_000)
    base = submission(raw)
    for number in range(first, first + messages):
        marked = raw.replace(b"\n", b"\nX-Number: %d-%d\n" % (number, other), 1)
        request = submission(marked, _recipient(number), parsed=base.parsed)
        try:
            store.ingest(request)
        except StoreError:
            failed += 1
    store.close()
    return failed
