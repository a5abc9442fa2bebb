"""The server of `--embedded`: PostgreSQL from a Python package, with its own account and folder."""

import os
import shlex

from pipehandler.settings.extras import install_command, is_installed

from ..host import Host
from ..record import Record
from ..server import EMBEDDED_ACCOUNT as ACCOUNT
from ..server import embedded_programs
from ..step import Change, Step, here_document
from .account import create_account, exists

UNIT = "pipehandler-postgresql.service"

PURPOSE = (
    "--embedded is for a trial, or for a small host: updates come with pip instead of Debian's security updates, and nothing makes"
    " backups or moves the data to a new major version"
)
"""The intended use of the server of `--embedded`."""

_UNIT = """\
[Unit]
Description=PostgreSQL of pipehandler

[Service]
User={account}
ExecStart={programs}/postgres -D {folder}/data
ExecReload=/bin/kill -HUP $MAINPID
KillSignal=SIGINT
KillMode=mixed
TimeoutSec=infinity
Restart=on-failure
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={folder}
ProtectHome=yes
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
"""


def embedded(host: Host, _: Record) -> Step:
    """Return the step that installs, initialises and starts the server, if it was requested. `--remove` keeps it."""
    if not host.embedded:
        return Step("embedded server", "")
    if host.server.answers():
        return Step("embedded server", f"it runs in {host.embedded}")
    folder, programs = host.embedded, embedded_programs(host.embedded)
    commands = []
    if not is_installed("embedded"):
        commands.append(install_command("embedded"))
    if not exists(ACCOUNT):
        commands.append(create_account(ACCOUNT))
    if not os.path.exists(f"{folder}/data/PG_VERSION"):
        own = shlex.join(["install", "-d", "-o", ACCOUNT, "-g", ACCOUNT])
        # Peer authentication: each account of this host is the role of that name. Nothing listens on the network.
        initdb = [f"{programs}/initdb", "-D", f"{folder}/data", "-A", "peer", "-E", "UTF8", "--locale=C.UTF-8"]
        initdb += ["--set", "listen_addresses=", "--set", f"unix_socket_directories={folder}/socket"]
        commands += [
            f"{own} -m 755 {shlex.quote(folder)} {shlex.quote(f'{folder}/socket')}",
            f"{own} -m 700 {shlex.quote(f'{folder}/data')}",
            f"{_as_account(*initdb)} > /dev/null",
        ]
    changes = []
    if host.systemd:
        unit = os.path.join(host.folder, "systemd/system", UNIT)
        text = _UNIT.format(account=ACCOUNT, programs=programs, folder=folder)
        commands += [
            here_document(unit, text),
            "systemctl daemon-reload",
            f"systemctl enable --now {UNIT}",
            f"timeout 60 sh -c {shlex.quote(f'until {_ready(programs, folder)}; do sleep 1; done')}",
        ]
        changes.append(Change("kept", unit))
    else:
        log = f"{folder}/data/postgresql.log"
        commands.append(_as_account(f"{programs}/pg_ctl", "-D", f"{folder}/data", "-l", log, "-w", "-s", "start"))
    changes += [Change("kept", folder), Change("kept", ACCOUNT)]
    return Step("embedded server", f"there is none in {folder}; {PURPOSE}", tuple(commands), tuple(changes))


def _as_account(*words: str) -> str:
    return shlex.join(["runuser", "-u", ACCOUNT, "--", *words])


def _ready(programs: str, folder: str) -> str:
    return shlex.join([f"{programs}/pg_isready", "-q", "-h", f"{folder}/socket"])
