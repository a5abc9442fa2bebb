"""Undo each kind of change for `--remove`: restore the previous value, but keep whatever was changed since setup."""

import os
import shlex
from collections.abc import Callable

from pipehandler.postfix.postconf import words

from .files import digest, says_the_same
from .host import Host
from .postfix_state import PostfixState
from .step import Change, Step
from .steps import receive_only
from .steps.account import exists
from .steps.transport import BEGIN, END

_DEFAULTS = {"virtual_mailbox_domains": ["$virtual_mailbox_maps"]}
"""Postfix's defaults for lists that setup extends."""


def undo(host: Host, change: Change) -> Step:
    """Return the step that undoes a change, for the host as it is now. Raises SetupError."""
    return _UNDO[change.kind](host, change)


def _parameter(host: Host, change: Change) -> Step:
    current = PostfixState.read(host).explicit.get(change.name)
    if current is None:
        return Step(change.name, "not set")
    if current != change.after:
        return Step(change.name, f"changed since setup to {current}, and stays")
    return Step(change.name, f"set to {current} by setup", (_put_back(host, change.name, change.before),))


def _list(host: Host, change: Change) -> Step:
    current = words(PostfixState.read(host).explicit.get(change.name, ""))
    added = words(change.after or "")
    rest = [word for word in current if word not in added]
    if rest == current:
        return Step(change.name, "without what setup added")
    before = words(change.before or "")
    value = ", ".join(rest)
    if rest == before:
        value = change.before or ""
    if change.before is None and rest in ([], _DEFAULTS.get(change.name)):
        return Step(change.name, f"set to {', '.join(added)} by setup", (_put_back(host, change.name, None),))
    return Step(change.name, f"setup added {', '.join(added)}", (_put_back(host, change.name, value),))


def _put_back(host: Host, name: str, value: str | None) -> str:
    if value is None:
        return host.postfix_program("postconf", "-X", name)
    return host.postfix_program("postconf", "-e", f"{name} = {value}".rstrip())


def _block(host: Host, change: Change) -> Step:
    state = PostfixState.read(host)
    if not state.has_transport:
        return Step(change.name, "without our transport")
    remove = f"sed -i {shlex.quote(f'/^{BEGIN}$/,/^{END}$/d')} {shlex.quote(change.name)}"
    # The operator may have replaced the entry, on the advice of `check`, outside of setup's lines.
    entry = host.postfix_program("postconf", "-MX", change.after or "")
    return Step(change.name, "it has our transport", (remove, entry))


def _settings(host: Host, change: Change) -> Step:
    explicit = PostfixState.read(host).explicit
    ours = receive_only.parsed(change.after or "")
    unchanged = [name for name, value in ours.items() if explicit.get(name) == value]
    changed = [name for name in ours if name in explicit and name not in unchanged]
    found = f"changed since setup, and stay: {', '.join(changed)}" if changed else "set by setup"
    return Step(change.name, found, (host.postfix_program("postconf", "-X", *unchanged),) if unchanged else ())


def _postscreen(_: Host, change: Change) -> Step:
    with open(change.name, encoding="utf-8") as file:
        if receive_only.BEGIN not in file.read().split("\n"):
            return Step(change.name, "without our lines for postscreen")
    block = f"/^{receive_only.BEGIN}$/,/^{receive_only.END}$/d"
    command = shlex.join(["sed", "-i", "-e", block, "-e", f"s/^{receive_only.REPLACED}//", change.name])
    return Step(change.name, "postscreen was put before smtpd by setup", (command,))


def _copy(_: Host, change: Change) -> Step:
    copy = change.before or ""
    if not os.path.exists(copy):
        return Step(change.name, "there is no copy from before setup")
    same = digest(copy) == digest(change.name)
    if not same and os.path.exists(change.name) and says_the_same(copy, change.name):
        return Step(
            change.name, "its lines are no longer broken as they were", (shlex.join(["mv", copy, change.name]),)
        )
    found = "as it was before setup" if same else "changed since setup, and stays"
    return Step(change.name, found, (shlex.join(["rm", "-f", copy]),))


def _file(host: Host, change: Change) -> Step:
    current = digest(change.name)
    if current is None:
        return Step(change.name, "removed already")
    if change.after is not None and current != change.after:
        return Step(change.name, "changed since setup, and stays")
    commands = [shlex.join(["rm", "-f", change.name])]
    if host.systemd and "/systemd/system/" in change.name:
        commands.append("systemctl daemon-reload")
    return Step(change.name, "written by setup", tuple(commands))


def _folder(_: Host, change: Change) -> Step:
    if not os.path.isdir(change.name):
        return Step(change.name, "removed already")
    command = shlex.join(["rmdir", "--ignore-fail-on-non-empty", change.name])
    return Step(change.name, "made by setup", (command,))


def _state_directory(_: Host, change: Change) -> Step:
    if not os.path.isdir(change.name):
        return Step(change.name, "removed already")
    return Step(
        change.name, "the journal; it has no mail", (shlex.join(["rm", "-rf", "--one-file-system", change.name]),)
    )


def _account(_: Host, change: Change) -> Step:
    if not exists(change.name):
        return Step(f"account {change.name}", "removed already")
    return Step(f"account {change.name}", "created by setup", (shlex.join(["userdel", change.name]),))


def _role(host: Host, change: Change) -> Step:
    command = host.server.command(host.database, f'DROP ROLE IF EXISTS "{change.name}"')
    return Step(f"role {change.name}", "created by setup", (command,))


def _grant(host: Host, change: Change) -> Step:
    command = host.server.command(host.database, f'REVOKE {change.after} FROM "{change.name}"')
    return Step(f"role {change.name}", f"made a member of {change.after} by setup", (command,))


def _limit(host: Host, change: Change) -> Step:
    query = "SELECT rolconnlimit FROM pg_roles WHERE rolname = :'role'"
    current = host.server.query("postgres", query, role=change.name) or []
    if current != [change.after]:
        return Step(f"role {change.name}", "its connection limit was changed since setup, and stays")
    command = host.server.command(host.database, f'ALTER ROLE "{change.name}" CONNECTION LIMIT {change.before}')
    return Step(f"role {change.name}", f"given the connection limit {change.after} by setup", (command,))


def _units(_: Host, change: Change) -> Step:
    return Step("units", change.name, (f"systemctl disable --now {change.name}",))


def _kept(_: Host, change: Change) -> Step:
    return Step(change.name, "kept, because it has the mail")


_UNDO: dict[str, Callable[[Host, Change], Step]] = {
    "parameter": _parameter,
    "list": _list,
    "settings": _settings,
    "block": _block,
    "postscreen": _postscreen,
    "copy": _copy,
    "file": _file,
    "folder": _folder,
    "state directory": _state_directory,
    "account": _account,
    "role": _role,
    "grant": _grant,
    "limit": _limit,
    "units": _units,
    "kept": _kept,
}
"""Each kind of change, and how to undo it."""
