"""The lines for Postfix, systemd and Prometheus, made from the files in postfix/ with the paths of this installation."""

import os
import re
import sys
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..settings.data_files import data_files

FILES = (
    "master.cf",
    "main.cf",
    "pipehandler_status_filter",
    "pgsql-recipients.cf",
    "pipehandler.sysusers",
    "pipehandler.tmpfiles",
    "pipehandler.socket",
    "pipehandler.service",
    "pipehandler-metrics.service",
    "pipehandler-expire.service",
    "pipehandler-expire.timer",
    "pipehandler.rules.yml",
)
"""The examples: those for Postfix are in postfix/ with the ending .example, the others in pipehandler/examples/."""

ENTRYPOINT = str(Path(__file__).parents[1] / "__main__.py")
"""What master.cf runs: the file of this installation."""

PROGRAM = os.path.join(os.path.dirname(sys.executable), "pipehandler")
"""The console script of this installation."""


DATABASE = "postgresql:///mail?host=/run/postgresql"
"""The database of the examples."""


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
) -> str:
    """The example file `name`, filled in.

    user: whom pipe(8) runs the handler as. config: the path of pipehandler.toml. socket: of `pipehandler serve`. config_directory: Postfix's. domain: the domain
    whose mail is stored. maxproc: how many messages may be delivered at once; keep it below PostgreSQL's max_connections.
    database: its URI, for the table of recipients; delimiter: recipients.delimiter.
    """
    text = _example(name).read_text("utf-8")
    filled = {
        "/opt/pipehandler/bin/python": sys.executable,
        "/opt/pipehandler/lib/python3.11/site-packages/pipehandler/__main__.py": ENTRYPOINT,
        "/opt/pipehandler/bin/pipehandler": PROGRAM,
        "/etc/pipehandler/pipehandler.toml": config,
        "/run/pipehandler/socket": socket,
        "/etc/postfix": config_directory,
        "user=pipehandler": f"user={user}",
        "User=pipehandler": f"User={user}",
        "SocketUser=pipehandler": f"SocketUser={user}",
        "u pipehandler ": f"u {user} ",
        "0700 pipehandler pipehandler": f"0700 {user} {user}",
        "example.com": domain,
        "20      pipe": f"{maxproc:<8}pipe",
        DATABASE: database,
        "dbname = mail": f"dbname = {unquote(urlsplit(database).path[1:])}",
        "'%s', '+'": f"'%s', {literal(delimiter)}",
    }
    # One pass, so that nothing that was filled in is replaced again.
    pattern = "|".join(re.escape(key) for key in sorted(filled, key=len, reverse=True))
    return re.sub(pattern, lambda found: filled[found[0]], text)


def _example(name: str) -> Traversable:
    """The file that `name` is filled in from."""
    examples = files("pipehandler") / "examples"
    for folder in ("systemd", "prometheus"):
        if (found := examples / folder / name).is_file():
            return found
    return data_files("postfix") / f"{name}.example"


def literal(text: str) -> str:
    """Text as SQL in a query of pgsql_table(5), where % begins an expansion."""
    return "'" + text.replace("'", "''").replace("%", "%%") + "'"
