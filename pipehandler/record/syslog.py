"""One line for the local syslog daemon, without ever waiting for it.

syslog(3) blocks while the daemon reads nothing: when it is stopped, waits for a disk that is full, or for a remote host. So the
line is a datagram that is sent by this process. The format is that of syslog(3), which every daemon reads (RFC 3164).
"""

import errno
import os
import time
from _socket import AF_UNIX, SOCK_DGRAM, SOCK_STREAM, socket  # the module socket loads more than this needs

_SOCKET = "/dev/log"
_MAIL = 2 << 3  # the facility
_ERROR, _INFORMATION = 3, 6

_PATIENCE = 0.1
"""Seconds to wait for room: the queue of the socket holds few datagrams, and a daemon that lives empties it in less."""


def send(text: str, failed: bool) -> None:
    """Send one line, as an error or as information. Raises OSError if the daemon does not take it at once."""
    priority = _MAIL | (_ERROR if failed else _INFORMATION)
    when = time.strftime("%b %e %H:%M:%S")
    packet = f"<{priority}>{when} pipehandler[{os.getpid()}]: {text}".encode("ascii", "backslashreplace")
    try:
        _send(SOCK_DGRAM, packet)
    except OSError as error:
        if error.errno != errno.EPROTOTYPE:
            raise
        _send(SOCK_STREAM, packet + b"\0")  # some daemons listen for connections


def _send(kind: int, packet: bytes) -> None:
    log = socket(AF_UNIX, kind)
    try:
        log.settimeout(_PATIENCE)
        log.connect(_SOCKET)
        log.sendall(packet)
    finally:
        log.close()
