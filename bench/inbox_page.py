"""The figures of the inbox page, behind script/inbox-page: nothing is asserted here but that no row is missing."""

import argparse
import asyncio
import os
import random
import statistics
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from harness import account
from harness.database import Database
from harness.inboxes import DOMAIN, issue, new_key, send
from harness.postgresql import VERSION, PostgreSQL
from harness.stream import announce
from harness.submission import submission
from harness.web import EventSource, Visitor, WebServer
from inbox_arrival import arrival, visit
from inbox_resources import resources

from pipehandler.store.errors import StoreError
from pipehandler.store.inboxes import Inboxes
from pipehandler.store.message_store import MessageStore
from pipehandler.web.keys import text_of

_TICKS = os.sysconf("SC_CLK_TCK")


def gap(server: PostgreSQL, database: Database, folder: Path, options: argparse.Namespace) -> bool:
    """Deliver while everything is cut, killed and restarted; whether each stream had each row of its lease once, in order."""
    dice = random.Random(options.seed)
    with WebServer(folder, database.server.conninfo(database.name, user="page"), streams_per_owner=1000) as page:
        visitors = [Visitor(page) for _ in range(20)]
        for visitor in visitors:
            visitor.open()
        addresses = [visitor.inbox()["address"] for visitor in visitors]
        streams = [EventSource(page, visitor.key) for visitor in visitors]
        for stream in streams:
            stream.next("inbox")
        sent: dict[str, list[int]] = {address: [] for address in addresses}
        left, lock = [options.deliveries], threading.Lock()

        def write() -> None:
            while True:
                with lock:
                    if left[0] <= 0:
                        return
                    left[0] -= 1
                address = dice.choice(addresses)
                raw = b"Subject: x\nMessage-ID: <%s@x>\n\nbody\n" % new_key().hex().encode()
                while True:
                    with suppress(StoreError):
                        found = send(database, address, raw=raw)  # the same message again: it is stored once
                        break
                    time.sleep(0.05)
                with lock:
                    sent[address] += found
                with suppress(StoreError):
                    announce(database)

        cuts, kills, restarts = options.cuts, options.kills, options.restarts
        faults = ["cut"] * cuts + ["kill"] * kills + ["restart"] * restarts
        dice.shuffle(faults)
        with ThreadPoolExecutor(8) as pool:
            writers = [pool.submit(write) for _ in range(8)]
            for number, fault in enumerate(faults):
                while options.deliveries - left[0] < options.deliveries * number / len(faults):
                    time.sleep(0.005)
                if fault == "cut":
                    dice.choice(streams).cut()
                elif fault == "kill":
                    page.kill()
                    page.start()
                else:
                    server.stop()
                    server.start()
            for writer in writers:
                writer.result()
        stored = {
            address: [
                row.id
                for row in database.rows(
                    "SELECT d.id FROM pipehandler.delivery d JOIN pipehandler.address a USING (lease) WHERE a.address = %s"
                    " ORDER BY d.xid, d.id",
                    address,
                )
            ]
            for address in addresses
        }
        wrong = 0
        for address, stream in zip(addresses, streams, strict=True):
            expected = stored[address]
            got: list[int] = []
            with suppress(Exception):
                while len(got) < len(expected):
                    got.append(stream.next("mail", 60).data["delivery"])
            wrong += got != expected or not set(sent[address]) <= set(expected)
            stream.close()
        connections = sum(stream.connections for stream in streams)
    total = sum(map(len, stored.values()))
    print(
        f"{total} deliveries to {len(addresses)} inboxes; {cuts} cuts, the page killed {kills} times, PostgreSQL restarted {restarts} times"
    )
    print(
        f"{connections} connections of {len(streams)} streams; streams with a gap, a repetition or another order: {wrong}"
    )
    return not wrong


class Clients:
    """Streams over raw sockets in one event loop. arrived: when each got its last row."""

    def __init__(self, port: int, keys: list[str]) -> None:
        self._port = port
        self._keys = keys
        self.arrived = [0.0] * len(keys)
        self.beats = 0
        self.ended = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._ready = 0

    async def open(self) -> float:
        """Open all; returns the seconds that it took."""
        started = time.monotonic()
        turns = asyncio.Semaphore(200)
        self._tasks = [asyncio.create_task(self._read(number, key, turns)) for number, key in enumerate(self._keys)]
        while self._ready + self.ended < len(self._keys):
            await asyncio.sleep(0.05)
        return time.monotonic() - started

    async def _read(self, number: int, key: str, turns: asyncio.Semaphore) -> None:
        async with turns:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=65_536)
            writer.write(
                f"GET /en/events HTTP/1.1\r\nHost: inbox.example\r\nX-Forwarded-Proto: https\r\nCookie: __Host-inbox={key}\r\n\r\n".encode()
            )
            status = await reader.readline()
            while not (await reader.readline()).startswith(b"event: inbox") and not reader.at_eof():
                pass
        if b" 200 " not in status:
            self.ended += 1
            return
        self._ready += 1
        while line := await reader.readline():
            if line.startswith(b"event: mail"):
                self.arrived[number] = time.monotonic()
            elif line == b":\n":
                self.beats += 1
        self.ended += 1

    async def close(self) -> None:
        """End all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def memory(pid: int) -> int:
    """Kilobytes of a process that no other shares."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(line.split()[1]) for line in text.splitlines() if line.startswith("Private_"))


