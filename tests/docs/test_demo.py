"""The demonstration works with and without root, prints what README shows of it, and leaves nothing behind."""

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
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


def kept(command: list[str], use: Callable[[str], None] = lambda printed: None) -> str:
    """The output of a demonstration with --keep that succeeds; `use` is called with what it has printed, while it waits for
    Ctrl-C."""
    with subprocess.Popen([*command, "--keep"], stdout=subprocess.PIPE, text=True, cwd="/") as running:
        assert running.stdout is not None
        printed: str = ""
        with bounded(running):
            for line in running.stdout:
                printed += line
                if "Ctrl-C stops everything" in line:
                    break
        try:
            use(printed)
        finally:
            running.send_signal(signal.SIGINT)
            printed += running.stdout.read()
    assert running.returncode == 0, printed
    return printed


@pytest.mark.unmeasured
def test_demo_without_root(folder: Path) -> None:
    """Without root the same messages are delivered through the same entrypoint from stdin, and the commands that it prints
    do the same."""
    # Other accounts may not be able to read the checkout.
    for name in ("script", "tests/harness"):
        shutil.copytree(REPOSITORY / name, folder / name)

    def use(printed: str) -> None:
        """Deliver another message with the printed command, and list it with the next."""
        commands = re.findall(
            r"^    ((?:printf|/\S+/pipehandler) .*)$", printed.partition("mail of your own")[2], re.MULTILINE
        )
        script = "set -eu\n" + "\n".join(commands)
        done = subprocess.run(account.command(["bash", "-c", script]), capture_output=True, text=True, cwd="/")
        assert re.search(r"^2\.0\.0 stored .*\bmine\b", done.stdout, re.DOTALL), done

    printed = kept(account.command([sys.executable, str(folder / "script" / "demo.py")]), use)
    assert "root is needed" in printed or not account.IS_ROOT
    assert "DIFFERENT" not in printed
    assert "1 tried, 1 changed, 1 parsed now" in printed


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
    printed = kept([*lasting, sys.executable, str(REPOSITORY / "script" / "demo.py")])
    (folder,) = set(re.findall(r"/\S+/pipehandler-demo-\w+", printed))
    assert "curl smtp://127.0.0.1:" in printed
    assert "1 tried, 1 changed, 1 parsed now" in printed
    assert not Path(folder).exists()
    assert subprocess.run(["pgrep", "-f", folder], capture_output=True, text=True).stdout == ""
