"""Whether a message came whole: when pipe(8) dies while it writes, the truncated message ends in a clean end of file."""

import os
import re
import select
from typing import NamedTuple

from ..mail.outcome import TRUNCATED, Undelivered
from ..runtime.process import process

_MOMENT = 20
"""Milliseconds between the end of the message and the end of a process that was killed, which closes its files before it goes."""

_LONGER_LINE = re.compile(rb"\n[^\n]{128,}")  # the first character is one, which `re` finds fast


class Caller(NamedTuple):
    """The process id of the entrypoint, and that of pipe(8), its parent when it started."""

    pid: int
    parent: int


def is_smaller(raw: bytes, prepended: int, declared: int | None, caller: Caller) -> bool:
    """Whether `raw` has fewer octets than ${size} declared, though it came whole: a Milter changed it after it was counted.

    `prepended`: octets that pipe(8) wrote above the message, which ${size} does not count.
    Raises Undelivered for a message that ends because pipe(8) is gone. No process reads that status; Postfix delivers the
    message again.
    """
    smaller = declared is not None and queue_file_octets(raw, prepended) < declared
    doubtful = smaller or declared is None
    if not raw or (doubtful and is_orphan(caller)) or (smaller and caller.parent == 1):
        raise Undelivered(TRUNCATED, f"{len(raw)} octets came of a message of {declared}")
    return smaller


def queue_file_octets(raw: bytes, start: int) -> int:
    """Count `raw` from `start` on as ${size} does, where no Milter changed it: the octets of its records in the queue file.

    A line is one record with a header of two octets, three from 128 octets on; line_length_limit (2048) cuts a longer line
    into several (Postfix 3.7, measured).
    """
    first_end = raw.find(b"\n", start)
    octets = len(raw) - start + raw.count(b"\n", start)
    octets += _longer_headers((first_end if first_end >= 0 else len(raw)) - start)
    return octets + sum(_longer_headers(line.end() - line.start() - 1) for line in _LONGER_LINE.finditer(raw, start))


def _longer_headers(octets: int) -> int:
    """Count what the records of one line with so many octets have beyond a single header of two."""
    full, rest = divmod(octets, 2048)
    return 3 * full + (rest >= 128)


def is_orphan(caller: Caller) -> bool:
    """Whether pipe(8) is gone or about to go: it closes the pipe before it disappears."""
    pipe = process(caller.parent)
    if pipe is None:  # hidden from this account, or gone
        _await_end(caller.parent)
    return _parent(caller.pid) != caller.parent or (pipe is not None and pipe.ends)


def _await_end(pid: int) -> None:
    """Wait for a moment until a process has gone whose state is hidden: its pidfd is readable then (pidfd_open(2))."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:  # it has gone
        return
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    poll.poll(_MOMENT)
    os.close(descriptor)


def _parent(pid: int) -> int:
    """The parent of a process; 0 if there is no such process."""
    if pid == os.getpid():
        return os.getppid()
    found = process(pid)
    return found.parent if found else 0
