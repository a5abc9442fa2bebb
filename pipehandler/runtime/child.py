"""Work that may crash, hang or leave something behind: done in a child process, which nobody waits for too long."""

import os
import resource
import signal
import time
from collections.abc import Callable
from typing import NoReturn

# Python drops what a signal raises in the functions that it calls around a fork: these wait until it is over.
_RAISING = {signal.SIGALRM, signal.SIGINT}


def survives(work: Callable[[], object], seconds: float) -> bool:
    """Whether a child process lives through `work`, at most for `seconds`; an exception is no death.

    Raises OSError where no child can be had.
    """
    ends = time.monotonic() + seconds
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _RAISING)
    child = 0
    try:
        child = _fork(work, mask)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # Looked at, but not taken away: an exception between its end and our knowing of it must not make us kill another.
        while not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) and time.monotonic() < ends:
            time.sleep(0.01)
    finally:  # whatever interrupts us, the child does not outlive its purpose
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, _RAISING)  # which may itself raise what came a moment before
        finally:
            if child:
                os.kill(child, signal.SIGKILL)
                _, status = os.waitpid(child, 0)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return status == 0


def detach(work: Callable[[], object], seconds: float) -> None:
    """Let a process that nobody waits for do `work`, at most for `seconds`. Raises OSError where none can be had."""

    def work_unattended() -> None:
        if os.fork() == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
            work()

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _RAISING)
    try:
        # A grandchild: whoever forked it will not have to wait for its end.
        os.waitpid(_fork(work_unattended, mask), 0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _fork(work: Callable[[], object], mask: set[int]) -> int:
    """A child process that works, with this signal mask, and leaves with 0, whatever happens."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
    try:
        child = os.fork()
        if child == 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            _do(work)
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))
    return child


def _do(work: Callable[[], object]) -> NoReturn:
    try:
        # pipe(8) waits for whoever holds its pipe; should our parent die, it must not wait for us.
        os.closerange(0, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        work()
    except BaseException:  # noqa: BLE001, S110 # only survival counts, not success
        pass
    finally:
        os._exit(0)
