"""`pipehandler setup --quiet` holds back what it and its commands print, until that is needed."""

import subprocess
import sys

import pytest

_PROGRAM = """
import subprocess, sys
from pipehandler.cli.setup_host import _held_back
from pipehandler.cli.terminal import say

with _held_back(True) as output:
    say("ours")
    subprocess.run(["echo", "of a command"])
    if sys.argv[1] == "needed":
        output.needed = True
    if sys.argv[1] == "failed":
        raise RuntimeError
say("afterwards")
"""


@pytest.mark.parametrize(
    ("how", "printed"),
    [
        ("done", "afterwards\n"),
        ("needed", "ours\nof a command\nafterwards\n"),
        ("failed", "ours\nof a command\n"),
    ],
)
def test_held_back(how: str, printed: str) -> None:
    """All of it is printed in order if `check` has findings or a step fails, and nothing otherwise."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == (printed, how == "failed")
