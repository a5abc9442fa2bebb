"""The ingress pipe: one message from pipe(8), envelope in argv, the bytes on fd 0.

What is costly to import (psycopg, mail-parser) is imported after argv, the configuration and the message are known
to be good. Statuses and texts come from the outcome table; the log line is written last.
"""

import io
import os
import re
import resource
import time
from collections.abc import Callable, Sequence

from . import log, outcome
from .config import Config, ConfigError, Log, load
from .deadline import GRACE, Deadline, TimeUp
from .envelope import Envelope, UsageError, from_argv
from .outage import Outage
from .outcome import Outcome
from .sysexits import EX_OK

INGRESS = "pipe"
_LARGEST_FILE = 1 << 30  # octets; the log file is the only one that grows
_LONG_LINE = re.compile(rb"[^\n]{128,}")


class _Attempt:
    """What is known of this delivery for its log line."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.settings = Log()
        self.envelope: Envelope | None = None
        self.size: int | None = None

    def record(self, how: Outcome, **values: object) -> None:
        envelope = self.envelope
        text = log.line(
            how.action,
            status=how.status,
            code=how.code,
            queue_id=(envelope.queue_id or None) if envelope else None,
            recipients=len(envelope.recipients) if envelope else None,
            size=self.size,
            seconds=time.monotonic() - self.started,
            **{key: value or None for key, value in values.items()},
        )
        log.write(text, self.settings, failed=how.status != 0)


def run(argv: Sequence[str], started: float) -> tuple[int, str, Callable[[], None]]:
    """Deliver the message on fd 0. `argv`: what follows `deliver`; `started`: time.monotonic at the start.

    Returns the exit status, the line for pipe(8), and what writes the log line, to be called when pipe(8) has its line.
    """
    attempt = _Attempt(started)
    parent = os.getppid()
    try:
        attempt.envelope, path = from_argv(argv)
        config = load(path)
    except (UsageError, ConfigError) as error:
        reason = str(error)
        how = outcome.MISCONFIGURED
        return how.status, how.line(), lambda: attempt.record(how, reason=reason)
    attempt.settings = config.log
    deadline = Deadline(config.limits.deadline, started)
    try:
        _limit(config)
        how, stored, values = _deliver(attempt, attempt.envelope, config, deadline, parent)
    except TimeUp:
        how, stored, values = outcome.DEADLINE, "", {"reason": "time was up before the message was stored"}
    deadline.disarm()
    return how.status, how.line(stored), lambda: attempt.record(how, **values)


def _deliver(
    attempt: _Attempt, envelope: Envelope, config: Config, deadline: Deadline, parent: int
) -> tuple[Outcome, str, dict[str, str | None]]:
    outage = Outage(config.state.directory)
    if outage.refuses():
        return outcome.STORE_UNAVAILABLE, "", {"reason": "the database is known to be down"}

    limit = config.limits.message_size
    os.set_blocking(0, True)  # or a pause of the writer would be taken for the end
    raw = io.BufferedReader(io.FileIO(0, closefd=False)).read(limit + 1)
    attempt.size = len(raw)
    if len(raw) > limit:
        return outcome.TOO_LARGE, "", {"reason": f"larger than limits.message_size = {limit}"}

    # Imported here, because what is refused above does not need it.
    from datetime import UTC, datetime

    from .deliver import deliver
    from .fingerprint import prepended
    from .store import Store

    # ${size} does not count what pipe(8) itself prepended to the message.
    short = envelope.size is not None and _queue_file_octets(raw, prepended(raw)) < envelope.size
    if not raw or ((short or envelope.size is None) and _is_orphan(parent)) or (short and parent == 1):
        # The end of the input is that of pipe(8). Nobody reads this status; Postfix will deliver the whole message again.
        return outcome.CUT, "", {"reason": f"{len(raw)} octets came of a message of {envelope.size}"}

    database = config.database
    store = Store(database.conninfo, database.connect_timeout, database.statement_timeout, deadline.remaining)
    result = deliver(
        raw,
        envelope,
        config,
        store,
        deadline,
        ingress=INGRESS,
        mail_host=config.store.mail_host or os.uname().nodename,
        received_at=datetime.now(UTC).isoformat(),
        short=short,
    )
    store.close()
    if result.outcome.status == EX_OK:
        outage.succeeded()
    elif result.outage:
        outage.failed()
    values = {
        "message": result.message,
        "message_id": result.message_id,
        "sqlstate": result.sqlstate,
        "reason": result.reason,
    }
    return result.outcome, result.message, values


def _limit(config: Config) -> None:
    """Limits that the kernel keeps for us: a MemoryError instead of a starved host, and an end to code that never
    returns to Python and so does not see SIGALRM (SIGXCPU; death by signal defers)."""
    _lower(resource.RLIMIT_AS, config.limits.memory)
    _lower(resource.RLIMIT_CPU, config.limits.deadline + int(GRACE))
    _lower(resource.RLIMIT_FSIZE, _LARGEST_FILE)
    _lower(resource.RLIMIT_NPROC, 0)
    _lower(resource.RLIMIT_CORE, 0)


def _lower(kind: int, limit: int) -> None:
    soft, hard = resource.getrlimit(kind)
    if soft == resource.RLIM_INFINITY or limit < soft:
        resource.setrlimit(kind, (limit, hard))


def _queue_file_octets(raw: bytes, start: int) -> int:
    """What ${size} says of `raw` from `start` on, where no Milter changed it: the octets of its records in the queue file.

    A line is one record with a header of two octets, three from 128 octets on; line_length_limit (2048) cuts a longer line
    into several (Postfix 3.7, measured).
    """
    octets = len(raw) - start + raw.count(b"\n", start)
    for long in _LONG_LINE.finditer(raw, start):
        full, rest = divmod(len(long[0]), 2048)
        octets += 3 * full + (rest >= 128)
    return octets


def _is_orphan(parent: int) -> bool:
    """Whether pipe(8), our parent, is gone, or is on its way out: it closes our stdin before it is seen to be gone."""
    try:
        with open(f"/proc/{parent}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:  # hidden from us, or gone
        time.sleep(0.2)
        return os.getppid() != parent
    # proc(5): the third field, first here, is the state; the ninth is the flags, of which 4 is PF_EXITING.
    return os.getppid() != parent or fields[0] in b"ZX" or bool(int(fields[6]) & 4)
