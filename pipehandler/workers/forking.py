"""Fork a process of the service, with a channel to it."""

import os
import socket


def fork_with_channel() -> tuple[int, socket.socket, socket.socket]:
    """Fork; return the child's pid (0 in the child), our end of a new channel and the child's. Raises OSError.

    Each process closes the end of the other one.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        return os.fork(), ours, theirs
    except OSError:
        ours.close()
        theirs.close()
        raise
