"""The Unix socket on which the service accepts messages from the entrypoints."""

import errno
import os
import socket
import stat

BACKLOG = 512
"""listen(2): connections that the kernel keeps until they are accepted."""

_CONNECT_SECONDS = 2.0


class ServeError(Exception):
    """The service cannot start, or does not answer; the message gives the cause and the fix."""


def listen(name: str) -> socket.socket:
    """Return a listening socket at the path `name`, mode 0600: only this account and root can connect.

    Replaces a socket left behind by a killed service. Raises ServeError if the socket cannot be created, or if another
    service or another kind of file is there.
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
        raise ServeError(
            f"{name}: {error.strerror}; serve.socket must be in a directory that this account can write"
        ) from error
    return listener


def _clear(name: str) -> None:
    """Remove the socket of a service that was killed."""
    if not stat.S_ISSOCK(os.stat(name).st_mode):
        raise ServeError(f"{name}: this file is not a socket; set serve.socket to another path")
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
