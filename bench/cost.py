"""What processes cost: exact CPU time, including processes that have ended, and memory.

CPU time comes from control groups (cgroups(7)): a process that is started inside a group stays in it with all its
children, however short-lived, and the kernel sums their time to the microsecond. Where no group can be created, the
figures are missing.
"""

import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MISSING = float("nan")


class Group:
    """A control group below our own; `inside` is where its servers are started."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._home = _own_group()
        self._folder: Path | None = None
        if self._home:
            with suppress(OSError):
                folder = self._home / f"pipehandler-bench-{os.getpid()}-{name}"
                folder.mkdir()
                self._folder = folder
                self.seconds()
                with self.inside():  # whether this process may create groups
                    return
            self.close()
            self._folder = None

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Processes started in this context belong to the group; this process itself only for as long as the context
        lasts."""
        if not (self._folder and self._home):
            yield
            return
        (self._folder / "cgroup.procs").write_text(str(os.getpid()))
        try:
            yield
        finally:
            (self._home / "cgroup.procs").write_text(str(os.getpid()))

    def seconds(self) -> float:
        """The CPU time of all processes of the group so far, including those that have ended."""
        if not self._folder:
            return MISSING
        return int((self._folder / "cpu.stat").read_text().split()[1]) / 1e6

    def processes(self) -> list[int]:
        """The processes that are in it now."""
        return [int(pid) for pid in (self._folder / "cgroup.procs").read_text().split()] if self._folder else []

    def close(self) -> None:
        """Remove the group once its last process has ended."""
        until = time.monotonic() + 10
        while self._folder and self._folder.exists() and time.monotonic() < until:
            with suppress(OSError):
                self._folder.rmdir()
            time.sleep(0.02)


def _own_group() -> Path | None:
    """The folder of the control group (version 2) that this process is in, or None."""
    with suppress(OSError):
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        mount = next((fields[1] for fields in mounts if fields[2] == "cgroup2"), None)
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            if mount and line.startswith("0::/"):
                return Path(mount, line[len("0::/") :])
    return None


def cpu(pid: int) -> float:
    """The CPU time of one process so far, in seconds: its clock as clock_getcpuclockid(3) names it."""
    return time.clock_gettime(~pid << 3 | 2)


def peak(pid: int) -> int:
    """The peak resident memory of a process since `forget_peak`, in octets."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def forget_peak(pid: int) -> None:
    """Reset the peak of a process (proc(5), clear_refs)."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


class Memory:
    """The peak memory of the processes of some groups together, in octets: a context manager that samples twice a
    second.

    Shared memory is counted once (proc(5), Pss).
    """

    def __init__(self, groups: Iterable[Group]) -> None:
        self.most = MISSING
        self._groups = list(groups)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while pids := [pid for each in self._groups for pid in each.processes()]:
            self.most = max(sum(map(_share, pids)), self.most)  # in this order: nothing is greater than MISSING
            if self._over.wait(0.5):
                return


def _share(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
