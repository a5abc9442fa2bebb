"""Maildir: the watcher, its workers and the database are killed, stopped and restarted while files come in, more at once than
inotify can report.

Every file must be stored once, byte for byte, and then be in cur/; new/ and failed/ must be empty.
"""

import random
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from harness import account
from harness.database import Database
from harness.handler import Handler
from harness.maildir import Mailbox, message, watching
from harness.postgresql import FAST, PostgreSQL
from harness.service import wait_until

from .ledger import Ledger, Mode, Row, Scale
from .processes import send

_FILES = {Scale.FULL: 20_000, Scale.THIN: 18_000, Scale.SHORT: 200}
_KILLS = {Scale.FULL: 20, Scale.THIN: 8, Scale.SHORT: 2}
_OVERFLOW = 16_500  # more than fs.inotify.max_queued_events
_PATIENCE = 900


def run(scale: Scale, mode: Mode) -> Row:
    """The campaign of the Maildir watcher."""
    row = mode.row("maildir")
    ledger = Ledger()
    with (
        account.folder("pipehandler-md-") as folder,
        PostgreSQL(folder / "16", 16, FAST).start() as server,
        Database.fresh(server) as database,
    ):
        (folder / "handler").mkdir()
        handler = Handler(folder / "handler", database.conninfo)
        maildir = Mailbox(handler.folder / "Maildir")
        numbers = iter(range(_FILES[scale]))

        def put() -> bool:
            number = next(numbers, None)
            if number is None:
                return False
            recipient = f"user{number % 100}@example.com"
            raw = message(number, recipient)
            maildir.put(raw, rename=number % 3 == 0)
            ledger.send(raw, recipient)
            return True

        with watching(handler, maildir, watch={"scan_interval": 2}) as watch:
            if not scale.short:
                watch.waits_for("event=watching")
                watch.running.send_signal(signal.SIGSTOP)
                for _ in range(_OVERFLOW):
                    put()
                watch.running.send_signal(signal.SIGCONT)
                watch.waits_for("event=overflow")
                row.points += 1

            def fill() -> None:
                while put():
                    time.sleep(random.uniform(0, 0.01))

            def kill_watcher() -> None:
                watch.running.kill()
                watch.restart()

            def kill_worker() -> None:
                wait_until(watch.workers)
                with suppress(ProcessLookupError):
                    send(random.choice(watch.workers()), signal.SIGKILL)

            def restart_database() -> None:
                server.stop()
                time.sleep(random.uniform(0, 0.5))
                server.start()

            def stop_watcher() -> None:
                watch.stop()
                watch.running = watch.started()

            faults: list[Callable[[], None]] = [kill_watcher, kill_worker, restart_database, stop_watcher]
            filling = threading.Thread(target=fill)
            filling.start()
            for number in range(_KILLS[scale]):
                with suppress(TimeoutError):
                    maildir.wait(len(maildir.names("cur")) + 1)
                kill_watcher()
                faults[number % len(faults)]()
                row.points += 2
            filling.join()
            until = time.monotonic() + _PATIENCE
            while not maildir.is_empty() and time.monotonic() < until:
                time.sleep(0.1)
        for name in ("new", "failed"):
            if left := maildir.names(name):
                row.note(f"{len(left)} files are in {name}/")
        if len(maildir.names("cur")) != _FILES[scale]:
            row.note(f"{len(maildir.names('cur'))} files are in cur/")
        ledger.check(database, row)
        for outcome in watch.outcomes():
            row.statuses[0 if outcome in ("delivered", "duplicate") else 75] += 1
    return row
