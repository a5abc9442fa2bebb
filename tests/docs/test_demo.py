"""The demonstration works with and without root, prints what README shows of it, and leaves nothing behind."""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness import account
from harness.service import bounded

from .pages import REPOSITORY, marked


def shape(line: str) -> str:
    """A line without what differs from run to run: ids, times, ports, process numbers."""
    return re.sub(
        r"[0-9a-f]{64}|[0-9a-f]{8}-[-0-9a-f]{27}|\b4[0-9A-Za-z]{10,19}\b|[0-9]+(\.[0-9]+)?", "*", line
    ).strip()


def test_demo_without_root(folder: Path) -> None:
    """Without root the same messages are delivered through the same entrypoint from stdin."""
    # Other accounts may not be able to read the checkout.
    for name in ("script", "tests/harness"):
        shutil.copytree(REPOSITORY / name, folder / name)
    command = [sys.executable, str(folder / "script" / "demo.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd="/", **account.identity())
    assert done.returncode == 0, done.stdout + done.stderr
    assert "root is needed" in done.stdout or not account.IS_ROOT
    assert "DIFFERENT" not in done.stdout


@pytest.mark.usefixtures("_postfix")
def test_demo() -> None:
    """The demonstration succeeds, and prints what the README shows."""
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "script" / "demo.py")], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "DIFFERENT" not in done.stdout
    printed = {shape(line) for line in done.stdout.splitlines()}
    shown = marked("README.md", "demo").splitlines()
    assert [line for line in shown if shape(line) not in printed] == []


@pytest.mark.usefixtures("_postfix")
def test_demo_keep() -> None:
    """With --keep it continues until Ctrl-C, prints how to inspect it, and leaves no process and no folder behind.

    Every write of the demonstration is slowed down, so that Ctrl-C arrives just after it has announced that it may be
    used.
    """
    lasting = ["strace", "-D", "-o", "/dev/null", "-e", "trace=write", "-e", "inject=write:delay_exit=50000"]
    command = [*lasting, sys.executable, str(REPOSITORY / "script" / "demo.py"), "--keep"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        printed = ""
        with bounded(running):
            for line in running.stdout:
                printed += line
                if "Ctrl-C stops everything" in line:
                    break
        running.send_signal(signal.SIGINT)
        printed += running.stdout.read()
    assert running.returncode == 0, printed
    (folder,) = set(re.findall(r"/\S+/pipehandler-demo-\w+", printed))
    assert "curl smtp://127.0.0.1:" in printed
    assert not Path(folder).exists()
    assert subprocess.run(["pgrep", "-f", folder], capture_output=True, text=True).stdout == ""
