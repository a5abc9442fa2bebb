"""The two protocols between systemd and a service: sd_notify(3) and sd_listen_fds(3)."""

import os
import socket
from contextlib import suppress

_FIRST = 3  # SD_LISTEN_FDS_START


def listening_socket() -> socket.socket | None:
    """Return the socket that a socket unit passed to this process, or None.

    Raises ValueError unless it is exactly one Unix packet socket (ListenSequentialPacket=).
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None
    count = os.environ.get("LISTEN_FDS", "")
    given = socket.socket(fileno=_FIRST)
    if count != "1" or (given.family, given.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET):
        raise ValueError(
            f"systemd gave {count} sockets, the first a {given.type.name}; expected one ListenSequentialPacket="
        )
    given.set_inheritable(False)
    return given


def notify(*states: str) -> None:
    """Send states such as READY=1 to the service manager; do nothing if there is none or it does not read."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # unix(7), abstract
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.sendto("\n".join(states).encode(), address)
