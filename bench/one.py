"""One delivery at a time: what a 12 KB newsletter costs, compared with the bare interpreter and the usual script.

    bench/run one [--rounds 150]

Each round starts all of them in turn, each with a separate message, as pipe(8) would; the slow ones only in every tenth
round. The figures are medians over whole processes.
"""

import os
import shutil
import socket
import statistics
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cost import peak
from harness.database import Database
from harness.handler import Handler
from mail import newsletter
from process import Ended, Starter
from report import Aim, Report, Table
from setting import Clock, Setting, backends

from pipehandler.delivery.circuit_breaker import CircuitBreaker
from pipehandler.mail.sysexits import EX_OK, EX_TEMPFAIL
from pipehandler.postfix import client

SMALL = {"rounds": 2}
USUAL_TABLE = "CREATE TABLE usual (message_id text, subject text, sender text, body text, raw bytea)"

BARE, START, RESIDENT = "bare interpreter, -I -S", "entrypoint, answered at once", "pipehandler, resident"
C_START, C_DIRECT, C_RESIDENT = "client, answered at once", "the same, without the loader", "pipehandler, client"
USUAL, COLD, REFUSED = "usual script", "pipehandler, cold", "refused in an outage, cold"
_SLOW = (USUAL, COLD, REFUSED)
_REFUSED = (REFUSED, START, C_START, C_DIRECT)
_EVERY = 10


def measure(setting: Setting, *, rounds: int = 150) -> Report:
    """Measure and compare; raises if a message was not stored."""
    with Database.fresh(setting.server) as database:
        database.execute(USUAL_TABLE)
        serve: dict[str, object] = {"workers": 1, "max_messages": 1_000_000}
        resident, start = setting.handler(database, serve=serve), setting.handler(database)
        cold, refused = setting.handler(database), Handler(setting.new_folder(), "host=/nonexistent")
        commands = {
            BARE: [sys.executable, "-I", "-S", "-c", "pass"],
            START: start.command(),
            RESIDENT: resident.command(),
            C_START: [*client_words(), *start.command()],
            C_DIRECT: [*client_words()[1:], *start.command()],
            C_RESIDENT: [*client_words(), *resident.command()],
            "bare interpreter, -I": [sys.executable, "-I", "-c", "pass"],
            REFUSED: refused.command(),
            COLD: cold.command(),
            USUAL: [sys.executable, str(usual_script(setting.new_folder())), database.admin],
        }
        ended: dict[str, list[Ended]] = defaultdict(list)
        flushed = []
        with (
            Starter(setting.new_folder()) as starter,
            _answering_at_once(start.socket),
            setting.service(resident) as service,
        ):
            starter.run(commands[RESIDENT], newsletter(0), EX_OK)  # the worker connects
            (worker,), (backend,) = service.workers(), backends(database)
            clocks = {
                "worker": Clock(worker),
                "its PostgreSQL session": Clock(backend),
                "supervisor": Clock(service.pid),
            }
            for number in range(1, rounds + 2):
                for name, command in commands.items():
                    if name in _SLOW and number % min(_EVERY, rounds) != 1:
                        continue
                    if name == REFUSED:
                        CircuitBreaker(str(refused.state)).trip()
                    message = newsletter(number + 1_000_000 * (name == COLD) + 2_000_000 * (name == C_RESIDENT))
                    result = starter.run(command, message, EX_TEMPFAIL if name in _REFUSED else EX_OK)
                    if number > 1:  # the first warms the caches
                        ended[name].append(result)
                flushed.append(_flush(setting.server.folder))
            spent = {name: 1000 * clock.seconds() / (2 * (rounds + 1)) for name, clock in clocks.items()}
            worker_peak = peak(worker)
        slow = len(ended[COLD]) + 1
        stored = (
            database.value("SELECT count(*) FROM pipehandler.delivery"),
            database.value("SELECT count(*) FROM usual"),
        )
    if stored != (2 * rounds + 3 + slow, slow):
        raise RuntimeError(f"{stored} stored instead of {2 * rounds + 3 + slow} and {slow}")
    return _report(ended, spent, statistics.median(flushed), worker_peak)


