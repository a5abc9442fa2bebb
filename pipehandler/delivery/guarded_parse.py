"""Parse one message within its time and memory, and never die of it twice.

What the content does to the parser becomes data: a ParsedMessage with nothing but an error. What the content does not cause
(a module that cannot be loaded, the end of the delivery's time) is raised.

Time and memory limits catch most of it in the same process. What is left kills: a crash in C code, the CPU limit, the
kernel's out-of-memory killer. So an attempt leaves a mark in the state directory while it parses. An attempt that finds the
mark of a dead one lets a child process parse first. If the child dies as well, the message is stored without being parsed:
a poison message costs two attempts, not days of retries and a bounce. If the child lives, something else killed the first
attempt, and parsing proceeds as usual.
"""

import fcntl
import gc
import os
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from pipehandler.parse.message import parse

from ..mail.outcome import described
from ..mail.parsed import ParsedMessage
from ..runtime.child import survives
from ..runtime.deadline import Deadline, TimeUp
from ..settings.config import Config


class Parsed(NamedTuple):
    """What the parser returned; `fault`: the exception that ended it, if there was one."""

    message: ParsedMessage
    fault: Exception | None = None


def guarded_parse(raw: bytes, message: str, config: Config, deadline: Deadline, isolate: bool = False) -> Parsed:
    """Parse `raw`, the message with the id `message`; where that fails, return a ParsedMessage that says why.

    `isolate`: let a child process try first, as for a message whose last attempt died while it was parsed.
    Raises TimeUp when the delivery's time is over, and whatever a broken installation raises.
    """
    seconds = config.limits.parse_timeout
    trusted = tuple(map(str.lower, config.authentication.trusted_authserv_ids))

    def work() -> ParsedMessage:
        return parse(raw, trusted_authserv_ids=trusted)

    try:
        with PoisonMark(config.state.directory, message) as mark:
            if isolate or mark.was_fatal:
                reason = _fatal_reason(work, min(seconds, deadline.remaining()))
                if reason:
                    return Parsed(ParsedMessage(error=reason))
            return Parsed(_patiently(work, seconds, deadline))
    except TimeUp:
        if not deadline.remaining():
            raise
        return Parsed(ParsedMessage(error=f"not parsed within {seconds} s"))
    except MemoryError:
        return Parsed(ParsedMessage(error=f"not parsed within {config.limits.memory} octets of memory"))
    except Exception as error:
        if isinstance(error, (OSError, ImportError)) or type(error) is LookupError:
            raise  # a module or a codec that cannot be loaded is not the message's doing
        from pipehandler.parse import loading

        loading.load_all()  # nor is a module that is damaged: this raises, too
        return Parsed(ParsedMessage(error=described(error)), error)


def _patiently(work: Callable[[], ParsedMessage], seconds: float, deadline: Deadline) -> ParsedMessage:
    """What `work` returns within `seconds`; once more where the host may have been the reason, and there is time.

    A host that is busy gives this process too little of its time, or of its memory, and a moment later enough.
    """
    used = time.process_time()
    try:
        with deadline.step(seconds):
            return work()
    except (TimeUp, MemoryError) as limit:
        starved = isinstance(limit, MemoryError) or time.process_time() - used < seconds / 2
        if not starved or deadline.remaining() < 2 * seconds:
            raise
    gc.collect()
    with deadline.step(seconds):
        return work()


def _fatal_reason(work: Callable[[], object], seconds: float) -> str | None:
    """Why the message should not be parsed in this process; None if it may be."""
    try:
        survived = survives(work, seconds)
    except OSError as error:
        return f"parsing it killed a process or may do so, and no child process could be had to try: {described(error)}"
    return None if survived else "the parser died of this message"


class PoisonMark:
    """The mark of one message, by its id, in the state directory; a context manager around its parsing.

    `was_fatal` inside the context: an earlier attempt died while it parsed this message. Where the directory cannot be
    written there is neither a mark nor a suspicion.
    """

    def __init__(self, directory: str, message: str) -> None:
        self._path = os.path.join(directory, f"parsing-{message}")
        self._file: int | None = None
        self.was_fatal = False

    def __enter__(self) -> "PoisonMark":
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        except OSError:
            return self
        try:
            # `reparse` and `import` run as root; whoever owns the directory must not choose what they write to.
            seen = os.fstat(file)
            if not stat.S_ISREG(seen.st_mode) or seen.st_nlink != 1:
                raise OSError("not a file of ours")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.was_fatal = os.fstat(file).st_size > 0
            os.pwrite(file, b"parsing\n", 0)
            self._file = file
        except OSError:
            os.close(file)  # another recipient's copy is being parsed at this moment, and has its own mark
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with suppress(OSError):
                os.truncate(self._file, 0)  # a process that has just opened it must not find a mark
                os.unlink(self._path)
            with suppress(OSError):  # nothing was written that could be lost, and the message is parsed
                os.close(self._file)
