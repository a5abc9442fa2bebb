"""From the link into a Maildir to the commit, one message at a time, with the watcher idle in between.

    bench/run latency [--messages 200]

A file is moved after the commit, which sets its ctime; so the time until then is an upper bound. Without inotify, the
scan finds the message: on average after half of its interval.
"""

import os
import time

from harness.database import Database
from harness.maildir import Mailbox, message
from harness.service import wait_until
from one import percentile
from report import Aim, Report, Table
from setting import Setting

SMALL = {"messages": 3}
_PAUSE = 0.02  # seconds between two messages


def measure(setting: Setting, *, messages: int = 200) -> Report:
    """Measure it."""
    times = []
    with Database.fresh(setting.server) as database:
        handler = setting.handler(database)
        maildir = Mailbox(handler.folder / "Maildir")
        with setting.watcher(handler, maildir):
            for number in range(messages + 1):
                name = maildir.put(message(number))
                linked = time.time()
                moved = maildir.path / "cur" / f"{name}:2,"
                wait_until(moved.exists)
                times.append(1000 * (os.stat(moved).st_ctime_ns / 1e9 - linked))
                time.sleep(_PAUSE)
    del times[0]  # it waits for the workers
    median = percentile(times, 50)
    head = ["way", "messages", "median ms", "99 % ms"]
    note = "From link(2) into new/ to the rename after the commit, on a quiet queue; the server syncs each commit."
    rows = [["pipehandler, Maildir", len(times), median, percentile(times, 99)]]
    return Report([Table("Latency", head, rows, note)], [Aim("Maildir, from link to commit", median, 20, unit="ms")])
