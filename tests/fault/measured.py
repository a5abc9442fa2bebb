"""The cold entrypoint, with what it cost: its time, and the most memory that it had resident."""

import sys
from typing import NamedTuple

from real.handler import Handler

# ru_maxrss of a new process is at least what its parent had resident (getrusage(2): it is kept through exec), and the
# campaign holds large messages. So a parent as small as pipe(8) stands between; it is what the handler sees as its parent.
_PARENT = """
import os, sys, time
started = time.monotonic()
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
os.close(0)
status, usage = os.wait4(child, 0)[1:]
seconds = time.monotonic() - started
print(f"\\n{os.waitstatus_to_exitcode(status)} {seconds} {1024 * usage.ru_maxrss}")
"""


class Measured(NamedTuple):
    """How the entrypoint ended and what it wrote; how many seconds it took, and how many octets of memory."""

    status: int
    output: str
    seconds: float
    memory: int


def deliver(handler: Handler, message: bytes, *recipients: str, **options: object) -> Measured:
    """Deliver one message as pipe(8) does, and measure it."""
    command = handler.command(*recipients, **options)  # type: ignore[arg-type]
    ended = handler.run([sys.executable, "-I", "-S", "-c", _PARENT, *command], message)
    output, _, report = ended.output.rstrip("\n").rpartition("\n")
    status, seconds, memory = report.split()
    return Measured(int(status), output.strip(), float(seconds), int(memory))
