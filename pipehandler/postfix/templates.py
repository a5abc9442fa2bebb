"""The example files for Postfix, systemd and Prometheus, filled in for an installation."""

import os
import string
import sys
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

FILES = {
    "master.cf": "postfix",
    "main.cf": "postfix",
    "pipehandler_status_filter": "postfix",
    "pgsql-recipients.cf": "postfix",
    "pipehandler.sysusers": "systemd",
    "pipehandler.tmpfiles": "systemd",
    "pipehandler.socket": "systemd",
    "pipehandler.service": "systemd",
    "pipehandler-metrics.service": "systemd",
    "pipehandler-expire.service": "systemd",
    "pipehandler-expire.timer": "systemd",
    "pipehandler.rules.yml": "prometheus",
}
"""Each example file, and its folder below pipehandler/examples/."""

ENTRYPOINT = str(Path(__file__).parents[1] / "__main__.py")
"""The file of this installation that master.cf runs."""

PROGRAM = os.path.join(os.path.dirname(sys.executable), "pipehandler")
"""The console script of this installation."""

DATABASE = "postgresql:///mail?host=/run/postgresql"
"""The database of the examples."""


class Installation(NamedTuple):
    """The files that the examples run; by default, those of this installation."""

    python: str = sys.executable
    entrypoint: str = ENTRYPOINT
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
    installation: Installation = THIS_INSTALLATION,
) -> str:
    """Return the example file `name`, filled in.

    user: the account that pipe(8) runs the handler as. config: the path of pipehandler.toml. socket: that of `pipehandler
    serve`. config_directory: Postfix's. domain: the domain whose mail is stored. maxproc: the number of messages that may be
    delivered at the same time; keep it below PostgreSQL's max_connections. database: its URI, for the table of recipients.
    delimiter: recipients.delimiter.
    """
    text = (files("pipehandler") / "examples" / FILES[name] / name).read_text("utf-8")
    return _Template(text).substitute(
        installation._asdict(),
        user=user,
        config=config,
        socket=socket,
        config_directory=config_directory,
        domain=domain,
        maxproc=maxproc,
        database=database,
        database_name=unquote(urlsplit(database).path[1:]),
        delimiter=literal(delimiter),
    )


def literal(text: str) -> str:
    """Quote text for SQL in a query of pgsql_table(5), where % begins an expansion."""
    return "'" + text.replace("'", "''").replace("%", "%%") + "'"
