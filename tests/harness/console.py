"""The operator's commands against one database, run as a person or a program runs them."""

import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from . import preloaded
from .database import Database
from .handler import ENVIRONMENT
from .preloaded import PROGRAM


class Done(NamedTuple):
    """How a command ended."""

    status: int
    output: bytes
    errors: str

    @property
    def text(self) -> str:
        """The output of a command that succeeded."""
        assert (self.status, self.errors) == (0, ""), self
        return self.output.decode()


class Console:
    """Commands with their own configuration file in `folder`, as a role of `database` (default: upkeep)."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self.database = database
        self.config = folder / "console.toml"
        self.configure()

    def configure(self, role: str = "upkeep", more: str = "") -> None:
        """Write the configuration."""
        conninfo = self.database.server.conninfo(self.database.name, user=role)
        self.config.write_text(
            f"database.admin_conninfo = '{conninfo}'\nlog.syslog = false\n"
            f"state.directory = '{self.folder / 'nowhere'}'\n{more}\n"
        )

    def command(self, *arguments: object) -> list[str]:
        """The whole command line."""
        return [PROGRAM, "--config", str(self.config), *map(str, arguments)]

    def run(self, *arguments: object, stdin: bytes = b"") -> Done:
        """Run a command."""
        done = preloaded.run(*self.command(*arguments)[1:], environment=ENVIRONMENT, stdin=stdin)
        return Done(done.returncode, done.stdout, done.stderr.decode())

    def run_under(self, prefix: Sequence[str], *arguments: object) -> Done:
        """Run a command through another one; `prefix`: that one with its arguments."""
        command = [*prefix, *self.command(*arguments)]
        done = subprocess.run(command, input=b"", capture_output=True, env=ENVIRONMENT, cwd="/", timeout=120)
        return Done(done.returncode, done.stdout, done.stderr.decode())

    def on_a_terminal(self, *arguments: object) -> bytes:
        """What a command that succeeds prints on a terminal (script(1))."""
        done = subprocess.run(
            ["script", "-qec", shlex.join(self.command(*arguments)), "/dev/null"],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=120,
        )
        assert done.returncode == 0, done
        return done.stdout

    def start(self, *arguments: object) -> subprocess.Popen[bytes]:
        """Start a command."""
        return subprocess.Popen(
            self.command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT, cwd="/"
        )


def everything(database: Database, *tables: str) -> dict[str, list[Any]]:
    """All rows of the tables (default: all that hold mail), in order, for comparison."""
    return {
        table: database.rows(f'SELECT t.* FROM pipehandler.{table} t ORDER BY t::text COLLATE "C"')
        for table in tables or ("message", "raw_message", "attachment", "delivery")
    }
