"""A host to run the commands of the pages on: real Postfix, real PostgreSQL, and copies of the folders that commands
change.

Commands run in namespaces that end with them, on overlays of /etc, /opt, /usr/local and /var, so this machine is not
changed. The changes of one run can be kept, as the starting point of other runs.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import account
from harness.postgresql import PostgreSQL, binaries

from .pages import REPOSITORY, Block

_SECONDS = 300.0
_NAMESPACES = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
# Without the SMTP port, so that it can run next to another Postfix, unless it is alone in a network.
_ALONE = ("--net",)
_SANDBOX = """
set -eu
for folder in /etc /opt /usr/local /var; do
    mkdir -p "$UPPER$folder" "$UPPER/work$folder"
    lower=$folder
    [ ! -d "$LOWER$folder" ] || lower=$LOWER$folder:$folder
    mount -t overlay overlay -o "lowerdir=$lower,upperdir=$UPPER$folder,workdir=$UPPER/work$folder" $folder
done
mkdir -p /run/postgresql /run/pipehandler
mount --bind "$SOCKETS" /run/postgresql
mount -t tmpfs tmpfs /run/pipehandler
export PATH=$PROGRAMS:$PATH
"""
_LOOPBACK = "ip link set lo up"
_FIRST = """
postconf -MX smtp/inet
postconf -e maillog_file=/var/log/postfix.log
"""
_AGAIN = "postfix start"
_QUIET = "for _ in $(seq 100); do postqueue -j | grep -q . || break; sleep 0.2; done"

# systemd cannot run in there: this acts on the installed unit as systemctl would.
_SYSTEMCTL = """#!/bin/bash -eu
value() { sed -n "s/^$1=//p" "/etc/systemd/system/${unit:-pipehandler.service}"; }
case "$*" in
    *"--now pipehandler-expire.timer")
        unit=pipehandler-expire.service
        $(value ExecStart) ;;
    enable*watch.service)
        unit=pipehandler-watch.service
        setpriv --reuid "$(value User)" --regid "$(value User)" --clear-groups $(value ExecStart) &
        until find /var/mail/pipehandler/ -name pipehandler.lock | grep -q .; do sleep 0.1; done ;;
    enable*)
        chown "$(value User)" /run/pipehandler
        setpriv --reuid "$(value User)" --clear-groups $(value ExecStart) &
        echo $! > /run/pipehandler/pid
        until [ -S /run/pipehandler/socket ]; do sleep 0.1; done ;;
    restart*)
        [ ! -e /run/pipehandler/pid ] || { "$0" disable; "$0" enable; } ;;
    disable* | stop*)
        [ -e /run/pipehandler/pid ] || exit 0  # it does not run
        kill "$(cat /run/pipehandler/pid)"
        rm /run/pipehandler/pid
        while [ -S /run/pipehandler/socket ]; do sleep 0.1; done ;;
esac
"""


# No name is looked up outside this machine: the status of dig(1) for a server that does not answer.
_DIG = "#!/bin/sh\nexit 9\n"

# A program of the server, whose package looks for sockets elsewhere.
_CLIENT = '#!/bin/sh\nPGHOST=/run/postgresql exec {} "$@"\n'


class Host:
    """A snapshot of a host; several threads may run commands on it, each on a separate host that starts from it.

    folder: where it keeps its state. lower: the overlays of this machine's folders. cluster: the data of its database.
    Without both, nothing of ours is installed.
    """

    def __init__(self, folder: Path, lower: Path | None = None, cluster: Path | None = None) -> None:
        self._folder, self._lower, self._cluster = folder, lower, cluster

    def run(
        self, *commands: Block | str, alone: bool = False, seconds: float = _SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run blocks and other commands in one shell, which ends at the first that fails; the last line of the output that
        begins with "==> " names the block. alone: in a network of its own, without other hosts, where port 25 is free."""
        upper = self._new_folder()
        done = self._run(upper, commands, alone, seconds)
        shutil.rmtree(upper)
        return done

    def after(self, *commands: Block | str, alone: bool = False) -> tuple[subprocess.CompletedProcess[str], "Host"]:
        """Run commands in the same way; returns also the host as they left it."""
        upper = self._new_folder()
        return self._run(upper, commands, alone, _SECONDS), Host(self._folder, upper, upper / "pg" / "data")

    def only(self, name: str) -> "Host":
        """A new host, except for one of the folders, which is as in this one."""
        assert self._lower
        lower = self._new_folder()
        (lower / name).symlink_to(self._lower / name)
        return Host(self._folder, lower)

    def _new_folder(self) -> Path:
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        folder.chmod(0o755)
        return folder

    def _run(
        self, upper: Path, commands: tuple[Block | str, ...], alone: bool, seconds: float
    ) -> subprocess.CompletedProcess[str]:
        network = [_LOOPBACK] if alone else []
        script = [_SANDBOX, *network, _AGAIN if self._cluster else _FIRST, *map(_command, commands), _QUIET]
        # With fsync, which `check` requires.
        settings = {"listen_addresses": "", "port": "5432"}
        with PostgreSQL(upper / "pg", 16, settings, data=self._cluster) as server:
            server.port = 5432
            server.start()
            done = subprocess.run(
                [*_NAMESPACES, *(_ALONE if alone else ()), "bash", "-c", "\n".join(script)],
                env={
                    **os.environ,
                    "LOWER": str(self._lower or "/nonexistent"),
                    "PROGRAMS": str(self._folder / "programs"),
                    "SOCKETS": str(server.folder),
                    "UPPER": str(upper),
                },
                cwd=REPOSITORY,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=seconds,
            )
            server.stop()
        return done


def _command(command: Block | str) -> str:
    return f"echo '==> {command.place}'\n{command.text}" if isinstance(command, Block) else command


@contextmanager
def new_host() -> Iterator[Host]:
    """A host on which nothing of ours is installed."""
    with account.folder("pipehandler-docs-") as folder:
        (folder / "programs").mkdir()
        # Those of this machine may be older than the server.
        clients = [(name, _CLIENT.format(binaries()[16] / name)) for name in ("pg_dump", "pg_restore")]
        for name, script in (("systemctl", _SYSTEMCTL), ("dig", _DIG), *clients):
            program = folder / "programs" / name
            program.write_text(script)
            program.chmod(0o755)
        yield Host(folder)
