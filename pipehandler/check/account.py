"""Run the handler's checks as Postfix's pipe(8) would run the handler: with the account, the interpreter and the entrypoint that
master.cf names, in an equally empty environment.

Only this shows a virtual environment below a folder that the account may not enter, a configuration that it may not read, and
the role that PostgreSQL gives it (peer authentication).
"""

import grp
import json
import os
import pwd
import shlex
import subprocess
from typing import Any

from pipehandler.postfix.postconf import Postfix, Service

from .access import Identity, closed, home_of, opened
from .argv import configuration, interpreter, main_file
from .finding import Finding

_SECONDS = 120


def check_account(postfix: Postfix, service: Service, maxproc: int) -> list[Finding] | None:
    """Return what the account of the transport `service` finds, or None if it cannot be run, which check_transport reports.

    maxproc: as for check_handler. Needs root.
    """
    identity = identity_of(service)
    # The same interpreter and file as in argv, but with site-packages (no -S), because the command needs click.
    programs = list(filter(None, [main_file(service)]))
    python = interpreter(service)
    if identity is None or not all(
        os.access(path, os.X_OK if path == python else os.R_OK) for path in (python, *programs)
    ):
        return None
    command = [python, "-I", *programs] if programs else [python]
    command += ["--config", configuration(service), "check", "--part", "handler", "--json", "--maxproc", str(maxproc)]
    try:
        process = run_as(identity, command, postfix)
        status, output, errors = process.returncode, process.stdout, process.stderr
    except subprocess.TimeoutExpired:
        return [
            _broken(service, f"no result within {_SECONDS} s", "# find out what it waits for: " + shlex.join(command))
        ]
    except OSError as error:  # the account cannot start the interpreter
        status, output, errors = 126, "", str(error)
    if status in (0, 1):
        try:
            return [Finding(**finding) for finding in json.loads(output)]
        except (ValueError, TypeError):
            pass  # a traceback has status 1 as well
    last = errors.strip().rpartition("\n")[2]
    return [_broken(service, last or f"status {status}", _fix(service, programs, errors, identity))]


def identity_of(service: Service) -> dict[str, Any] | None:
    """Return subprocess arguments that switch to the account as Postfix's set_ugid() does: no other groups (measured)."""
    user, _, group = service.attributes.get("user", "").partition(":")
    try:
        account = pwd.getpwnam(user)
        gid = grp.getgrnam(group).gr_gid if group else account.pw_gid
    except KeyError:
        return None
    if account.pw_uid == 0:
        return None
    return {"user": account.pw_uid, "group": gid, "extra_groups": [gid]}


def run_as(identity: dict[str, Any], command: list[str], postfix: Postfix) -> subprocess.CompletedProcess[str]:
    """Run `command` in the environment of pipe(8): export_environment and a PATH (measured)."""
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


def _broken(service: Service, reason: str, fix: str) -> Finding:
    return Finding(
        "account",
        f"{interpreter(service)}, run by {service.attributes['user']}, cannot start the program: {reason}",
        "Every delivery would fail the same way: mail would be deferred, and eventually returned to its sender.",
        fix,
    )


def _fix(service: Service, programs: list[str], errors: str, identity: dict[str, Any]) -> str:
    """Return one command that grants the account access to all that it cannot open, or the advice to install again."""
    # The folder of the virtual environment, whose files may have been created with a umask of 077.
    python = interpreter(service)
    folder = os.path.realpath(os.path.dirname(os.path.dirname(python)))
    environment = folder if os.path.exists(os.path.join(folder, "pyvenv.cfg")) else ""
    names = closed((python, *programs), Identity(identity["user"], identity["group"]))
    if home := home_of(names):
        return (
            f"# create the virtual environment again with /usr/bin/python3: {os.path.realpath(python)} is below {home},"
            " which other accounts do not belong in; docs/upgrade.md"
        )
    if names:
        return opened(names, environment)
    if environment and ("Permission denied" in errors or "No module named" in errors):
        return f"chmod -R o+rX {shlex.quote(environment)}"
    return "# install pipehandler again, as the docs describe"
