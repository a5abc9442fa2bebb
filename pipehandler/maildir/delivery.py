"""One message from a Maildir on its way through a worker: the protocol of handover.py, on a pair of sockets of our own."""

import re
import socket
import time

from ..handover import LARGEST, deliver_packet
from .folder import Opened
from .queue import Key

KIND = "maildir"
"""The first word of the packet to a worker."""

_ANSWER = re.compile(r"end (\d{1,3}) ([245]\.\d{1,3}\.\d{1,3} [ -~]*)")


class Delivery:
    """One message. `theirs`: the socket for the worker; close it when the worker has it.

    config: the path of the configuration. packet: the first packet, which goes to the worker with the socket.
    """

    def __init__(self, key: Key, opened: Opened, config: str) -> None:
        self.key, self.opened = key, opened
        argv = [f"--config={config}", f"--queue-id={opened.name}", f"--size={opened.state.st_size}"]
        self.packet = deliver_packet(argv, 0, time.monotonic(), KIND)
        self.socket, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.setblocking(False)

    def receive(self) -> tuple[int, str] | None:
        """Take a packet of the worker; return the status and the line of its result, or None if that has not come.

        Status 75 if the worker is gone, or says something unforeseen: the message may be stored, and is delivered again.
        """
        try:
            packet = self.socket.recv(LARGEST).decode("ascii")
            if packet.startswith("go "):
                socket.send_fds(self.socket, [b"fd"], [self.opened.file.fileno()])
                return None
        except BlockingIOError:
            return None
        except (OSError, ValueError):
            packet = ""
        answer = _ANSWER.fullmatch(packet)
        # Only a 0 with a code of class 2 is a success; only these bounce with pipe(8).
        if not answer or (answer[1] == "0") != (answer[2][0] == "2"):
            return 75, ""
        return int(answer[1]), answer[2]

    def close(self) -> None:
        """Close everything that this process has of it."""
        self.socket.close()
        self.theirs.close()
        self.opened.file.close()
