"""A private /dev/log for a test: programs see it in a mount namespace that they enter (unshare(1)), so the host's is
not touched."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import account
from .missing import missing

_ENTER = """
set -e
mount --make-rprivate /
mkdir -p "$0/dev"
mount -t tmpfs -o mode=755 none "$0/dev"
for each in null zero full random urandom shm; do
    if [ -d /dev/$each ]; then mkdir "$0/dev/$each"; else touch "$0/dev/$each"; fi
    mount --bind /dev/$each "$0/dev/$each"
done
ln -s "$0/log" "$0/dev/log"
mount --move "$0/dev" /dev
exec setpriv --reuid="$1" --regid=nogroup --clear-groups -- "${@:2}"
"""


class DevLog:
    """A datagram socket in place of /dev/log. `read` false: nothing is ever read from it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(folder / "log"))
        (folder / "log").chmod(0o666)
        self.socket.setblocking(False)

    def command(self, command: list[str]) -> list[str]:
        """`command`, started by root, run by the handler's account with this socket as /dev/log."""
        return ["unshare", "-m", "bash", "-c", _ENTER, str(self._folder), account.NAME, *command]

    def fill(self) -> None:
        """Send until the socket has no room for another datagram."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect(str(self._folder / "log"))
            try:
                while True:
                    client.send(b"full")
            except BlockingIOError:
                pass

    def lines(self) -> list[str]:
        """The datagrams received so far."""
        found = []
        try:
            while True:
                found.append(self.socket.recv(10_000).decode())
        except BlockingIOError:
            return found


@contextmanager
def dev_log() -> Iterator[DevLog]:
    """A /dev/log; only root can have one."""
    if not account.IS_ROOT or os.system("unshare -m true 2> /dev/null"):
        missing("root with mount namespaces")
    with account.folder("pipehandler-log-") as folder:
        made = DevLog(folder)
        yield made
        made.socket.close()
