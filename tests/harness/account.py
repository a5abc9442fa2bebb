"""The account that servers and the handler run as: they refuse root, and Postfix's pipe is not root either."""

import os
import pwd
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

IS_ROOT = os.geteuid() == 0
FOLDERS = "PIPEHANDLER_FOLDERS"
"""The environment variable that names the parent of the folders, if not /tmp."""

NAME = "nobody" if IS_ROOT else pwd.getpwuid(os.geteuid()).pw_name


def identity() -> dict[str, Any]:
    """The arguments of subprocess that start a program as the account."""
    return {"user": NAME, "group": "nogroup", "extra_groups": []} if IS_ROOT else {}


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
