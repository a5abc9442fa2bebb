"""Kernel limits for one message (setrlimit(2)).

RLIMIT_AS raises MemoryError before the host is starved. RLIMIT_CPU ends code that never returns to the interpreter and
so never handles SIGALRM: SIGXCPU kills the process, and pipe(8) defers the message.
"""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

from ..settings.config import Limits
from .deadline import GRACE, clear

_KINDS = (
    resource.RLIMIT_AS,
    resource.RLIMIT_CPU,
    resource.RLIMIT_NPROC,
    resource.RLIMIT_CORE,
)


def apply(limits: Limits) -> None:
    """Set the limits for one message. CPU time is counted from now."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _set(resource.RLIMIT_AS, limits.memory)
    _set(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + limits.deadline + int(GRACE))
    _set(resource.RLIMIT_NPROC, 0)
    _set(resource.RLIMIT_CORE, 0)


@contextmanager
def temporarily(limits: Limits) -> Iterator[None]:
    """Apply the limits while a command handles one message; then restore the previous ones and cancel the deadline."""
    before = [(kind, resource.getrlimit(kind)) for kind in _KINDS]
    apply(limits)
    try:
        yield
    finally:
        clear()
        for kind, values in before:
            resource.setrlimit(kind, values)


def _set(kind: int, limit: int) -> None:
    """Set the soft limit, at most the hard limit that the parent process has set."""
    soft, hard = resource.getrlimit(kind)
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    if soft != limit:
        resource.setrlimit(kind, (limit, hard))
