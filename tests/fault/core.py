"""The core without its cold start: deliver() in this process, on a connection of the handler's role."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from harness.database import Database

from pipehandler.delivery.deliver import deliver
from pipehandler.mail.envelope import Envelope
from pipehandler.mail.outcome import Result
from pipehandler.runtime.deadline import Deadline
from pipehandler.runtime.stopwatch import Stopwatch
from pipehandler.settings import config
from pipehandler.store.connection import Store


class Core:
    """deliver() for many messages, one after the other, in the main thread (its deadline is kept by a signal)."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._config = config.Config(state=config.State(str(folder)))

    def deliver(self, raw: bytes, *recipients: str, short: bool = False) -> Result:
        """Deliver one message; `short`: Postfix told a greater size."""
        try:
            return deliver(
                raw,
                Envelope("sender@example.org", recipients),
                self._config,
                self._store,
                Deadline(self._config.limits.deadline, time.monotonic()),
                Stopwatch(time.monotonic()),
                ingress="pipe",
                mail_host="mx.example.com",
                received_at=datetime.now(UTC).isoformat(),
                short=short,
            )
        finally:
            # What is left of the deadline would end this process.
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)


@contextmanager
def core(database: Database, folder: Path) -> Iterator[Core]:
    """The core with a connection to `database`; its state directory is `folder`."""
    store = Store(f"{database.conninfo} application_name=core")
    try:
        yield Core(store, folder)
    finally:
        store.close()
