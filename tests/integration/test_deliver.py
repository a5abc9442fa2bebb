"""The end of `deliver`, for a caller in the same process."""

import signal
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from harness.database import Database
from harness.submission import MESSAGE

from pipehandler.delivery.deliver import Session, deliver, deliver_each
from pipehandler.mail.envelope import from_argv
from pipehandler.mail.identity import identify
from pipehandler.mail.outcome import DELIVERED, Result
from pipehandler.runtime.deadline import GRACE, Deadline, clear
from pipehandler.runtime.stopwatch import Stopwatch
from pipehandler.settings.config import Config, State
from pipehandler.store.message_store import MessageStore


@pytest.mark.parametrize("way", [deliver, deliver_each])
def test_nothing_interrupts_after_the_commit(
    database: Database, tmp_path: Path, way: Callable[..., tuple[Result, ...]]
) -> None:
    """On return TimeUp is not raised any more: the message is stored, and Postfix must not hear otherwise."""
    envelope = from_argv(["--sender=a@example.org", "--", "b@example.com", "c@example.com"])
    deadline = Deadline(600, time.monotonic())
    try:
        with closing(MessageStore(database.conninfo)) as store:
            session = Session(Config(state=State(str(tmp_path))), store, deadline, Stopwatch(time.monotonic()), "pipe")
            results = way(MESSAGE, identify(MESSAGE), envelope, session)
        assert [result.outcome for result in results] == [DELIVERED] * 2
        assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL
        assert 600 < signal.getitimer(signal.ITIMER_REAL)[0] <= 600 + GRACE
    finally:
        clear()
