"""Messages that kill their parser: they end as quarantined rows, not as days of retries and a bounce.

Time and memory limits turn most of it into data in the same process. What is left kills: a crash in C code, the CPU limit,
the kernel's out-of-memory killer. So an attempt marks the message in the state directory before it parses, and takes the
mark away afterwards. Whoever finds the mark of an attempt that is dead lets a child parse first: if the child dies as
well, the message is stored without being parsed; if not, something else killed the first attempt, and all goes its usual way.
"""

import fcntl
import os
import resource
import signal
import time
from collections.abc import Callable
from contextlib import suppress


class Mark:
    """The mark of one message, by its id, in the state directory; a context manager around its parsing.

    `suspicious` inside the context: an earlier attempt died while it parsed this message. Where the directory cannot be
    written there is no mark and no suspicion.
    """

    def __init__(self, directory: str, message: str) -> None:
        self._path = os.path.join(directory, f"parsing-{message}")
        self._file: int | None = None
        self.suspicious = False

    def __enter__(self) -> "Mark":
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return self
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.suspicious = os.fstat(file).st_size > 0
            os.pwrite(file, b"parsing\n", 0)
            self._file = file
        except OSError:
            os.close(file)  # another recipient's copy is being parsed at this moment, and has its own mark
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with suppress(OSError):
                os.truncate(self._file, 0)  # whoever has just opened it shall find no mark
                os.unlink(self._path)
            with suppress(OSError):  # nothing was written that could be lost, and the message is read
                os.close(self._file)


def survives(parse: Callable[[], object], seconds: float) -> bool:
    """Whether a child process lives through `parse`, at most for `seconds`. Raises OSError where no child can be had."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
    try:
        child = os.fork()
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
    if child == 0:
        _try(parse)
    return _wait(child, seconds)


def _try(parse: Callable[[], object]) -> None:
    """In the child: parse, and leave with 0; does not return. An exception is no death: the parent will see it, too."""
    try:
        # pipe(8) waits for whoever holds its pipe; should our parent die, it must not wait for us.
        os.closerange(0, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        parse()
    except BaseException:  # noqa: S110 # see above
        pass
    finally:
        os._exit(0)


def _wait(child: int, seconds: float) -> bool:
    ends = time.monotonic() + seconds
    done = 0
    try:
        while not done and time.monotonic() < ends:
            done, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0 if done else 0.01)
    finally:  # whatever interrupts us, the child does not outlive its purpose
        if not done:
            os.kill(child, signal.SIGKILL)
            done, status = os.waitpid(child, 0)
    return status == 0
