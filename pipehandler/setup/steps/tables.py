"""The tables beside main.cf: the filter of delivery statuses, the recipients, and the routes if there is other mail."""

import shlex

from pipehandler.postfix.postconf import words

from ..files import write
from ..host import Host
from ..postfix_state import RECIPIENTS, ROUTES, PostfixState
from ..record import Record
from ..step import Change, Step

_FILTER = "pipehandler_status_filter"


def tables(host: Host, record: Record) -> Step:
    """Return the step that writes the missing tables. Raises SetupError."""
    state = PostfixState.read(host)
    parts = [write(record, host.file(_FILTER), host.postfix_text(_FILTER), host.postfix_files(_FILTER))]
    if not accepts_any(state):
        text, command = host.postfix_text(RECIPIENTS), host.postfix_files(RECIPIENTS)
        if state.beside:  # recipients of other domains must never be looked up here
            more = f"domain = {', '.join(dict.fromkeys([*state.routes(), *host.domains]))}"
            text, command = f"{text}{more}\n", f"{{ {command}; echo {shlex.quote(more)}; }}"
        parts.append(write(record, host.file(RECIPIENTS), text, command))
    parts += _routes(state)
    commands = [command for part in parts for command in part.commands]
    changes = [change for part in parts for change in part.changes]
    if commands:
        commands += state.reload()
    return Step("tables", "; ".join(part.found for part in parts), tuple(commands), tuple(changes))


def _routes(state: PostfixState) -> list[Step]:
    path = state.host.file(ROUTES)
    wanted = state.to_route()
    if not wanted:
        return []
    missing = [domain for domain in wanted if domain not in state.routes()]
    if not missing:
        return [Step(path, f"{path} is as it should be")]
    lines = [f"echo {shlex.quote(f'{domain} {state.transport}:')} >> {shlex.quote(path)}" for domain in missing]
    return [Step(path, f"{path} lacks {', '.join(missing)}", tuple(lines), (Change("file", path),))]


def accepts_any(state: PostfixState) -> bool:
    """Return whether the operator configured that every recipient of the handler's domains exists (static:)."""
    maps = words(state.explicit.get("virtual_mailbox_maps", ""))
    return not state.beside and any(table.startswith("static:") for table in maps)
