"""Compare the running service of resident workers with what is installed and configured now."""

import os
import time
from collections.abc import Iterator

from pipehandler.monitor.service_status import OTHER_NAMESPACE, ask, stale
from pipehandler.settings.config import Config
from pipehandler.workers.listener import ServeError

from .finding import Finding

_RENEWAL_SECONDS = 8.0
"""A service notices a change when it is asked, and needs a moment."""


def check_service(config: Config) -> Iterator[Finding]:
    """Check the service that listens on serve.socket; it does not have to run."""
    try:
        counts = ask(config.serve.socket)
    except ServeError:
        return
    if counts.get("other_namespace"):
        yield Finding(
            "service-namespace",
            f"{counts['other_namespace']} messages came to the service from processes that it cannot see: {OTHER_NAMESPACE}",
            "Every message is delivered cold, for ten times the CPU time.",
            "# run `pipehandler serve` in the PID namespace of Postfix: without PrivatePIDs=, in the same container",
        )
    until = time.monotonic() + _RENEWAL_SECONDS
    while (different := stale(counts, config)) and time.monotonic() < until:
        time.sleep(0.5)  # it replaces itself, once it was asked
        try:
            counts = ask(config.serve.socket)
        except ServeError:
            continue
    for what in different:
        yield Finding(
            "service-stale",
            f"the resident workers {what}",
            "What was changed has no effect on them, or each message is delivered cold. The log may say why they were not replaced.",
            "systemctl restart pipehandler.service"
            if os.path.isdir("/run/systemd/system")
            else "# restart `pipehandler serve` under its supervisor",
        )
