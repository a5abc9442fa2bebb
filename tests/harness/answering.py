"""A Unix socket of packets that answers like `pipehandler serve`, without any worker behind it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serving(path: Path, *answers: bytes) -> Iterator[list[bytes]]:
    """A server that gives each visitor these answers and then leaves; yields the first packet of each."""
    packets: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen(100)

        def serve() -> None:
            while True:
                try:
                    visitor, _ = listener.accept()
                except OSError:
                    return
                with visitor:
                    visitor.settimeout(10)
                    try:
                        packets.append(visitor.recv(200_000))
                        for answer in answers:
                            visitor.send(answer)
                            if answer.startswith(b"go "):
                                visitor.recv(100)  # the descriptor; the kernel closes it
                    except OSError:  # a damaged client left
                        pass

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield packets
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
