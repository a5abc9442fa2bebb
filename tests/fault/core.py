"""The core without its cold start: deliver() in this process, on a connection of the handler's role."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.database import Database

from pipehandler.delivery.deliver import Session, deliver
from pipehandler.mail.envelope import Envelope
from pipehandler.mail.identity import identify
from pipehandler.mail.outcome import Result, folded, outcome_of
from pipehandler.mail.parsed import Defect
from pipehandler.runtime.deadline import Deadline
from pipehandler.runtime.stopwatch import Stopwatch
from pipehandler.settings import config
from pipehandler.store.message_store import MessageStore


class Core:
    """deliver() for many messages, one after the other, in the main thread (its deadline is a signal)."""

    def __init__(self, store: MessageStore, folder: Path) -> None:
        self._store = store
        self._config = config.Config(state=config.State(str(folder)))

    def deliver(self, raw: bytes, *recipients: str, smaller: bool = False) -> Result:
        """Deliver one message; `smaller`: Postfix declared a greater size."""
        try:
            started = time.monotonic()
            session = Session(
                self._config, self._store, Deadline(self._config.limits.deadline, started), Stopwatch(started), "pipe"
            )
            defects = [Defect("smaller-than-declared")] if smaller else []
            return folded(deliver(raw, identify(raw), Envelope("sender@example.org", recipients), session, defects))
        except Exception as error:  # noqa: BLE001 # the outcome table decides what it means
            return outcome_of(error)
        finally:
            # A deadline still running would end this process.
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)


@contextmanager
def core(database: Database, folder: Path) -> Iterator[Core]:
    """The core with a connection to `database`; its state directory is `folder`."""
    store = MessageStore(f"{database.conninfo} application_name=core")
    try:
        yield Core(store, folder)
    finally:
        store.close()
