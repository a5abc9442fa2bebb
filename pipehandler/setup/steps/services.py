"""The services that must run: Postfix, and if systemd runs the resident workers and the timer that removes expired mail."""

import os

from pipehandler.postfix.postconf import DEFAULT_DIRECTORY

from ..files import write
from ..host import Host
from ..postfix_state import PostfixState
from ..record import Record
from ..step import Change, Step, output

_UNITS = ("pipehandler.socket", "pipehandler.service", "pipehandler-expire.timer")
_FILES = (*_UNITS, "pipehandler-expire.service")  # the timer starts the last one
_SCRIPT = "/etc/init.d/postfix"


def units(host: Host, record: Record) -> Step:
    """Return the step that installs and starts the units."""
    if not host.systemd:
        return Step(
            "units",
            "systemd does not run here: each message is delivered by a process of its own, and nothing runs `expire`"
            " (docs/retention.md)",
        )
    folder = os.path.join(host.folder, "systemd/system")
    parts = [
        write(record, os.path.join(folder, unit), host.postfix_text(unit), host.postfix_files(unit)) for unit in _FILES
    ]
    commands = [command for part in parts for command in part.commands]
    if commands:
        commands.append("systemctl daemon-reload")
    if commands or not all(_is_active(unit) for unit in _UNITS):
        commands.append(f"systemctl enable --now {' '.join(_UNITS)}")
    if not commands:
        return Step("units", f"{', '.join(_UNITS)} are active")
    changes = [change for part in parts for change in part.changes] + [Change("units", " ".join(_UNITS))]
    return Step("units", "the resident workers or the timer do not run", tuple(commands), tuple(changes))


def postfix(host: Host, _: Record) -> Step:
    """Return the step that starts Postfix. It keeps running at `--remove`."""
    if PostfixState.read(host).is_running():
        return Step("postfix", "it runs")
    command = host.postfix_program("postfix", "start")
    if (
        host.config_directory == DEFAULT_DIRECTORY
    ):  # Debian's service also copies files to the chroot that smtpd(8) needs
        command = "systemctl enable --now postfix" if host.systemd else command
        command = "service postfix start" if not host.systemd and os.path.exists(_SCRIPT) else command
    return Step("postfix", "it does not run", (command,))


def _is_active(unit: str) -> bool:
    return output(["systemctl", "is-active", unit]) is not None
