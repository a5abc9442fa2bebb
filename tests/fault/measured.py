"""A delivery with its cost: its time, and the peak resident memory of the entrypoint or the worker."""

import re
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from harness.handler import Handler

# ru_maxrss of a new process is at least its parent's resident memory (getrusage(2): it survives exec), and the campaign
# holds large messages. So a process as small as pipe(8) is started in between, and is the handler's parent.
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
    """How the entrypoint ended and what it wrote; its seconds, and its peak memory in octets."""

    status: int
    output: str
    seconds: float
    memory: int


def deliver_to_worker(handler: Handler, worker: int, message: bytes, *recipients: str) -> Measured:
    """Deliver one message with this worker, and measure it."""
    most = [0]
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            most[0] = max(most[0], _most_memory(worker))

    watching = threading.Thread(target=watch)
    watching.start()
    started = time.monotonic()
    ended = handler.deliver(message, *recipients)
    seconds = time.monotonic() - started
    over.set()
    watching.join()
    return Measured(ended.status, ended.output.strip(), seconds, max(most[0], _most_memory(worker)))


def _most_memory(pid: int) -> int:
    """VmHWM of a process (proc(5)); 0 if it has ended."""
    try:
        found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return 0
    return 1024 * int(found[1]) if found else 0


def deliver(handler: Handler, message: bytes, *recipients: str, **options: object) -> Measured:
    """Deliver one message as pipe(8) does, and measure it."""
    command = handler.command(*recipients, **options)  # type: ignore[arg-type]
    ended = handler.run([sys.executable, "-I", "-S", "-c", _PARENT, *command], message)
    output, _, report = ended.output.rstrip("\n").rpartition("\n")
    status, seconds, memory = report.split()
    return Measured(int(status), output.strip(), float(seconds), int(memory))
