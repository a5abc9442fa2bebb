"""inotify(7) by ctypes: a hint that a folder has a new file. What it does not report, the scan finds."""

import ctypes
import os
import struct

_LIBC = ctypes.CDLL(None, use_errno=True)
_IN_CREATE, _IN_MOVED_TO, _IN_Q_OVERFLOW = 0x100, 0x80, 0x4000  # virtual(8) links, other programs rename
_EVENT = struct.Struct("iIII")
_LARGEST = 65_536


class Inotify:
    """Watches on folders; raises OSError where the kernel gives none."""

    def __init__(self) -> None:
        self._file = _checked(_LIBC.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))

    def fileno(self) -> int:
        """The descriptor, readable when there are events."""
        return self._file

    def add(self, folder: int) -> int:
        """Watch the folder with this descriptor; return the number that its events have."""
        path = f"/proc/self/fd/{folder}".encode()
        return _checked(_LIBC.inotify_add_watch(self._file, path, _IN_CREATE | _IN_MOVED_TO))

    def read(self) -> list[tuple[int, str]] | None:
        """Return the number and the file name of each event; None if the kernel's queue ran over, and events are missing."""
        try:
            octets = os.read(self._file, _LARGEST)
        except BlockingIOError:
            return []
        events = []
        place = 0
        while place < len(octets):
            watch, mask, _, length = _EVENT.unpack_from(octets, place)
            if mask & _IN_Q_OVERFLOW:
                return None
            place += _EVENT.size + length
            if name := octets[place - length : place].rstrip(b"\0"):
                events.append((watch, os.fsdecode(name)))
        return events

    def close(self) -> None:
        """Close it."""
        os.close(self._file)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
