"""The memory for messages on their way in: each in a memfd (memfd_create(2)), all of them within a bound.

Before a message comes in, room for it is reserved, so that many clients cannot take more memory together than the bound:
that is three times limits.message_size. Large messages have two thirds of it and small ones the rest, so that small
ones never wait for large ones.
"""

import os

from ..delivery.turn import LARGE


class Full(Exception):
    """There is no room now."""


class Room:
    """Octets that are free for messages."""

    def __init__(self, octets: int) -> None:
        self.free = octets

    def take(self, octets: int) -> None:
        """Reserve octets. Raises Full."""
        if octets > self.free:
            raise Full
        self.free -= octets


class Rooms:
    """The rooms of one receiver, for messages of at most `message_size` octets."""

    def __init__(self, message_size: int) -> None:
        self._largest = message_size
        self._small = Room(max(message_size, LARGE) + 1)
        self._large = Room(2 * (message_size + 1))

    def spool(self, announced: int | None) -> "Spool":
        """Return the place for a message of as many octets as the client announced. Raises Full, or OSError."""
        octets = min(self._largest if announced is None else announced, self._largest) + 1
        room = self._large if octets >= LARGE else self._small
        return Spool(room, octets, self._largest + 1)


class Spool:
    """One message. It keeps at most `largest` octets, one more than is allowed, so that the excess can be seen later.

    is_cut: whether there was no room for what came beyond the octets that were announced.
    """

    def __init__(self, room: Room, reserved: int, largest: int) -> None:
        reserved = min(reserved, largest)
        room.take(reserved)
        try:
            self.file = os.memfd_create("message", os.MFD_CLOEXEC)
        except OSError:
            room.free += reserved
            raise
        self.size = 0
        self.is_cut = False
        self._room = room
        self._reserved = reserved
        self._largest = largest

    def write(self, octets: bytes) -> None:
        """Append octets of the message. Raises OSError if the kernel has no memory."""
        octets = octets[: self._largest - self.size]
        missing = self.size + len(octets) - self._reserved
        if missing > 0:
            try:
                self._room.take(missing)
            except Full:
                self.is_cut = True
                return
            self._reserved += missing
        self.size += len(octets)
        view = memoryview(octets)
        while view:
            view = view[os.write(self.file, view) :]

    def rewind(self) -> None:
        """Let the next reader of the file begin at its first octet."""
        os.lseek(self.file, 0, os.SEEK_SET)

    def close(self) -> None:
        """Give the memory back."""
        os.close(self.file)
        self._room.free += self._reserved
