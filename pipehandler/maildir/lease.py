"""Leases (fcntl(2)), with which the kernel says whether a process has a file open for writing."""

import errno
import fcntl
import os
from contextlib import suppress


def gets_lease(file: int) -> bool:
    """Return whether the kernel gives a lease to read: only if no process has the file open for writing (fcntl(2))."""
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            return False
        raise
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return True


def has_leases(path: str) -> bool:
    """Try a lease on a file in tmp/. NFS refuses it with the errors of a file that is being written, so this decides once."""
    name = os.path.join(path, "tmp", "pipehandler.lease")
    with suppress(FileNotFoundError):
        os.unlink(name)
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with open(name, "rb") as file:
            return gets_lease(file.fileno())
    except OSError:
        return False
    finally:
        os.unlink(name)
