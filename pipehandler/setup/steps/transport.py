"""The transport in master.cf."""

from ..files import append, keep
from ..host import Host
from ..postfix_state import PostfixState
from ..record import Record
from ..step import Change, Step

BEGIN, END = "# BEGIN pipehandler setup", "# END pipehandler setup"
"""The marker lines around the text that setup appends to master.cf."""


def transport(host: Host, record: Record) -> Step:
    """Return the step that appends the transport. Raises SetupError."""
    state = PostfixState.read(host)
    if state.has_transport:
        return Step("transport", f"master.cf has {state.transport}")
    file = host.file("master.cf")
    copying, copies = keep(record, file)
    entry = append(file, host.postfix_files("master.cf"), BEGIN, END)
    change = Change("block", file, after=f"{state.transport}/unix")
    commands = (*copying, *entry, *state.reload())
    return Step("transport", f"master.cf does not have {state.transport}", commands, (*copies, change))
