"""One Maildir: which files in new/ are messages, and where they go when they are stored, or can never be.

Nothing here follows a link, waits for a FIFO, or touches a file of another account.
"""

import fcntl
import os
import stat
import time
from contextlib import suppress
from typing import IO, NamedTuple

from .lease import gets_lease, has_leases

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
            self._leases = has_leases(path)
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
        why = not_ours(os.stat(name, dir_fd=self._new, follow_symlinks=False), os.geteuid())
        if why:
            raise LeftAlone(why)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        file = open(os.open(name, flags, dir_fd=self._new), "rb", buffering=0)  # noqa: SIM115 # the caller closes it
        try:
            state = os.fstat(file.fileno())
            why = not_ours(state, os.geteuid())
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
            return not gets_lease(file.fileno())
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


def not_ours(state: os.stat_result, account: int) -> str:
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
