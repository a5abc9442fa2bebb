"""The ingress pipe: one message from pipe(8), envelope in argv, the bytes on a descriptor.

Both ways come here: the entrypoint itself (cold), and a resident worker to which it handed argv and its stdin. What is costly
to import (psycopg, mail-parser) is imported after argv, the configuration and the message are known to be good.
Statuses and texts come from the outcome table; the log line is written last.
"""

import io
import os
import re
import resource
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from . import log, outcome
from .config import Config, ConfigError, Log, load
from .deadline import GRACE, Deadline, TimeUp
from .envelope import Envelope, UsageError, from_argv
from .outage import Outage
from .outcome import Outcome
from .stopwatch import Stopwatch
from .sysexits import EX_OK

if TYPE_CHECKING:
    from .store import Store

INGRESS = "pipe"
_LARGEST_FILE = 1 << 30  # octets; the log file is the only one that grows
_LONG_LINE = re.compile(rb"[^\n]{128,}")


class Caller(NamedTuple):
    """Who brings the message: the process id of the entrypoint, and that of pipe(8), its parent when it started."""

    pid: int
    parent: int


class Resident(NamedTuple):
    """What a resident worker has and a cold delivery gets for itself: the configuration, and a store with an open connection."""

    config: Config
    store: "Store"


class _Attempt:
    """What is known of this delivery for its log line."""

    def __init__(self, started: float, way: str) -> None:
        self.started = started
        self.stopwatch = Stopwatch(started)
        self.way = way
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
            way=self.way,
            seconds=time.monotonic() - self.started,
            **{key: value or None for key, value in values.items()},
        )
        log.write(text, self.settings, failed=how.status != 0)


def run(
    argv: Sequence[str], started: float, file: int = 0, caller: Caller | None = None, resident: Resident | None = None
) -> tuple[int, str, Callable[[], None]]:
    """Deliver the message on the descriptor `file`. `argv`: what follows `deliver`; `started`: time.monotonic at the start of the
    entrypoint; `caller`: who that is, if not this process; `resident`: what a worker has ready.

    Returns the exit status, the line for pipe(8), and what writes the log line, to be called when pipe(8) has its line.
    """
    attempt = _Attempt(started, "resident" if resident else "cold")
    caller = caller or Caller(os.getpid(), os.getppid())
    try:
        attempt.envelope, path = from_argv(argv)
        config = resident.config if resident else load(path)
    except (UsageError, ConfigError) as error:
        reason = str(error)
        how = outcome.MISCONFIGURED
        return how.status, how.line(), lambda: attempt.record(how, reason=reason)
    attempt.settings = config.log
    deadline = Deadline(config.limits.deadline, started)
    try:
        _limit(config)
        with Outage(config.state.directory) as outage:
            store = resident.store if resident else None
            how, stored, values = _deliver(attempt, attempt.envelope, config, deadline, outage, file, caller, store)
    except TimeUp:
        how, stored, values = outcome.DEADLINE, "", {"reason": "time was up before the message was stored"}
    deadline.disarm()
    return how.status, how.line(stored), lambda: attempt.record(how, **values)


def _deliver(
    attempt: _Attempt,
    envelope: Envelope,
    config: Config,
    deadline: Deadline,
    outage: Outage,
    file: int,
    caller: Caller,
    kept: "Store | None",
) -> tuple[Outcome, str, dict[str, str | None]]:
    if outage.refuses():
        return outcome.STORE_UNAVAILABLE, "", {"reason": "the database is known to be down"}

    limit = config.limits.message_size
    attempt.stopwatch.enter("read")
    os.set_blocking(file, True)  # or a pause of the writer would be taken for the end
    raw = io.BufferedReader(io.FileIO(file, closefd=False)).read(limit + 1)
    attempt.size = len(raw)
    attempt.stopwatch.enter("start")
    if len(raw) > limit:
        return outcome.TOO_LARGE, "", {"reason": f"larger than limits.message_size = {limit}"}

    # Imported here, because what is refused above does not need it.
    from datetime import UTC, datetime

    from .deliver import deliver
    from .fingerprint import prepended
    from .store import Store

    # ${size} does not count what pipe(8) itself prepended to the message.
    short = envelope.size is not None and _queue_file_octets(raw, prepended(raw)) < envelope.size
    if not raw or ((short or envelope.size is None) and _is_orphan(caller)) or (short and caller.parent == 1):
        # The end of the input is that of pipe(8). Nobody reads this status; Postfix will deliver the whole message again.
        return outcome.CUT, "", {"reason": f"{len(raw)} octets came of a message of {envelope.size}"}

    database = config.database
    store = kept or Store(database.conninfo, database.connect_timeout, database.statement_timeout)
    store.remaining = deadline.remaining
    result = deliver(
        raw,
        envelope,
        config,
        store,
        deadline,
        attempt.stopwatch,
        ingress=INGRESS,
        mail_host=config.store.mail_host or os.uname().nodename,
        received_at=datetime.now(UTC).isoformat(),
        short=short,
    )
    if not kept:
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
    used = resource.getrusage(resource.RUSAGE_SELF)
    _set(resource.RLIMIT_AS, config.limits.memory)
    _set(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + config.limits.deadline + int(GRACE))
    _set(resource.RLIMIT_FSIZE, _LARGEST_FILE)
    _set(resource.RLIMIT_NPROC, 0)
    _set(resource.RLIMIT_CORE, 0)


def _set(kind: int, limit: int) -> None:
    """Set a limit for this message; what whoever started us has set stays the upper bound."""
    soft, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    if soft != limit:
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


def _is_orphan(caller: Caller) -> bool:
    """Whether pipe(8) is gone, or is on its way out: it closes the pipe before it is seen to be gone."""
    fields = _stat(caller.parent)
    if not fields:  # hidden from us, or gone
        time.sleep(0.2)
        return _parent(caller.pid) != caller.parent
    # proc(5): the third field, first here, is the state; the ninth is the flags, of which 4 is PF_EXITING.
    return _parent(caller.pid) != caller.parent or fields[0] in b"ZX" or bool(int(fields[6]) & 4)


def _parent(pid: int) -> int:
    """The parent of a process; 0 where there is none."""
    if pid == os.getpid():
        return os.getppid()
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _stat(pid: int) -> list[bytes]:
    """proc(5), from the third field on; nothing for a process that is gone or hidden."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []
