"""Run work that may crash, hang or leak in a child process, with a time limit."""

import os
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn

# Python drops an exception that a signal handler raises inside its fork hooks, so these signals are blocked meanwhile.
_RAISING = {signal.SIGALRM, signal.SIGINT}


def survives(work: Callable[[], object], seconds: float) -> bool:
    """Run `work` in a child process and return whether the child survives it; an exception counts as survival.

    False if a signal kills the child, if it exits with a status other than 0, or if it runs longer than `seconds`, when
    it is killed. Raises OSError if the child cannot be forked.
    """
    ends = time.monotonic() + seconds
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    child = 0
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, _RAISING)  # may raise the exception of a pending signal
        child = _fork(work, mask)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        # WNOWAIT reserves the pid: an exception after the child has ended must not make us kill another process.
        while not os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) and time.monotonic() < ends:
            time.sleep(0.01)
    finally:  # the child must not outlive this call, whatever interrupts it
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, _RAISING)  # may raise it, too
        finally:
            if child:
                os.kill(child, signal.SIGKILL)
                _, status = os.waitpid(child, 0)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return status == 0


def detach(work: Callable[[], object], seconds: float) -> None:
    """Run `work` in a detached process that SIGALRM kills after `seconds`. Raises OSError if it cannot be forked."""

    def work_unattended() -> None:
        if os.fork() == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.001))
            work()

    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, _RAISING)  # may raise the exception of a pending signal
        # A grandchild, which init reaps: the caller does not wait for its end.
        os.waitpid(_fork(work_unattended, mask), 0)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def processes_allowed() -> Iterator[None]:
    """Lift our own limit of no further process or thread (limits.apply); the parent's limit remains."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NPROC, (soft, hard))


def _fork(work: Callable[[], object], mask: set[int]) -> int:
    """Fork a child that runs `work` with this signal mask and exits with 0, even after an exception; return its pid."""
    with processes_allowed():
        child = os.fork()
        if child == 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            _do(work)
    return child


def _do(work: Callable[[], object]) -> NoReturn:
    try:
        # pipe(8) waits until every copy of its pipe is closed; if our parent dies, pipe(8) must not wait for us.
        os.closerange(0, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        work()
    except BaseException:  # noqa: BLE001, S110 # only survival counts, not success
        pass
    finally:
        os._exit(0)
