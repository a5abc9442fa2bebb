"""The PostgreSQL server as the steps use it: root acts as the superuser through its operating system account."""

import shlex
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pipehandler.settings.extras import EXTRAS
from pipehandler.store.conninfo import is_local, located, parameters

from .step import output

EMBEDDED_FOLDER = "/var/lib/pipehandler-postgresql"
"""Where the server of `--embedded` keeps its data and its socket."""

EMBEDDED_ACCOUNT = "pipehandler-postgresql"
"""The account of that server, and its superuser. Not the handler's account, which must not own the database."""


@dataclass(frozen=True, slots=True)
class Server:
    """A server. conninfo: its address. account: the operating system account and superuser role. psql: the program."""

    conninfo: str
    account: str = "postgres"
    psql: str = "psql"

    @property
    def is_local(self) -> bool:
        """Whether it runs on this host, so that root can act as its superuser."""
        return is_local(self.conninfo)

    @property
    def socket(self) -> tuple[str, str]:
        """The folder of its socket, and its port."""
        settings = parameters(self.conninfo)
        return str(settings.get("host") or "/run/postgresql"), str(settings.get("port") or 5432)

    def command(self, database: str, *statements: str) -> str:
        """Return the command that runs SQL as the superuser."""
        words = ["runuser", "-u", self.account, "--", self.psql, "-X", "-q", "-v", "ON_ERROR_STOP=1"]
        words += ["-d", located(self.conninfo, database, self.account)]
        return shlex.join([*words, *(word for statement in statements for word in ("-c", statement))])

    def query(self, database: str, statement: str, **variables: str) -> list[str] | None:
        """Run a query as the superuser; return its output lines, None if it fails. variables: for :'name' in it."""
        values = [word for name, value in variables.items() for word in ("-v", f"{name}={value}")]
        printed = output([*shlex.split(self.command(database)), "-At", *values], stdin=statement)
        return None if printed is None else printed.splitlines()

    def answers(self) -> bool:
        """Return whether the superuser can connect."""
        return self.query("postgres", "SELECT 1") == ["1"]


DEBIAN_SERVER = Server("host=/run/postgresql")
"""The server of Debian's packages."""


def embedded_server(folder: str = EMBEDDED_FOLDER) -> Server:
    """Return the server of `--embedded` in `folder`."""
    return Server(f"host={folder}/socket", EMBEDDED_ACCOUNT, f"{embedded_programs(folder)}/psql")


def embedded_programs(folder: str) -> str:
    """Return the folder of its programs: those of the major version that created the data, or of the newest."""
    (module,) = EXTRAS["embedded"].modules
    spec = find_spec(module)
    installed = list(spec.submodule_search_locations or []) if spec else []
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    package = Path(installed[0]) if installed else Path(sys.prefix, "lib", version, "site-packages", module)
    data = Path(folder, "data/PG_VERSION")
    major = data.read_text("ascii").strip() if data.exists() else "18"
    versioned = package / f"pginstall{major}"
    return str((versioned if versioned.is_dir() or not installed else package / "pginstall") / "bin")
