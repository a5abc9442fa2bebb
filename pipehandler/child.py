"""Work that may crash, hang or leave something behind: done in a child process, which nobody waits for too long."""

import os
import resource
import signal
import time
from collections.abc import Callable
from typing import NoReturn


def survives(work: Callable[[], object], seconds: float) -> bool:
    """Whether a child process lives through `work`, at most for `seconds`; an exception is no death.

    Raises OSError where no child can be had.
    """
    return _wait(_fork(work), seconds)


def detach(work: Callable[[], object], seconds: float) -> None:
    """Let a process that nobody waits for do `work`, at most for `seconds`. Raises OSError where none can be had."""

    def work_unattended() -> None:
        if os.fork() == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
            work()

    # A grandchild: whoever forked it will not have to wait for its end.
    os.waitpid(_fork(work_unattended), 0)


def _fork(work: Callable[[], object]) -> int:
    """A child process that works and leaves with 0, whatever happens."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
    # Python drops what a signal raises in the functions that it calls around a fork: the signals wait.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGINT})
    try:
        child = os.fork()
        if child == 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            _do(work)
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return child


def _do(work: Callable[[], object]) -> NoReturn:
    try:
        # pipe(8) waits for whoever holds its pipe; should our parent die, it must not wait for us.
        os.closerange(0, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        work()
    except BaseException:  # noqa: S110 # it was to survive it, not to succeed
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
