"""Work in a child process: nothing that happens to it, or to whoever waits, leaves anything behind."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from pipehandler.child import detach, survives


class Interrupted(BaseException):
    """What the signal raises."""


def interrupt(signum: int, frame: FrameType | None) -> None:
    """The handler of a signal."""
    raise Interrupted


@pytest.fixture
def _alarm() -> Iterator[None]:
    """SIGALRM raises Interrupted."""
    before = signal.signal(signal.SIGALRM, interrupt)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def children() -> list[str]:
    """The children of this process."""
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def fail() -> None:
    """An exception, which is no death."""
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
    """A child that dies is told from one that ends."""
    assert survives(work, 10) is survived  # type: ignore[arg-type]
    assert children() == []


def test_too_long() -> None:
    """A child that takes too long is ended."""
    started = time.monotonic()
    assert not survives(lambda: time.sleep(60), 0.1)
    assert time.monotonic() - started < 5
    assert children() == []


def fork_until(seconds: float) -> None:
    """One child after the other, until the time is up."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    for _ in range(1_000):
        survives(lambda: None, 10)


@pytest.mark.usefixtures("_alarm")
def test_no_signal_is_lost_around_a_fork() -> None:
    """Whenever the time is up, it is seen, and no child is left: Python drops what is raised in what it calls around a fork."""
    for _ in range(150):
        with pytest.raises(Interrupted):
            fork_until(random.uniform(0.0005, 0.015))
        assert children() == []
    assert signal.SIGALRM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def late(folder: Path) -> None:
    """Work that takes a while."""
    time.sleep(1)
    (folder / "late").touch()


def test_detached(tmp_path: Path) -> None:
    """Nobody waits for it, it does its work, and it is ended when its time is over."""
    started = time.monotonic()
    detach(lambda: (tmp_path / "done").touch(), 10)
    detach(lambda: late(tmp_path), 0.2)
    assert time.monotonic() - started < 1
    assert children() == []
    time.sleep(1.5)
    assert [path.name for path in tmp_path.iterdir()] == ["done"]
