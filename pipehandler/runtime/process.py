"""The state of a process from /proc/PID/stat, proc(5)."""

from typing import NamedTuple

_PF_EXITING = 4  # linux/sched.h


class Process(NamedTuple):
    """One process. state: one letter. parent: a process id. flags: the kernel's. started: in clock ticks after boot."""

    state: bytes
    parent: int
    flags: int
    started: int

    @property
    def ends(self) -> bool:
        """Whether it has ended or is exiting: a process closes its files before it becomes a zombie."""
        return self.state in b"ZX" or bool(self.flags & _PF_EXITING)


def process(pid: int) -> Process | None:
    """Return the process `pid`; None if it does not exist, or is hidden from this account."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The program's name, in parentheses, may contain anything; the state is the next field.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return Process(fields[0], int(fields[1]), int(fields[6]), int(fields[19]))
