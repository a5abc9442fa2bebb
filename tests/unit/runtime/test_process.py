"""What the kernel reports about a process."""

import os
import subprocess
import sys

import pytest

from pipehandler.runtime.process import Process, process


def test_this_process() -> None:
    """A living process has its parent and is not ending."""
    found = process(os.getpid())
    assert found is not None
    assert (found.parent, found.ends) == (os.getppid(), False)
    parent = process(os.getppid())
    assert parent is not None
    assert parent.started <= found.started


def test_hostile_name() -> None:
    """The name of a program may contain what looks like the fields after it."""
    script = "open('/proc/self/comm', 'w').write(') Z 1 (x'); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout
        child.stdout.readline()
        found = process(child.pid)
        child.communicate(b"\n")
    assert found is not None
    assert (found.parent, found.ends) == (os.getpid(), False)


def test_zombie_and_nothing() -> None:
    """A process that has exited counts as ending until its parent has waited for it, and then does not exist."""
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    found = process(child)
    assert found is not None
    assert (found.state, found.ends) == (b"Z", True)
    os.waitpid(child, 0)
    assert process(child) is None


@pytest.mark.parametrize(
    ("state", "flags", "ends"),
    [
        (b"S", 0x40_0100, False),
        (b"R", 0x40_0101, False),
        (b"S", 0x40_0104, True),  # PF_EXITING
        (b"Z", 0x40_0100, True),
        (b"X", 0, True),
    ],
)
def test_ends(state: bytes, flags: int, ends: bool) -> None:
    """The state or the flag shows it; other flags do not."""
    assert Process(state, 1, flags, 0).ends == ends
