"""The journal: what it adds to each attempt.

    bench/run journal [--rounds 100] [--records 100000]

A cold delivery loads SQLite, opens the file, and writes begin and end; a resident worker has the file open. The file
already holds `records` records: the most that are kept.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from report import Aim, Report, Table
from setting import Setting

from pipehandler.mail.outcome import DELIVERED, Result
from pipehandler.record.journal import Journal

SMALL = {"rounds": 3, "records": 1_000}
PHASES = {"start": 0.1, "read": 0.001, "parse": 0.01, "store": 0.01}

# What every delivery loads is loaded first; the time of each step in seconds is printed on stdout.
COLD = """
import bisect, collections.abc, contextlib, datetime, functools, json, os, sys, time, typing
from pipehandler.mail.outcome import DELIVERED, Result
times = [time.perf_counter()]
from pipehandler.record.journal import Journal
times.append(time.perf_counter())
journal = Journal(sys.argv[1])
entry = journal.begin("pipe", "cold", "4jX0XQ66FjzJ9Ll", time.monotonic())
times.append(time.perf_counter())
journal.end(entry, "pipe", "cold", Result(DELIVERED), 12000, json.loads(sys.argv[2]))
times.append(time.perf_counter())
print(json.dumps([after - before for before, after in zip(times, times[1:])]), flush=True)
os._exit(0)
"""


def measure(setting: Setting, *, rounds: int = 100, records: int = 100_000) -> Report:
    """Measure; raises if an attempt was not recorded."""
    folder = str(setting.new_folder())
    journal = Journal(folder)
    written = [_write(journal) for _ in range(records)]
    cold = [_cold(folder) for _ in range(rounds)]
    resident = [_write(journal) for _ in range(20 * rounds)]
    size = sum(path.stat().st_size for path in Path(folder).glob("journal.sqlite*"))
    if journal.begin("pipe", "cold", "", time.monotonic()) != records + 21 * rounds + 1:
        raise RuntimeError("not every attempt was written down")
    journal.close()
    steps = [1000 * statistics.median(each) for each in zip(*cold, strict=True)]
    whole = 1000 * statistics.median(map(sum, cold))
    kept = 1000 * statistics.median(resident)
    rows = [
        ["cold, all of it", whole, 1000 * max(map(sum, cold))],
        *(
            [f"cold, {name}", step, float("nan")]
            for name, step in zip(("loading SQLite", "opening, begin", "end"), steps, strict=True)
        ),
        ["resident, begin and end", kept, 1000 * max(resident)],
    ]
    note = (
        f"Medians, with {records:,} records in the file before ({size / 2**20:.1f} MB), which took"
        f" {1000 * sum(written) / records:.3f} ms each; the greatest may have moved the write-ahead log or removed old records."
    )
    return Report(
        tables=[Table("The journal", ["step", "ms", "greatest"], rows, note)],
        aims=[
            Aim("the journal, for each cold delivery", whole, 2, unit=" ms"),
            Aim("the journal, for each resident delivery", kept, 2, unit=" ms"),
        ],
    )


def _write(journal: Journal) -> float:
    """Seconds for the begin and the end of one attempt."""
    started = time.perf_counter()
    entry = journal.begin("pipe", "resident", "4jX0XQ66FjzJ9Ll", time.monotonic())
    journal.end(entry, "pipe", "resident", Result(DELIVERED), 12_000, PHASES)
    return time.perf_counter() - started


def _cold(folder: str) -> list[float]:
    """Seconds for loading, begin and end in a new process."""
    command = [sys.executable, "-c", COLD, folder, json.dumps(PHASES)]
    seconds: list[float] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return seconds
