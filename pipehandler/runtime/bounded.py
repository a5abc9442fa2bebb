"""The limits of one delivery around a part of a process that does other things as well: a command of the operator."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager

from ..settings.config import Limits
from .deadline import clear
from .rlimit import limit

_KINDS = (
    *(resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NPROC),
    resource.RLIMIT_CORE,
)


@contextmanager
def bounded(limits: Limits) -> Iterator[None]:
    """Within it the kernel keeps the limits of rlimit.py, and a Deadline may be used; afterwards all is as before."""
    before = [(kind, resource.getrlimit(kind)) for kind in _KINDS]
    limit(limits)
    try:
        yield
    finally:
        clear()
        for kind, values in before:
            resource.setrlimit(kind, values)
