"""The socket where the entrypoint hands messages over: made for the service."""

import errno
import os
import socket
import stat

BACKLOG = 512
"""Connections that wait in the kernel to be accepted."""

_CONNECT_SECONDS = 2.0


class ServeError(Exception):
    """The service cannot start, or does not answer; the text says why and what to do."""


def listen(name: str) -> socket.socket:
    """A listening socket that only our own account, and root, may connect to.

    Raises ServeError where it cannot be made.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        if os.path.exists(name):
            _clear(name)
        mask = os.umask(0o177)
        listener.bind(name)
        os.umask(mask)
        listener.listen(BACKLOG)
    except (OSError, ServeError) as error:
        listener.close()
        if isinstance(error, ServeError):
            raise
        raise ServeError(f"{name}: {error.strerror}; serve.socket must be in a directory that we may write") from error
    return listener


def _clear(name: str) -> None:
    """Remove a socket that a service left behind which was killed."""
    if not stat.S_ISSOCK(os.stat(name).st_mode):
        raise ServeError(f"{name}: there is something that is no socket; serve.socket must be another name")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.settimeout(_CONNECT_SECONDS)
        try:
            probe.connect(name)
        except OSError as error:
            if error.errno != errno.ECONNREFUSED:
                raise
            os.unlink(name)
        else:
            raise ServeError(f"{name}: another service is listening there")
