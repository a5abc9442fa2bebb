"""The handler's part of the check, as Postfix's pipe(8) would run it: by the account, the interpreter and the entrypoint that
master.cf names, in an environment as empty.

Only so are seen a virtual environment below a closed folder, a configuration that the account may not read, and whom PostgreSQL
takes it for (peer authentication).
"""

import grp
import json
import os
import pwd
import shlex
import subprocess
from typing import Any

from pipehandler.postfix.postconf import Postfix, Service

from .argv import configuration
from .finding import Finding
from .handler import first_closed

_SECONDS = 120


def check_account(postfix: Postfix, service: Service, maxproc: int) -> list[Finding] | None:
    """What the account of the transport `service` finds; None where that cannot be tried, which check_transport reports.

    maxproc: as for check_handler. Only root may do this.
    """
    identity = _identity(service)
    # The same interpreter and the same file as in argv, but with site-packages: click is there.
    programs = [word for word in service.argv if word.endswith("/__main__.py")]
    interpreter = service.argv[0]
    if identity is None or not all(
        os.access(each, os.X_OK if each == interpreter else os.R_OK) for each in (interpreter, *programs)
    ):
        return None
    command = [interpreter, "-I", *programs[:1]] if programs else [interpreter]
    command += ["--config", configuration(service), "check", "--part", "handler", "--json", "--maxproc", str(maxproc)]
    try:
        done = _run(command, postfix, identity)
        status, output, said = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired:
        return [
            _broken(
                service, f"it did not end within {_SECONDS} s", "# find out what it waits for: " + shlex.join(command)
            )
        ]
    except OSError as error:  # the interpreter cannot be started by the account
        status, output, said = 126, "", str(error)
    if status in (0, 1):
        try:
            return [Finding(**each) for each in json.loads(output)]
        except (ValueError, TypeError):
            pass  # a traceback is status 1, too
    last = said.strip().rpartition("\n")[2]
    return [_broken(service, last or f"status {status}", _mend(service, programs, said, postfix, identity))]


def _identity(service: Service) -> dict[str, Any] | None:
    """The arguments of subprocess that make it the account, as set_ugid() of Postfix does: no other groups (measured)."""
    user, _, group = service.attributes.get("user", "").partition(":")
    try:
        account = pwd.getpwnam(user)
        gid = grp.getgrnam(group).gr_gid if group else account.pw_gid
    except KeyError:
        return None
    if account.pw_uid == 0:
        return None
    return {"user": account.pw_uid, "group": gid, "extra_groups": [gid]}


def _run(command: list[str], postfix: Postfix, identity: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Run `command` in the environment of pipe(8): export_environment, and a PATH (measured)."""
    environment = {name: os.environ[name] for name in ("TZ", "LANG") if name in os.environ}
    return subprocess.run(  # noqa: S603 # what master.cf runs for every message
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        env={**environment, "MAIL_CONFIG": postfix.directory, "PATH": "/usr/bin:/bin"},
        cwd="/",
        umask=0o077,
        timeout=_SECONDS,
        **identity,
    )


def _broken(service: Service, said: str, mend: str) -> Finding:
    return Finding(
        "account",
        f"{service.argv[0]}, run by {service.attributes['user']}, cannot start the program: {said}",
        "So it will be for each message: every one would be deferred, and returned to its sender in the end.",
        mend,
    )


def _mend(service: Service, programs: list[str], said: str, postfix: Postfix, identity: dict[str, Any]) -> str:
    """The line that opens what is closed to the account; else that the installation has to be made again."""

    def may(name: str) -> bool:
        wanted = "-x" if os.path.isdir(name) or name == service.argv[0] else "-r"
        return _run(["/usr/bin/test", wanted, name], postfix, identity).returncode == 0

    for path in (service.argv[0], *programs):
        closed = first_closed(path, may)
        if closed and os.path.exists(closed):
            right = "o+x" if os.path.isdir(closed) else "o+rx" if path == service.argv[0] else "o+r"
            return f"chmod {right} {shlex.quote(closed)}"
    # The folder of the virtual environment, whose files may have been made with a umask of 077.
    folder = os.path.dirname(os.path.dirname(service.argv[0]))
    closed_inside = "Permission denied" in said or "No module named" in said
    if closed_inside and os.path.exists(os.path.join(folder, "pyvenv.cfg")):
        return f"chmod -R o+rX {shlex.quote(folder)}"
    return "# install pipehandler again, as the README says"
