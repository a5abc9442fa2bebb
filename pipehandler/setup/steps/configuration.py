"""The configuration file of the handler."""

import os
import shlex

from pipehandler.settings.config import Config, memory_needed
from pipehandler.store.conninfo import located

from ..host import Host
from ..record import Record
from ..step import Change, Step, here_document


def configuration(host: Host, _: Record) -> Step:
    """Return the step that writes the file; one that exists is never changed."""
    if os.path.exists(host.config):
        return Step("configuration", f"{host.config} exists")
    lines = [
        "# Written by `pipehandler setup`; docs/configuration.md lists every key.",
        "[database]",
        f'conninfo = "{located(host.server.conninfo, host.database, host.account)}"',
        f'admin_conninfo = "{located(host.server.conninfo, host.database, "root")}"',
    ]
    if host.domains:
        lines += ["", "[recipients]", f'domain = "{host.domains[0]}"']
    lines += _limits(host)
    new = f"{host.config}.new"
    return Step(
        "configuration",
        f"{host.config} does not exist",
        (
            here_document(new, "\n".join(lines) + "\n"),
            f"chmod 644 {shlex.quote(new)}",
            shlex.join(["mv", new, host.config]),  # never a part of it, which setup would not write again
        ),
        (Change("file", host.config),),
    )


def _limits(host: Host) -> list[str]:
    """Return the lines that allow messages as large as those that this Postfix accepts already."""
    postfix = host.postfix()
    written = postfix.explicit().get("message_size_limit", "") if postfix else ""
    size = int(written) if written.isdigit() else 0
    default = Config().limits
    if not default.message_size < size <= 1_000_000_000:
        return []
    memory = max(default.memory, memory_needed(size))
    return ["", "[limits]", f"message_size = {size}", f"memory = {memory}"]
