"""The account that servers and the handler run as: they refuse root, and Postfix's pipe is not root either."""

import os
import pwd
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

IS_ROOT = os.geteuid() == 0
FOLDERS = "PIPEHANDLER_FOLDERS"
"""The environment variable that names the parent of the folders, if not /tmp."""

NAME = "nobody" if IS_ROOT else pwd.getpwuid(os.geteuid()).pw_name

_SETPRIV = ("/usr/bin/setpriv", f"--reuid={NAME}", "--regid=nogroup", "--clear-groups")


def command(words: Sequence[str]) -> list[str]:
    """The command that runs `words` as the account, in the process that is started.

    With an account of its own, subprocess forks the test process, whose memory is copied page by page, and not quickly
    (vfork): ten times the CPU time.
    """
    return [*_SETPRIV, *words] if IS_ROOT else list(words)


def give(path: Path) -> None:
    """Give a file or folder to the account."""
    if IS_ROOT:
        shutil.chown(path, NAME)


@contextmanager
def folder(prefix: str) -> Iterator[Path]:
    """A new folder that the account may enter, with a path short enough for a Unix socket; removed at the end."""
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=os.environ.get(FOLDERS, "/tmp")))
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def free_port() -> int:
    """A TCP port on loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
