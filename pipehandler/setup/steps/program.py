"""The installed program: the accounts of the handler and of the database must be able to run it."""

import os
import shlex
import sys

from pipehandler.postfix.templates import PROGRAM, PYTHON

from ..host import Host
from ..record import Record
from ..step import SetupError, Step, output

_LOADED = "import pipehandler.cli.check, pipehandler.delivery.deliver"  # these import click, psycopg and the parser


def program(_: Host, __: Record) -> Step:
    """Return the step that lets other accounts read the installation, after a umask of 077. Raises SetupError."""
    words = [PYTHON, "-I", "-c", _LOADED]
    if os.geteuid() != 0:
        return Step("program", f"{PROGRAM}; only root can try whether other accounts may run it")
    if output(["runuser", "-u", "nobody", "--", *words]) is not None:
        return Step("program", f"{PROGRAM} can be run by every account")
    closed = _closed(os.path.realpath(PYTHON)) or _closed(sys.prefix)
    if closed:
        raise SetupError(
            f"{PYTHON} cannot be run by other accounts, because {closed} is closed to them; make the virtual environment"
            " with a Python and a folder that are open, such as /usr/bin/python3 -m venv /opt/pipehandler"
        )
    return Step("program", "other accounts may not read it", (f"chmod -R o+rX {shlex.quote(sys.prefix)}",))


def _closed(path: str) -> str:
    """Return the first folder above `path` that other accounts may not enter; "" if there is none."""
    folder = os.path.dirname(path)
    above = [folder]
    while folder != "/":
        folder = os.path.dirname(folder)
        above.append(folder)
    inside = [name for name in reversed(above) if not f"{name}/".startswith(f"{sys.prefix}/")]
    return next((name for name in inside if not os.stat(name).st_mode & 0o001), "")
