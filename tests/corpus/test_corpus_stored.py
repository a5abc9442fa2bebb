"""Every real message passes through the whole core into PostgreSQL, and its bytes come out unchanged."""

import re
import signal
import time
from pathlib import Path

from harness.database import Database

from corpus.messages import names, needs_corpus, read
from pipehandler.delivery.deliver import Session, deliver
from pipehandler.mail.envelope import Envelope
from pipehandler.mail.identity import identify
from pipehandler.mail.outcome import DELIVERED, DUPLICATE
from pipehandler.runtime.deadline import Deadline
from pipehandler.runtime.stopwatch import Stopwatch
from pipehandler.settings.config import Config, State
from pipehandler.store import messages
from pipehandler.store.message_store import MessageStore


def kibibytes(what: str) -> int:
    """A figure of this process's memory, from /proc."""
    found = re.search(rf"{what}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1])


@needs_corpus
def test_real_messages_are_stored(database: Database) -> None:
    """Each is delivered within 300 MB, parsed, and byte-exact; delivered again it is a duplicate."""
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): reset the peak
    before = kibibytes("VmRSS")
    config = Config(state=State(directory="/nonexistent"))
    store = MessageStore(database.conninfo)
    reader = MessageStore(database.admin)
    try:
        for number, name in enumerate(names()):
            raw = read(name)
            # A distinct recipient: some of the files are the same message.
            envelope = Envelope("sender@example.org", (f"message{number}@example.com",))
            for expected in (DELIVERED, DUPLICATE):
                started = time.monotonic()
                session = Session(config, store, Deadline(60, started), Stopwatch(started), "pipe")
                (result,) = deliver(raw, identify(raw), envelope, session)
                assert result.outcome == expected, (name, result)
            ((delivery,),) = database.rows(
                "SELECT id FROM pipehandler.delivery WHERE recipient = %s", envelope.recipients[0]
            )
            assert messages.raw(reader, str(delivery)) == raw, name
        assert database.value("SELECT count(*) FROM pipehandler.message WHERE state <> 'parsed'") == 0
    finally:
        store.close()
        reader.close()
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert kibibytes("VmHWM") - before < 300 * 1024
