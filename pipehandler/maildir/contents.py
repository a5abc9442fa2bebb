"""What a Maildir has, seen from outside: for `metrics` and `check`, which change nothing."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from .folder import FAILED, LOCK, REASON, not_ours


class Contents(NamedTuple):
    """How many files of one kind a Maildir has, and when the oldest of them was written, in seconds since 1970."""

    files: int
    oldest: float | None


def contents(path: str) -> dict[str, Contents]:
    """Return the files that wait, that were left alone, and that failed; for `metrics` and `check`. Raises OSError."""
    times: dict[str, list[float]] = {"waiting": [], "left_alone": [], "failed": []}
    owner = os.stat(os.path.join(path, "new")).st_uid
    for name, state in _states(os.path.join(path, "new")):
        times["left_alone" if name.startswith(".") or not_ours(state, owner) else "waiting"].append(state.st_mtime)
    with suppress(FileNotFoundError):
        for name, state in _states(os.path.join(path, FAILED)):
            if not name.endswith(REASON):
                times["failed"].append(state.st_mtime)
    return {kind: Contents(len(found), min(found, default=None)) for kind, found in times.items()}


def is_watched(path: str) -> bool:
    """Return whether a watcher has the lock. Raises OSError if that cannot be found out."""
    try:
        lock = os.open(os.path.join(path, LOCK), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _states(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # it was moved meanwhile
                yield entry.name, entry.stat(follow_symlinks=False)
