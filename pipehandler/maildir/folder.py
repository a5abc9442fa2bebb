"""One Maildir: which files in new/ are messages, and where they go when they are stored, or can never be.

Nothing here follows a link, waits for a FIFO, or touches a file of another account.
"""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import IO, NamedTuple

LOCK = "pipehandler.lock"
"""The file that a watcher has locked (flock(2)), in the Maildir."""

FAILED = "failed"
"""The folder for messages that can never be stored, beside new/ and cur/."""

REASON = ".reason"
"""The suffix of the file beside a failed message that says why."""

_INFO = ":2,"  # and no flags; what a name in cur/ has behind its unique part
_LONGEST_NAME = 240  # octets; file systems take 255

_LOCK_SECONDS = 2.0  # `check` takes the lock for a moment
_QUIET_SECONDS = 2.0


class MaildirError(Exception):
    """A Maildir that cannot be watched; the text says which, why, and what to do."""


class LeftAlone(Exception):
    """A file that is not a message of this account; the text says why."""


class Growing(Exception):
    """A file that may not be complete yet."""


class Opened(NamedTuple):
    """A message in new/: its name, its open file, and the state of the file when it was opened."""

    name: str
    file: IO[bytes]
    state: os.stat_result


class Maildir:
    """One Maildir, locked for this process. Raises MaildirError."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._new = self._cur = self._failed = self._lock = -1
        self._dirty = False
        self._seen: dict[str, tuple[tuple[int, ...], float]] = {}  # without leases: state and time of the first look
        try:
            self._new = _directory(os.path.join(path, "new"))
            self._cur = _directory(os.path.join(path, "cur"))
            if os.fstat(self._new).st_uid != os.geteuid():
                raise MaildirError(f"{path}: new/ belongs to another account; run `watch` as that account")
            with suppress(FileExistsError):
                os.mkdir(os.path.join(path, FAILED), 0o700)
            self._failed = _directory(os.path.join(path, FAILED))
            self._lock = _locked(path)
            self._leases = _has_leases(path)
        except OSError as error:
            self.close()
            hint = "it must be a Maildir with new/, cur/ and tmp/ that this account may write to"
            raise MaildirError(f"{error.filename or path}: {error.strerror}; {hint}") from error
        except MaildirError:
            self.close()
            raise

    @property
    def new(self) -> int:
        """The descriptor of new/."""
        return self._new

    def names(self) -> list[str]:
        """The names in new/, oldest first as far as their names say; without dot files.

        Raises MaildirError if another folder has been put in the place of new/.
        """
        try:
            same = os.path.samestat(os.stat(os.path.join(self.path, "new")), os.fstat(self._new))
        except OSError:
            same = False
        if not same:
            raise MaildirError(f"{self.path}: new/ was removed or replaced while it was watched")
        return sorted(name for name in os.listdir(self._new) if not name.startswith("."))

    def open(self, name: str) -> Opened:
        """Open a message. Raises LeftAlone, Growing, FileNotFoundError, or another OSError."""
        why = _not_ours(os.stat(name, dir_fd=self._new, follow_symlinks=False), os.geteuid())
        if why:
            raise LeftAlone(why)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = open(os.open(name, flags, dir_fd=self._new), "rb", buffering=0)  # noqa: SIM115 # the caller closes it
        try:
            state = os.fstat(file.fileno())
            why = _not_ours(state, os.geteuid())
            if why:
                raise LeftAlone(why)
            if self._is_growing(name, file, state):
                raise Growing
        except BaseException:
            file.close()
            raise
        return Opened(name, file, state)

    def _is_growing(self, name: str, file: IO[bytes], state: os.stat_result) -> bool:
        """Whether a process may still write to the file. Where there are no leases, whether it was changed of late."""
        if self._leases:
            return not _leased(file.fileno())
        now, seen = time.monotonic(), _identity(state)
        before, since = self._seen.setdefault(name, (seen, now))
        if before != seen:
            self._seen[name] = seen, now
            return True
        return now - since < _QUIET_SECONDS

    def finish(self, opened: Opened, remove: bool) -> bool:
        """Move a message that is stored to cur/, or remove it. False: the file is no longer the one that was stored."""
        if not self._is_unchanged(opened):
            return False
        if remove:
            os.unlink(opened.name, dir_fd=self._new)
        else:
            self._move(opened.name, self._cur, _INFO)
        self._dirty = True
        return True

    def reject(self, opened: Opened, reason: str) -> bool:
        """Move a message that can never be stored to failed/, with the reason beside it. False: as for `finish`."""
        if not self._is_unchanged(opened):
            return False
        name = self._move(opened.name, self._failed, "")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        # The log has it as well.
        with suppress(OSError), open(os.open(name + REASON, flags, 0o600, dir_fd=self._failed), "wb") as file:
            file.write(reason.encode("ascii", "replace") + b"\n")
        os.fsync(self._failed)
        os.fsync(self._new)
        return True

    def sync(self) -> None:
        """Write the moves to the disk. One that is lost makes a duplicate, no loss, so it is done for many at once."""
        if self._dirty:
            self._dirty = False
            os.fsync(self._cur)
            os.fsync(self._new)

    def close(self) -> None:
        """Close everything, and let go of the lock."""
        for descriptor in (self._new, self._cur, self._failed, self._lock):
            if descriptor >= 0:
                os.close(descriptor)

    def _is_unchanged(self, opened: Opened) -> bool:
        self._seen.pop(opened.name, None)
        try:
            now = os.stat(opened.name, dir_fd=self._new, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return _identity(now) == _identity(opened.state)

    def _move(self, name: str, folder: int, suffix: str) -> str:
        """Rename without replacing a file; only the watcher that has the lock does this."""
        if _INFO in name or len(os.fsencode(name)) > _LONGEST_NAME:
            suffix = ""
        target, number = name + suffix, 0
        while _exists(target, folder):
            number += 1
            target = f"{name}.{number}{suffix}"
        os.rename(name, target, src_dir_fd=self._new, dst_dir_fd=folder)
        return target


class Contents(NamedTuple):
    """How many files of one kind a Maildir has, and when the oldest of them was written, in seconds since 1970."""

    files: int
    oldest: float | None


def contents(path: str) -> dict[str, Contents]:
    """Return the files that wait, that were left alone, and that failed; for `metrics` and `check`. Raises OSError."""
    times: dict[str, list[float]] = {"waiting": [], "left_alone": [], "failed": []}
    owner = os.stat(os.path.join(path, "new")).st_uid
    for name, state in _states(os.path.join(path, "new")):
        times["left_alone" if name.startswith(".") or _not_ours(state, owner) else "waiting"].append(state.st_mtime)
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


def _not_ours(state: os.stat_result, account: int) -> str:
    """Return why a file is not a message of the account; "" if it is."""
    if not stat.S_ISREG(state.st_mode):
        return "not a regular file"
    return "" if state.st_uid == account else f"it belongs to user {state.st_uid}"


def _identity(state: os.stat_result) -> tuple[int, ...]:
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns


def _directory(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _exists(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _locked(path: str) -> int:
    lock = os.open(os.path.join(path, LOCK), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() < until:
                time.sleep(0.05)
                continue
            os.close(lock)
            raise MaildirError(f"{path}: another `pipehandler watch` watches it; stop that one first") from None
        return lock


def _leased(file: int) -> bool:
    """Return whether the kernel gives a lease to read: only if no process has the file open for writing (fcntl(2))."""
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            return False
        raise
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return True


def _has_leases(path: str) -> bool:
    """Try a lease on a file in tmp/. NFS refuses it with the errors of a file that is being written, so this decides once."""
    name = os.path.join(path, "tmp", "pipehandler.lease")
    with suppress(FileNotFoundError):
        os.unlink(name)
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with open(name, "rb") as file:
            return _leased(file.fileno())
    except OSError:
        return False
    finally:
        os.unlink(name)
