"""Messages handed to the resident workers directly, with the protocol of the entrypoint but without starting one.

So the time from the hand-over to the answer is that of the service and the database alone.
"""

import os
import socket
import time

from harness.handler import Handler, entrypoint

from pipehandler.handover import deliver_packet


def hand_over(handler: Handler, message: bytes, *recipients: str) -> float:
    """Let a worker store `message`; returns the seconds until its answer."""
    argv = handler.command(*recipients)[len(entrypoint()) :]
    with (
        open(os.memfd_create("message"), "w+b", buffering=0) as file,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server,
    ):
        file.write(message)
        file.seek(0)
        server.settimeout(60)
        started = time.monotonic()
        server.connect(str(handler.socket))
        server.send(deliver_packet(argv, os.getppid(), started))
        while not (word := server.recv(1000)).startswith(b"go "):
            if not word.startswith(b"wait "):
                raise RuntimeError(f"no worker took it: {word!r}")
        socket.send_fds(server, [b"fd"], [file.fileno()])
        answer = server.recv(1000)
        seconds = time.monotonic() - started
    if not answer.startswith(b"end 0 "):
        raise RuntimeError(f"not stored: {answer!r}")
    return seconds