def cpu(pid: int) -> float:
    """Seconds of CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def store(database: Database, *recipients: str) -> float:
    """Store one message in one transaction, and announce it; returns the time of the commit."""
    raw = b"Subject: x\nMessage-ID: <%s@x>\n\nbody\n" % new_key().hex().encode()
    with closing(MessageStore(database.conninfo, statement_timeout=120)) as connection:
        connection.ingest(submission(raw, *recipients))
        committed = time.monotonic()
        connection.announce()
    return committed


async def clients(database: Database, folder: Path, options: argparse.Namespace) -> bool:
    """Ten thousand streams."""
    issue(database, max_ttl=86_400, max_life=86_400)
    conninfo = database.server.conninfo(database.name, user="page")
    inboxes = Inboxes(conninfo, 4)
    await inboxes.open_pool()
    keys = [new_key() for _ in range(options.clients)]
    turns = asyncio.Semaphore(4)

    async def opened(key: bytes) -> str:
        async with turns:
            return str((await inboxes.open(key, DOMAIN, None, timedelta(hours=20))).address)

    addresses = await asyncio.gather(*map(opened, keys))
    await inboxes.close()
    with WebServer(folder, conninfo, streams=100_000) as page:
        before = memory(page.pid)
        running = Clients(page.port, list(map(text_of, keys)))
        seconds = await running.open()
        await asyncio.sleep(2)
        after = memory(page.pid)
        print(f"{len(keys) - running.ended} streams, connected in {seconds:.1f} s; refused or ended: {running.ended}")
        print(f"memory: {(after - before) / len(keys):.1f} KB for each, {after / 1024:.0f} MB in all")
        listening = database.value(
            "SELECT count(*) FROM pg_stat_activity WHERE query ~ '^(LISTEN|SELECT pg_backend_pid)' AND usename = 'page'"
        )
        print(f"connections that listen: {listening}")

        delays = []
        for number in random.Random(options.seed).sample(range(len(keys)), options.targeted):
            committed = await asyncio.to_thread(store, database, addresses[number])
            while running.arrived[number] < committed - 1:
                await asyncio.sleep(0.001)
            delays.append(1000 * (running.arrived[number] - committed))
        delays.sort()
        print(
            f"one delivery, from the commit to the client: median {statistics.median(delays):.1f} ms,"
            f" p99 {delays[int(0.99 * (len(delays) - 1))]:.1f} ms, {len(delays)} deliveries"
        )

        spent, started = cpu(page.pid), time.monotonic()
        beats = running.beats
        await asyncio.sleep(options.idle)
        share = (cpu(page.pid) - spent) / (time.monotonic() - started)
        print(f"heartbeats: {100 * share:.1f} % of a core, {running.beats - beats} in {options.idle} s")

        spent = cpu(page.pid)
        committed = await asyncio.to_thread(store, database, *addresses)
        missing = len(keys)
        while missing and time.monotonic() < committed + 120:
            await asyncio.sleep(0.05)
            missing = sum(each < committed - 1 for each in running.arrived)
        print(
            f"one delivery to each: {max(running.arrived) - committed:.1f} s, {missing} missing,"
            f" {1000 * (cpu(page.pid) - spent) / len(keys):.2f} ms of CPU time for each"
        )
        print(f"memory afterwards: {memory(page.pid) / 1024:.0f} MB")
        await running.close()
    return not missing and not running.ended - len(keys) > 0


def main() -> int:
    """Run what was chosen; the status is 1 if a row is missing."""
    options = argparse.ArgumentParser(description="what the inbox page stands")
    options.add_argument("what", choices=("arrival", "visit", "resources", "gap", "clients"))
    options.add_argument("--cold", action="store_true", help="arrival: deliver without the resident service")
    options.add_argument("--seed", type=int, default=1)
    for name, default in {
        "deliveries": 2000,
        "cuts": 200,
        "kills": 20,
        "restarts": 5,
        "messages": 200,
        "requests": 300,
        "clients": 10_000,
        "targeted": 200,
        "idle": 60,
    }.items():
        options.add_argument(f"--{name}", type=int, default=default)
    chosen = options.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(account.folder("pipehandler-inbox-page-"))
        server = PostgreSQL(folder / "pg", VERSION, {"track_commit_timestamp": "on"}).start()
        stack.callback(server.stop)
        database = stack.enter_context(Database.fresh(server))
        if chosen.what in ("arrival", "visit"):
            return 0 if (arrival if chosen.what == "arrival" else visit)(database, folder, chosen) else 1
        issue(database)
        if chosen.what == "gap":
            return 0 if gap(server, database, folder, chosen) else 1
        if chosen.what == "resources":
            return 0 if resources(database, folder) else 1
        return 0 if asyncio.run(clients(database, folder, chosen)) else 1


if __name__ == "__main__":
    sys.exit(main())
