"""Messages that kill their parser: they end as quarantined rows, not as days of retries and a bounce.

Time and memory limits turn most of it into data in the same process. What is left kills: a crash in C code, the CPU limit,
the kernel's out-of-memory killer. So an attempt marks the message in the state directory before it parses, and takes the
mark away afterwards. Whoever finds the mark of an attempt that is dead lets a child parse first: if the child dies as
well, the message is stored without being parsed; if not, something else killed the first attempt, and all goes its usual way.
"""

import fcntl
import os
from contextlib import suppress


class Mark:
    """The mark of one message, by its id, in the state directory; a context manager around its parsing.

    `suspicious` inside the context: an earlier attempt died while it parsed this message. Where the directory cannot be
    written there is no mark and no suspicion.
    """

    def __init__(self, directory: str, message: str) -> None:
        self._path = os.path.join(directory, f"parsing-{message}")
        self._file: int | None = None
        self.suspicious = False

    def __enter__(self) -> "Mark":
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return self
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.suspicious = os.fstat(file).st_size > 0
            os.pwrite(file, b"parsing\n", 0)
            self._file = file
        except OSError:
            os.close(file)  # another recipient's copy is being parsed at this moment, and has its own mark
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with suppress(OSError):
                os.truncate(self._file, 0)  # whoever has just opened it shall find no mark
                os.unlink(self._path)
            with suppress(OSError):  # nothing was written that could be lost, and the message is read
                os.close(self._file)
