"""The log: one line for each delivery, for the operator.

A line is `key=value` pairs with the outcome first; in log.file the time, the host and the process stand before it, as syslog has them. It holds the queue id, so that grep finds all lines about a message in the
mail log, and the message id, but no address and no content. A delivery never fails because logging fails.
"""

import errno
import os
import re
import select
import time
from contextlib import suppress

from ..settings.config import Log
from . import syslog

_PLAIN = re.compile(r"[!#-&(-<>-\[\]-~]+")  # no quotes, backslash, space or equals sign
_LONGEST = 400  # characters of a value
_LONGEST_LINE = (
    3900  # octets; a pipe takes 4096 whole or not at all (PIPE_BUF, pipe(7)), with what stands before the line
)

STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2, "/proc/self/fd/1": 1, "/proc/self/fd/2": 2}
"""Names for log.file that mean a stream of the process that logs: of `pipehandler serve`, in a container."""


def line(outcome: str, **values: object) -> str:
    """Return one log line: the outcome, then each value that is not None; ASCII, quoted where necessary."""
    return " ".join(
        [f"outcome={outcome}", *(f"{key}={_quoted(value)}" for key, value in values.items() if value is not None)]
    )


def _quoted(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    if len(text) > _LONGEST:
        text = text[:_LONGEST] + "..."
    if _PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').encode("unicode_escape").replace(b"\\\\", b"\\")
    return f'"{escaped.decode("ascii")}"'


def write(text: str, settings: Log, failed: bool) -> tuple[str, ...]:
    """Write one line to the destinations in `settings`, as an error or as information, without waiting for any of them.

    Returns the destinations that did not take it, of "syslog" and "file"; the journal counts them.
    """
    dropped = []
    octets = text.encode("ascii", "backslashreplace")[:_LONGEST_LINE] + b"\n"
    if settings.syslog:
        try:
            syslog.send(text[:_LONGEST_LINE], failed)
        except OSError:
            dropped.append("syslog")
    if settings.file:
        try:
            _write(settings.file, _prefix() + octets)
        except OSError:
            dropped.append("file")
    with suppress(OSError):
        if os.isatty(2):  # run by hand
            os.write(2, octets)
    return tuple(dropped)


def _prefix() -> bytes:
    """What syslog puts before a line: the time (RFC 3339, in UTC), the host, and the process."""
    now = time.time()
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    return f"{when}.{int(now % 1 * 1e6):06}Z {os.uname().nodename} pipehandler[{os.getpid()}]: ".encode(
        "ascii", "replace"
    )


def _write(path: str, octets: bytes) -> None:
    """Write one line to a file, or to a standard stream of this process. Raises OSError if that does not take it."""
    if path in STREAMS:
        _write_stream(STREAMS[path], octets)
    else:
        _append(path, octets)


def _write_stream(stream: int, octets: bytes) -> None:
    """Write to our own stdout or stderr. A delivery that Postfix started has neither: there they lead to /dev/null."""
    if os.path.samestat(os.fstat(stream), os.stat(os.devnull)):
        raise OSError(errno.ENXIO, "Postfix has the standard streams of this process")
    poll = select.poll()
    poll.register(stream, select.POLLOUT)
    # A pipe that can be written to takes a line of this length whole (PIPE_BUF), without waiting.
    if not poll.poll(0) or os.write(stream, octets) < len(octets):
        raise OSError(errno.EAGAIN, "the reader of the stream stands still")


def _append(path: str, octets: bytes) -> None:
    """Append one line to a file, all of it or nothing. Raises OSError if it did not fit."""
    # One write to a file opened for appending: lines of several processes do not mix, and rotation needs no signal.
    # O_NONBLOCK: a FIFO without a reader, or with one that stands still, takes no line.
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY, 0o640)
    try:
        written = os.write(file, octets)
        if written < len(octets):  # the disk is full, or a limit is reached, in the middle of the line
            end = os.lseek(file, 0, os.SEEK_CUR)
            if os.fstat(file).st_size == end:
                os.ftruncate(file, end - written)
            raise OSError(errno.ENOSPC, "only a part of the line was written", path)
    finally:
        os.close(file)
