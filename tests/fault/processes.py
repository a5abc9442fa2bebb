"""Processes that the campaign did not start itself, seen and signalled by their ids (proc(5))."""

import os
import signal
from contextlib import suppress
from pathlib import Path


def children(pid: int) -> list[int]:
    """Its children."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def stat(pid: int) -> list[str]:
    """proc(5): the state, the parent and so on; empty for a process that has ended, even if it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
    return [] if fields[0] in "ZX" else fields


def parent(pid: int) -> int:
    """Its parent; 0 if it has ended."""
    return int((stat(pid) or ["", "0"])[1])


def name(pid: int) -> str:
    """The name of a process; "" if it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() if stat(pid) else ""
    except OSError:
        return ""


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal to a process that may have ended."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)
