"""Work that may crash, hang or leave something behind: done in a child process, which nobody waits for too long."""

import os
import resource
import signal
import time
from collections.abc import Callable


def survives(work: Callable[[], object], seconds: float) -> bool:
    """Whether a child process lives through `work`, at most for `seconds`; an exception is no death.

    Raises OSError where no child can be had.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
    try:
        child = os.fork()
        if child == 0:
            _do(work)
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
    return _wait(child, seconds)


def _do(work: Callable[[], object]) -> None:
    """In the child: work, and leave with 0; does not return."""
    try:
        # pipe(8) waits for whoever holds its pipe; should our parent die, it must not wait for us.
        os.closerange(0, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        work()
    except BaseException:  # noqa: S110 # see survives
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
