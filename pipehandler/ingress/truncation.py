"""Whether a message came whole: pipe(8) that dies while it writes leaves a clean end of file on a cut message."""

import os
import re
import time
from typing import NamedTuple

_LONG_LINE = re.compile(rb"[^\n]{128,}")


class Caller(NamedTuple):
    """Who brings the message: the process id of the entrypoint, and that of pipe(8), its parent when it started."""

    pid: int
    parent: int


def queue_file_octets(raw: bytes, start: int) -> int:
    """What ${size} says of `raw` from `start` on, where no Milter changed it: the octets of its records in the queue file.

    A line is one record with a header of two octets, three from 128 octets on; line_length_limit (2048) cuts a longer line
    into several (Postfix 3.7, measured).
    """
    octets = len(raw) - start + raw.count(b"\n", start)
    for long in _LONG_LINE.finditer(raw, start):
        full, rest = divmod(len(long[0]), 2048)
        octets += 3 * full + (rest >= 128)
    return octets


def is_orphan(caller: Caller) -> bool:
    """Whether pipe(8) is gone, or is on its way out: it closes the pipe before it is seen to be gone."""
    fields = _stat(caller.parent)
    if not fields:  # hidden from us, or gone
        time.sleep(0.2)
        return _parent(caller.pid) != caller.parent
    # proc(5): the third field, first here, is the state; the ninth is the flags, of which 4 is PF_EXITING.
    return _parent(caller.pid) != caller.parent or fields[0] in b"ZX" or bool(int(fields[6]) & 4)


def _parent(pid: int) -> int:
    """The parent of a process; 0 where there is none."""
    if pid == os.getpid():
        return os.getppid()
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _stat(pid: int) -> list[bytes]:
    """proc(5), from the third field on; nothing for a process that is gone or hidden."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()
    except OSError:
        return []
