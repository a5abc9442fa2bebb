"""Parse one message within its time and memory limits, and survive a message that kills the parser.

A failure that the content causes becomes data: a ParsedMessage with nothing but an error. A failure that it does not
cause (a module that cannot be loaded, the end of the delivery's time) is raised.

Time and memory limits catch most failures within the process. The others kill it: a crash in C code, the CPU limit, the
kernel's out-of-memory killer. So an attempt leaves a mark in the state directory while it parses. An attempt that finds
the mark of a dead one first lets a child process parse. If the child dies as well, the message is stored unparsed: a
poison message costs two attempts, not days of retries and a bounce. If the child survives, something else killed the
first attempt, and parsing proceeds as usual.
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
    """The result of the parser. `fault`: the exception that ended it, if there was one."""

    message: ParsedMessage
    fault: Exception | None = None


def guarded_parse(raw: bytes, message: str, config: Config, deadline: Deadline, isolate: bool = False) -> Parsed:
    """Parse `raw`, the message with the id `message`; if that fails, return a ParsedMessage whose error is the reason.

    `isolate`: let a child process try first, as if an earlier attempt had died while parsing it.
    Raises TimeUp when the delivery's time is over, and any exception of a broken installation.
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
            raise  # a module or codec that cannot be loaded is not the message's fault
        from pipehandler.parse import loading

        loading.load_all()  # nor is a damaged module: this raises as well
        return Parsed(ParsedMessage(error=described(error)), error)


def _patiently(work: Callable[[], ParsedMessage], seconds: float, deadline: Deadline) -> ParsedMessage:
    """Return the result of `work` within `seconds`; retry once if the host may be to blame, and there is time.

    A busy host may give this process too little time or memory at first, and enough a moment later.
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
    """Return why the message must not be parsed in this process; None if it may be."""
    try:
        survived = survives(work, seconds)
    except OSError as error:
        return f"parsing it killed a process or may do so, and no child process could be had to try: {described(error)}"
    return None if survived else "the parser died of this message"


class PoisonMark:
    """The mark of one message, by its id, in the state directory; a context manager around its parsing.

    `was_fatal`, inside the context: an earlier attempt died while parsing this message. If the directory cannot be
    written, there is no mark, and `was_fatal` is false.
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
            # `reparse` and `import` run as root: the directory's owner must not be able to choose where they write.
            seen = os.fstat(file)
            if not stat.S_ISREG(seen.st_mode) or seen.st_nlink != 1:
                raise OSError("not a file of ours")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.was_fatal = os.fstat(file).st_size > 0
            os.pwrite(file, b"parsing\n", 0)
            self._file = file
        except OSError:
            os.close(file)  # another recipient's copy is being parsed right now, and holds the mark
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with suppress(OSError):
                os.truncate(self._file, 0)  # a process that has just opened it must not see a mark
                os.unlink(self._path)
            with suppress(OSError):  # no data to lose, and the message is parsed
                os.close(self._file)
