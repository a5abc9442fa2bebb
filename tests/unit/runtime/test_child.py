"""Work in a child process: whatever happens to it, or to its parent, nothing is left behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from harness.service import wait_until

from pipehandler.runtime.child import detach, survives


def children() -> list[str]:
    """The children of this process; a server that other tests use may be one of them."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def fail() -> None:
    """An exception, which is not a crash."""
    raise ValueError


@pytest.mark.parametrize(
    ("work", "survived"),
    [
        (lambda: None, True),
        (fail, True),
        (lambda: os.kill(os.getpid(), signal.SIGSEGV), False),
        (lambda: os._exit(1), False),
    ],
)
def test_survives(work: object, survived: bool) -> None:
    """A child that crashes is distinguished from one that ends."""
    before = children()
    assert survives(work, 10) is survived  # type: ignore[arg-type]
    assert children() == before


def test_too_long() -> None:
    """A child that takes too long is killed."""
    before = children()
    assert not survives(lambda: time.sleep(3600), 0.1)
    assert children() == before


# In a separate process with one thread, like every delivery: with several threads any of them may receive the signal.
INTERRUPTED = """
import os, random, signal
from pipehandler.runtime.child import survives

class Interrupted(BaseException):
    pass

def interrupt(*_):
    raise Interrupted

def fork_until(seconds):
    signal.setitimer(signal.ITIMER_REAL, seconds)
    for _ in range(1000):
        survives(lambda: None, 10)
    raise AssertionError("the signal was lost")

signal.signal(signal.SIGALRM, interrupt)
for _ in range(150):
    try:
        fork_until(random.uniform(0.0005, 0.015))
    except Interrupted:
        pass
    assert open(f"/proc/self/task/{os.getpid()}/children").read() == ""
assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
"""


def test_no_signal_is_lost_around_a_fork() -> None:
    """Whenever the time is up, that is noticed, and no child is left: Python drops exceptions raised in its fork
    hooks."""
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")


# The signal comes while the first thing is done that both functions do: blocking it.
AT_THE_BEGINNING = """
import os, random, signal
from pipehandler.runtime.child import detach, survives

class Interrupted(BaseException):
    pass

def interrupt(*_):
    raise Interrupted

signal.signal(signal.SIGALRM, interrupt)
for work in (lambda: survives(lambda: None, 10), lambda: detach(lambda: None, 10)):
    for _ in range(300):
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.000001, 0.00004))
            work()
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Interrupted:
            pass
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, []), "the signal is still blocked"
"""


def test_signals_are_not_left_blocked() -> None:
    """A signal that raises while the signals are being blocked leaves the mask as it was: the next time limit would not
    be noticed."""
    done = subprocess.run([sys.executable, "-c", AT_THE_BEGINNING], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")


def late(file: Path) -> None:
    """Endless work, after its process id is written."""
    file.with_suffix(".new").write_text(str(os.getpid()))
    file.with_suffix(".new").rename(file)
    time.sleep(3600)


def test_detached(tmp_path: Path) -> None:
    """It is not a child that this process has to wait for; it does its work, and is killed when its time is over."""
    before = children()
    detach(lambda: (tmp_path / "done").touch(), 60)
    detach(lambda: late(tmp_path / "pid"), 3)
    assert children() == before
    wait_until((tmp_path / "done").exists)
    wait_until((tmp_path / "pid").exists)
    process = Path("/proc", (tmp_path / "pid").read_text(), "exe")
    wait_until(lambda: not process.exists(), "the end of the process")