def _report(ended: dict[str, list[Ended]], spent: dict[str, float], flushed: float, worker_peak: int) -> Report:
    cpu = {name: 1000 * statistics.median(each.cpu for each in rows) for name, rows in ended.items()}
    wall = {name: 1000 * statistics.median(each.wall for each in rows) for name, rows in ended.items()}
    last = {name: 1000 * percentile([each.wall for each in rows], 99) for name, rows in ended.items()}
    memory = {name: max(each.peak for each in rows) / 2**20 for name, rows in ended.items()}
    rows = [
        [name, len(ended[name]), cpu[name], cpu[name] / cpu[USUAL], wall[name], last[name], memory[name]]
        for name in sorted(ended, key=lambda name: cpu[name])
    ]
    more = [[name, figure] for name, figure in spent.items()]
    return Report(
        tables=[
            Table(
                "One delivery",
                ["process", "runs", "CPU ms", "of the usual", "wall ms", "99 %", "peak MB"],
                rows,
                f"One newsletter of {len(newsletter(1)):,} octets at a time, medians of whole processes as pipe(8) starts them; the"
                " second bare interpreter loads site-packages. Answered at once: a service that takes nothing answers, so"
                f" this is the entrypoint's own start. The client is the one in C, which master.cf starts through the loader. Writing and flushing 16 KB alone takes {1000 * flushed:.2f} ms on this disk.",
            ),
            Table(
                "Behind the resident entrypoint",
                ["process", "CPU ms per message"],
                more,
                f"Means of the same messages. The worker had {worker_peak / 2**20:.0f} MB resident at most, most of it shared with"
                " the others.",
            ),
        ],
        aims=[
            Aim("CPU of the resident entrypoint, of a bare interpreter's (-I -S)", cpu[RESIDENT] / cpu[BARE], 1.3),
            Aim("CPU of the hand-over client, answered at once", cpu[C_START], 0.55, unit=" ms"),
            Aim("the same, without the loader", cpu[C_DIRECT], 0.25, unit=" ms"),
            Aim("wall time of one resident delivery of 12 KB, fsync included", wall[RESIDENT], 15, unit=" ms"),
            Aim("the same, over the entrypoint's own start", wall[RESIDENT] - wall[START], 4, unit=" ms"),
            Aim("CPU of the worker for 12 KB", spent["worker"], 3, unit=" ms"),
        ],
    )


def client_words() -> list[str]:
    """The words that start the hand-over client of this environment."""
    path = client.shipped()
    if not path:
        raise RuntimeError("the hand-over client is missing: this environment was made without a C compiler")
    return client.start(path)


def usual_script(folder: Path) -> Path:
    """The usual script, in a place where the account may read it."""
    return Path(shutil.copy(Path(__file__).with_name("usual.py"), folder))


def percentile(figures: list[float], of_hundred: int) -> float:
    """A percentile: the smallest of the figures that so many of a hundred do not exceed."""
    return sorted(figures)[max(0, -(-len(figures) * of_hundred // 100) - 1)]


@contextmanager
def _answering_at_once(path: Path) -> Iterator[None]:
    """A service that refuses every message at once."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen(100)

        def answer() -> None:
            try:
                while True:
                    visitor, _ = listener.accept()
                    with visitor:
                        visitor.recv(100_000)
                        visitor.send(b"end 75 4.4.5 congested")
            except OSError:
                return

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        yield
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _flush(folder: Path) -> float:
    """How long it takes to write 16 KB to an existing file and flush it: the lower bound of a commit."""
    file = os.open(folder / "flushed", os.O_RDWR | os.O_CREAT)
    try:
        if not os.fstat(file).st_size:
            os.write(file, bytes(1 << 20))
            os.fsync(file)
        started = time.monotonic()
        os.pwrite(file, os.urandom(16_384), 0)
        os.fdatasync(file)
        return time.monotonic() - started
    finally:
        os.close(file)
