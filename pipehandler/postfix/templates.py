"""The example files for Postfix, systemd, Prometheus and Grafana, filled in for an installation."""

import os
import string
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from ..settings.config import Web

FILES = {
    "master.cf": "postfix",
    "main.cf": "postfix",
    "receive-only.main.cf": "postfix",
    "receive-only.master.cf": "postfix",
    "lmtp.master.cf": "postfix",
    "lmtp.main.cf": "postfix",
    "pipehandler_status_filter": "postfix",
    "pgsql-recipients.cf": "postfix",
    "pipehandler.sysusers": "systemd",
    "pipehandler.tmpfiles": "systemd",
    "pipehandler.socket": "systemd",
    "pipehandler-lmtp.socket": "systemd",
    "pipehandler.service": "systemd",
    "pipehandler-watch.service": "systemd",
    "pipehandler-metrics.service": "systemd",
    "pipehandler-expire.service": "systemd",
    "pipehandler-expire.timer": "systemd",
    "pipehandler-web.service": "systemd",
    "pipehandler.nginx": "nginx",
    "pipehandler.logrotate": "logrotate",
    "pipehandler.rules.yml": "prometheus",
    "pipehandler.dashboard.json": "grafana",
}
"""Each example file, and its folder below pipehandler/examples/."""

CODE = (
    'import posix,sys;exec("try:\\n sys.path.insert(0,sys.argv.pop(1))\\n from pipehandler.fence import main\\n main()\\n'
    "finally:\\n try:posix.write(1,b'4.3.0 internal fault\\\\n')\\n finally:posix._exit(75)\")"
)
"""What master.cf gives to the option -c of the interpreter: run the package in the folder that follows, and end with 75 whatever
it does. Python leaves with 0 when a file has nothing to do, so status 0 must never be what is left when our own files are
empty or truncated: it comes from the fence alone, after the commit. Only names that version 0.1.0 has may be used here."""


CLIENT_LINES = """{}
# That was the hand-over client, which gives the message to a resident worker; without one it becomes what follows. It is started by
# the dynamic loader, because execvp(3) runs an empty file with sh, which ends with 0.
  """
"""What stands before the interpreter in master.cf, where the client is used."""


def _environment() -> str:
    """The folder of this virtual environment, by the name under which it was started: a link stays valid after an upgrade."""
    program = os.path.abspath(sys.argv[0])
    while os.path.islink(program):
        program = os.path.join(os.path.dirname(program), os.readlink(program))
    started = os.path.dirname(os.path.dirname(program))
    same = os.path.isdir(started) and os.path.samefile(started, sys.prefix)
    return os.path.normpath(started) if same else sys.prefix


def _named(path: str) -> str:
    """Return `path` with the name of the environment that a link gives it."""
    inside = os.path.relpath(path, sys.prefix)
    return path if inside.startswith("..") else os.path.join(_environment(), inside)


PACKAGES = _named(str(Path(__file__).parents[2]))
"""The folder with the package of this installation, site-packages."""

PYTHON = _named(sys.executable)
"""The interpreter of this installation."""

PROGRAM = os.path.join(os.path.dirname(PYTHON), "pipehandler")
"""The console script of this installation."""

LOG_FILE = "/var/log/pipehandler.log"
"""The log of the examples, if the configuration names none."""

LMTP_SOCKET = "/run/pipehandler/lmtp"
"""The LMTP socket of the examples, if the configuration names none."""

DATABASE = "postgresql:///mail?host=/run/postgresql"
"""The database of the examples."""


_WEB = Web()


class Installation(NamedTuple):
    """The files that the examples run; by default, those of this installation."""

    python: str = PYTHON
    packages: str = PACKAGES
    program: str = PROGRAM


THIS_INSTALLATION = Installation()


class _Template(string.Template):
    """Text with places @{name}; $ and any other @ are plain, because these files are full of ${macros} and addresses."""

    delimiter = "@"
    pattern = r"""
        @(?:
            \{(?P<braced>[a-z_]+)\} |
            (?P<named>(?!)) | (?P<escaped>(?!)) | (?P<invalid>(?!))
        )
    """  # type: ignore[assignment] # the base class compiles it


def lines(
    name: str,
    *,
    user: str,
    config: str,
    socket: str,
    config_directory: str,
    domain: str,
    maxproc: int,
    database: str = DATABASE,
    delimiter: str = "+",
    log_file: str = "",
    client: Sequence[str] = (),
    lmtp: str = LMTP_SOCKET,
    web: Web = _WEB,
    installation: Installation = THIS_INSTALLATION,
) -> str:
    """Return the example file `name`, filled in.

    user: the account that pipe(8) runs the handler as. config: the path of pipehandler.toml. socket: that of `pipehandler
    serve`. config_directory: Postfix's. domain: the domain whose mail is stored. maxproc: the number of messages that may be
    delivered at the same time; keep it below PostgreSQL's max_connections. database: its URI, for the table of recipients.
    delimiter: recipients.delimiter. log_file: log.file; "": the one of the docs. lmtp: lmtp.socket.
    client: what starts the hand-over client (client.start); (): Python is started. web: where the inbox page listens, and its name.
    """
    text = (files("pipehandler") / "examples" / FILES[name] / name).read_text("utf-8")
    return _Template(text).substitute(
        installation._asdict(),
        code=CODE,
        client=CLIENT_LINES.format(" ".join(client)) if client else "",
        user=user,
        config=config,
        socket=socket,
        config_directory=config_directory,
        domain=domain,
        maxproc=maxproc,
        log_file=log_file or LOG_FILE,
        lmtp=lmtp or LMTP_SOCKET,
        web_listen=f"unix:{web.listen}" if web.listen.startswith("/") else web.listen,
        web_host=web.hosts[0] if web.hosts else f"inbox.{domain.partition(',')[0]}",
        database=database,
        database_name=unquote(urlsplit(database).path[1:]),
        delimiter=literal(delimiter),
    )


def literal(text: str) -> str:
    """Quote text for SQL in a query of pgsql_table(5), where % begins an expansion."""
    return "'" + text.replace("'", "''").replace("%", "%%") + "'"
