"""Compare the running service of resident workers with what is installed and configured now."""

import os
from collections.abc import Iterator

from pipehandler.monitor.service_status import OTHER_NAMESPACE, ask, stale
from pipehandler.settings.config import Config
from pipehandler.workers.listener import ServeError

from .finding import Finding


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
    for what in stale(counts, config):
        yield Finding(
            "service-stale",
            f"the resident workers {what}",
            "They deliver as before, and what was changed has no effect on them, or each message is delivered cold.",
            "systemctl restart pipehandler.service"
            if os.path.isdir("/run/systemd/system")
            else "# restart `pipehandler serve` under its supervisor",
        )
