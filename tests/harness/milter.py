"""A small Milter: it adds a field to each message, as signers and spam filters do."""

import contextlib
import socket
import struct
import threading
from typing import Protocol

_VERSION = 6
_ADD_HEADERS = 1  # SMFIF_ADDHDRS
_CONTINUE = b"c"
_ACCEPT = b"a"


class Stream(Protocol):
    """The file objects of a connection."""

    def read(self, size: int, /) -> bytes: ...
    def write(self, octets: bytes, /) -> object: ...
    def flush(self) -> None: ...


class Milter:
    """It listens on loopback, and adds `name: body` above the fields of each message."""

    def __init__(self, name: str, body: str) -> None:
        self._insertion = b"i" + struct.pack("!I", 0) + f"{name}\0{body}\0".encode()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError, struct.error), connection, connection.makefile("rwb") as stream:
            while (command := self._receive(stream)) != b"Q":
                if command == b"O":  # negotiation: its actions, and the events that it skips
                    self._send(stream, b"O" + struct.pack("!III", _VERSION, _ADD_HEADERS, 0))
                elif command == b"E":  # the end of the message
                    self._send(stream, self._insertion)
                    self._send(stream, _ACCEPT)
                elif command != b"D":  # macros are not answered
                    self._send(stream, _CONTINUE)

    @staticmethod
    def _receive(stream: Stream) -> bytes:
        (length,) = struct.unpack("!I", stream.read(4))
        return stream.read(length)[:1]

    @staticmethod
    def _send(stream: Stream, reply: bytes) -> None:
        stream.write(struct.pack("!I", len(reply)) + reply)
        stream.flush()
