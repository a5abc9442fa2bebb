"""A message whose parsing can be made fatal, or too slow, from outside, on any processor.

No other message in the tests has its charset, so the parser loads the charset's codec only while it parses this
message. strace(1) sends a signal to the process that opens the codec's file, or delays it there.
"""

import encodings.cp1125
import importlib.util

POISON = (
    b"Message-ID: <poison@example.org>\nSubject: poison\nMIME-Version: 1.0\n"
    b"Content-Type: text/plain; charset=cp1125\nContent-Transfer-Encoding: 8bit\n\n"
    b"\x8f\xe0\xa8\xa2\xa5\xe2\n"
)
"""Parsed like any other message, unless the command runs under `lethal` or `slow`."""

_SOURCE = encodings.cp1125.__file__
_FILES = [_SOURCE, importlib.util.cache_from_source(_SOURCE)]


def lethal() -> list[str]:
    """The command prefix under which each process that parses POISON is killed by SIGKILL."""
    return _strace("signal=SIGKILL")


def slow(seconds: float) -> list[str]:
    """The command prefix under which parsing POISON takes at least so many seconds."""
    return _strace(f"delay_enter={int(seconds * 1e6)}")


def _strace(fault: str) -> list[str]:
    # -D: the command remains the child of the test. -f: its children are traced as well.
    paths = [word for file in _FILES for word in ("-P", file)]
    return ["strace", "-D", "-f", "-q", "-o", "/dev/null", *paths, "-e", f"inject=open,openat:{fault}"]
