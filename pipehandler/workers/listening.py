"""The socket of the resident workers: made for the service, and asked by people how the service goes."""

import errno
import json
import os
import socket
import stat

from ..handover import LARGEST

BACKLOG = 512
"""Connections that wait in the kernel to be accepted."""

_ANSWER_SECONDS = 2.0


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
        probe.settimeout(_ANSWER_SECONDS)
        try:
            probe.connect(name)
        except OSError as error:
            if error.errno != errno.ECONNREFUSED:
                raise
            os.unlink(name)
        else:
            raise ServeError(f"{name}: another service is listening there")


def ask(name: str) -> dict[str, int]:
    """What the service that listens on the socket `name` says of itself.

    Raises ServeError where none answers.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            connection.connect(name)
            connection.send(b"status")
            told: dict[str, int] = json.loads(connection.recv(LARGEST))
    except (OSError, ValueError) as error:
        raise ServeError(f"{name}: no service answers ({error}); messages are delivered cold") from error
    return told
