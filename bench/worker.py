"""One newsletter in one worker: what its steps cost, and its session of PostgreSQL.

    bench/run worker [--rounds 500]

All of it runs in this process, as a worker runs it, without the entrypoint and the supervisor. The wall time needs an
idle core, and includes one flush to the disk.
"""

import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from cost import cpu
from harness.database import Database
from harness.handler import entrypoint
from mail import newsletter
from report import Aim, Report, Table
from setting import Setting

from pipehandler.ingress.pipe import run
from pipehandler.ingress.single import Resident
from pipehandler.ingress.truncation import Caller
from pipehandler.mail.identity import identify
from pipehandler.parse.loading import load_all
from pipehandler.parse.message import parse
from pipehandler.record.journal import Journal
from pipehandler.runtime import limits
from pipehandler.settings.config_file import load
from pipehandler.store.message_store import MessageStore

_T = TypeVar("_T")

SMALL = {"rounds": 3}


def measure(setting: Setting, *, rounds: int = 500) -> Report:
    """Measure; raises if a message was not stored."""
    load_all()
    spent: dict[str, list[float]] = {}

    def timed(step: str, work: Callable[[], _T], clock: Callable[[], float] = time.thread_time) -> _T:
        before = clock()
        result = work()
        spent.setdefault(step, []).append(1000 * (clock() - before))
        return result

    with Database.fresh(setting.server) as database:
        handler = setting.handler(database)
        argv = handler.command()[len(entrypoint()) :]
        config = load(str(handler.config))
        store = MessageStore(config.database.conninfo)
        backend = store.connect().info.backend_pid
        resident = Resident(config, store, Journal(config.state.directory))
        caller = Caller(os.getpid(), os.getppid())
        for number in range(rounds + 1):
            raw = newsletter(number)
            with open(os.memfd_create("message"), "w+b", buffering=0) as file:
                file.write(raw)
                file.seek(0)
                session = cpu(backend)
                began = time.thread_time()
                started = time.monotonic()
                with limits.temporarily(config.limits):  # what runs later in this process has others
                    finished = run(argv, started, file.fileno(), caller, resident)
                    until_answer = time.monotonic() - started
                    timed("log, journal, notification", finished.after_reply)
                spent.setdefault("worker, all of it", []).append(1000 * (time.thread_time() - began))
                spent.setdefault("PostgreSQL session", []).append(1000 * (cpu(backend) - session))
                spent.setdefault("wall time until the answer", []).append(1000 * until_answer)
            timed("identify", partial(identify, raw))
            timed("parse", partial(parse, raw))
        store.close()
        resident.journal.close()
        stored = database.value("SELECT count(*) FROM pipehandler.delivery")
    if stored != rounds + 1:
        raise RuntimeError(f"{stored} were stored, not {rounds + 1}")
    rows: list[list[object]] = []
    for step, figures in spent.items():
        low, middle, high = statistics.quantiles(figures[1:], n=4)  # the first warms the caches
        rows.append([step, middle, low, high, min(figures)])
    medians = {str(row[0]): float(str(row[1])) for row in rows}
    note = f"CPU time, but for the wall time; {rounds} newsletters of {len(raw):,} octets."
    return Report(
        [Table("One worker", ["step", "ms", "1st quartile", "3rd quartile", "least"], rows, note)],
        [
            Aim(
                "wall time of one newsletter in a worker, until the answer",
                medians["wall time until the answer"],
                1.6,
                unit=" ms",
            ),
            Aim("CPU of the session of PostgreSQL for it", medians["PostgreSQL session"], 0.7, unit=" ms"),
        ],
    )
