"""The two protocols between systemd and a service: sd_notify(3) and sd_listen_fds(3)."""

import os
import socket
from contextlib import suppress

_FIRST = 3  # SD_LISTEN_FDS_START


def listening_sockets() -> tuple[socket.socket | None, list[socket.socket]]:
    """Return the sockets that socket units passed to this process: the one of packets, None if there is none, and streams.

    Raises ValueError for anything but one Unix packet socket (ListenSequentialPacket=) and stream sockets (ListenStream=).
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return None, []
    count = os.environ.get("LISTEN_FDS", "")
    given = [socket.socket(fileno=_FIRST + number) for number in range(int(count) if count.isdigit() else 0)]
    packets = [each for each in given if (each.family, each.type) == (socket.AF_UNIX, socket.SOCK_SEQPACKET)]
    streams = [each for each in given if each.type == socket.SOCK_STREAM]
    if len(packets) != 1 or len(packets) + len(streams) != len(given):
        kinds = ", ".join(each.type.name for each in given) or "none"
        raise ValueError(
            f"systemd gave {count} sockets ({kinds}); expected one ListenSequentialPacket=, and ListenStream= for LMTP"
        )
    for each in given:
        each.set_inheritable(False)
    return packets[0], streams


def notify(*states: str) -> None:
    """Send states such as READY=1 to the service manager; do nothing if there is none or it does not read."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # unix(7), abstract
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as manager:
        manager.sendto("\n".join(states).encode(), address)
