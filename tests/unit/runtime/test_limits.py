"""The kernel's limits for one message, in this process."""

import resource
import time

from pipehandler.runtime import limits
from pipehandler.runtime.deadline import GRACE
from pipehandler.settings.config import Limits

KINDS = (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_NPROC, resource.RLIMIT_CORE)


def test_temporarily() -> None:
    """Memory and CPU time as configured, no further process and no core dump; afterwards all limits are restored."""
    as_started = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (as_started[1], as_started[1]))  # in a container it is 0 already
    before = {kind: resource.getrlimit(kind) for kind in KINDS}
    used = time.process_time()
    with limits.temporarily(Limits(memory=1 << 40, deadline=50)):
        memory, cpu, processes, core = (resource.getrlimit(kind)[0] for kind in KINDS)
        assert (memory, processes, core) == (1 << 40, 0, 0)
        assert 0 <= cpu - (int(used) + 50 + GRACE) <= 2
        assert {kind: resource.getrlimit(kind)[1] for kind in KINDS} == {
            kind: hard for kind, (_, hard) in before.items()
        }
    assert {kind: resource.getrlimit(kind) for kind in KINDS} == before
    resource.setrlimit(resource.RLIMIT_CORE, as_started)
