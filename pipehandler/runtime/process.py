"""What the kernel reports of a process: /proc/PID/stat, proc(5)."""

from typing import NamedTuple

_PF_EXITING = 4  # linux/sched.h


class Process(NamedTuple):
    """state: one letter. parent: its process id. flags: of the kernel. started: ticks since the start of the host."""

    state: bytes
    parent: int
    flags: int
    started: int

    @property
    def ends(self) -> bool:
        """Whether it has ended, or is ending: a process closes its files before it is a zombie."""
        return self.state in b"ZX" or bool(self.flags & _PF_EXITING)


def process(pid: int) -> Process | None:
    """The process `pid`; None if there is none, or it is hidden from this account."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name of the program, in parentheses, may contain anything; the state is the field after it.
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return Process(fields[0], int(fields[1]), int(fields[6]), int(fields[19]))
