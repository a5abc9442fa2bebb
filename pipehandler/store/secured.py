"""Why a connection is not secured as its conninfo demands: TLS that fails, and passfiles that libpq does not use.

libpq reports both as text. Here they are found by trying, without any secret: a server that answers with less than was
demanded has a problem with what is missing.
"""

import os
import stat
from typing import Any, NamedTuple

from psycopg.conninfo import make_conninfo

from .conninfo import is_local, parameters, without_secrets
from .refusal import answers

_VERIFIED = ("verify-ca", "verify-full")
_NO_FILE = "/nonexistent"


class TlsProblem(NamedTuple):
    """what: the problem. advice: what to do about it."""

    what: str
    advice: str


class PassfileProblem(NamedTuple):
    """what: the problem. command: a command that fixes it, with a place for the name of the account."""

    what: str
    command: str

    def fix(self, account: str) -> str:
        """The command, for an account."""
        return self.command.format(account=account)


def tls_problem(conninfo: str) -> TlsProblem | None:
    """The reason in TLS for which no server answers `conninfo`; None if there is none. Raises StoreError."""
    settings = parameters(conninfo)
    mode = str(settings.get("sslmode") or os.environ.get("PGSSLMODE", "prefer"))
    if mode not in ("require", *_VERIFIED) or is_local(conninfo):
        return None
    bare = without_secrets(conninfo)

    def answered(**changed: str) -> bool:
        return answers(make_conninfo(bare, **changed))

    # With a root certificate that does not exist, `require` verifies nothing.
    if not answered(sslmode="require", sslrootcert=_NO_FILE):
        if not answered(sslmode="disable"):
            return None
        return TlsProblem("the server has no TLS", "set ssl = on, ssl_cert_file and ssl_key_file on the server")
    if mode == "verify-full" and answered(sslmode="verify-ca"):
        return TlsProblem(
            f"the certificate of the server is not for the name {settings.get('host')}",
            "in host=, write the name that is in the certificate, and with hostaddr= the address; or get another certificate",
        )
    return _untrusted(settings)


def _untrusted(settings: dict[str, Any]) -> TlsProblem:
    default = os.path.expanduser("~/.postgresql/root.crt")
    file = str(settings.get("sslrootcert") or os.environ.get("PGSSLROOTCERT") or default)
    if file != "system" and not os.access(file, os.R_OK):
        problem = "cannot be read" if os.path.exists(file) else "does not exist"
        return TlsProblem(
            f"the root certificate {file} {problem}",
            "name the certificate of the authority that signed the server's with sslrootcert=, in a file that the account"
            " can read",
        )
    return TlsProblem(
        f"the certificate of the server is not signed by {file}",
        "name the certificate of the authority that signed it with sslrootcert=, or get another certificate",
    )


def passfile_problem(conninfo: str) -> PassfileProblem | None:
    """The reason for which libpq takes no password from the passfile; None if none is known. Raises StoreError."""
    settings = parameters(conninfo)
    name = settings.get("passfile") or os.environ.get("PGPASSFILE")
    if not name:
        return None
    quoted = "'" + str(name).replace("'", "'\\''").replace("{", "{{").replace("}", "}}") + "'"
    only_ours = f"chown {{account}} {quoted} && chmod 600 {quoted}"
    try:
        mode = os.stat(name).st_mode
    except OSError as error:
        return PassfileProblem(
            f"the passfile {name}: {error.strerror}",
            f"# write the line host:port:database:user:password into it: install -m 600 -o {{account}} /dev/null {quoted}",
        )
    if not stat.S_ISREG(mode):
        return PassfileProblem(f"the passfile {name} is not a regular file", f"# name another file than {quoted}")
    if not os.access(name, os.R_OK):
        return PassfileProblem(f"this account may not read the passfile {name}", only_ours)
    if mode & (stat.S_IRWXG | stat.S_IRWXO):  # libpq ignores such a file (PostgreSQL documentation, 34.16)
        return PassfileProblem(
            f"the passfile {name} is ignored, because its mode is {stat.S_IMODE(mode):04o}, not 0600", only_ours
        )
    line = ":".join(str(settings.get(key) or "*") for key in ("host", "port", "dbname", "user"))
    return PassfileProblem(
        f"the passfile {name} has no line for this connection", f"# add to {quoted} a line {line}:PASSWORD"
    )
