"""This machine, booted: systemd as process 1 in namespaces of its own, on an overlay of the whole root, so nothing here changes.

The network is a loopback alone. Root is needed, and cgroups that may be changed.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_HIERARCHIES = [
    folder
    for folder in map(Path, ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"))
    if (folder / "cgroup.procs").exists()
]
_NAMESPACES = ("--mount", "--pid", "--fork", "--kill-child", "--cgroup", "--uts", "--ipc", "--net")
_BOOT = """
for group; do echo $$ > "$group/cgroup.procs"; done
exec unshare NAMESPACES sh -euc '
mount -t tmpfs tmpfs "$FOLDER"
mkdir "$FOLDER/upper" "$FOLDER/work" "$FOLDER/root"
root=$FOLDER/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$FOLDER/upper,workdir=$FOLDER/work" "$root"
# What belongs to the kernel stays as it is: nothing in there may be changed.
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
if [ -d /sys/fs/cgroup/unified ]; then
    mount -t tmpfs -o mode=755 tmpfs "$root/sys/fs/cgroup"
    mkdir "$root/sys/fs/cgroup/systemd" "$root/sys/fs/cgroup/unified"
    mount -t cgroup -o none,name=systemd cgroup "$root/sys/fs/cgroup/systemd"
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup/unified"
else
    mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
fi
exec chroot "$root" env -i container=other PATH=/usr/sbin:/usr/bin /lib/systemd/systemd --unit=basic.target
'
""".replace("NAMESPACES", " ".join(_NAMESPACES))
_SECONDS = 120


class Booted:
    """A running system. init: its process 1, as this machine numbers it."""

    def __init__(self, init: int) -> None:
        self.init = init

    def run(self, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a shell script in it, as root; the first command that fails ends it. Returns its output and errors as one."""
        inside = ["nsenter", "--target", str(self.init), "--all", "chroot", f"/proc/{self.init}/root"]
        return subprocess.run(
            [*inside, "bash", "-euc", script],
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
        )


@contextmanager
def booted(folder: Path) -> Iterator[Booted]:
    """The system, once it is up; `folder` is empty. Raises RuntimeError if it does not come up."""
    groups = [hierarchy / f"pipehandler-{os.getpid()}" for hierarchy in _HIERARCHIES]
    for group in groups:
        group.mkdir()
    command = ["sh", "-euc", _BOOT, "sh", *map(str, groups)]
    env = {"PATH": os.environ["PATH"], "FOLDER": str(folder)}
    with (folder.parent / f"{folder.name}.log").open("wb") as log:
        process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield _up(process, folder.parent / f"{folder.name}.log")
    finally:
        process.kill()  # and with it, --kill-child, process 1 and all others
        process.wait()
        for group in groups:
            _remove(group)


def is_possible() -> bool:
    """Whether a system can be booted here."""
    return bool(_HIERARCHIES) and Path("/lib/systemd/systemd").exists() and shutil.which("nsenter") is not None


def _up(process: subprocess.Popen[bytes], log: Path) -> Booted:
    until = time.monotonic() + _SECONDS
    while time.monotonic() < until and process.poll() is None:
        with suppress(OSError, ValueError):
            (init,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            system = Booted(int(init))
            state = system.run("systemctl is-system-running || true").stdout.strip()
            if state in ("running", "degraded"):
                return system
        time.sleep(0.2)
    raise RuntimeError(f"systemd did not start: {log.read_text()}")


def _remove(group: Path) -> None:
    """Remove a cgroup with those below it, once its processes have gone."""
    until = time.monotonic() + 20
    while group.exists() and time.monotonic() < until:
        for each in sorted(group.rglob("*"), reverse=True):
            if each.is_dir():
                with suppress(OSError):
                    each.rmdir()
        with suppress(OSError):
            group.rmdir()
        time.sleep(0.1)
