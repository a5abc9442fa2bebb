"""The Debian packages: Postfix with its PostgreSQL client, and a PostgreSQL server."""

import glob
import os
import shutil

from pipehandler.postfix.postconf import find_program

from ..host import Host
from ..record import Record
from ..step import SetupError, Step, output

_SENDMAIL = "/usr/sbin/sendmail"


def packages(host: Host, _: Record) -> Step:
    """Return the step that installs missing packages. Raises SetupError.

    `--remove` keeps them, because the server has the mail.
    """
    missing = []
    differences = []
    if find_program("postconf") is None:
        missing.append("postfix")
        if os.path.exists(_SENDMAIL):
            owner = (output(["dpkg", "-S", os.path.realpath(_SENDMAIL)]) or "another package:").partition(":")[0]
            differences += [f"-the mail server of this host: {owner}", "+the mail server of this host: postfix"]
    if "pgsql" not in (output([find_program("postconf") or "postconf", "-m"]) or "").split():
        missing.append("postfix-pgsql")
    if host.server.is_local and not host.embedded and not _has_server(host):
        missing.append("postgresql")
    if not missing:
        return Step("packages", "all are installed")
    names = " ".join(missing)
    if shutil.which("apt-get") is None:
        raise SetupError(
            f"{names}: not installed, and this is not Debian; install them as this system does, then run setup again"
        )
    return Step(
        "packages",
        f"not installed: {names}",
        ("apt-get -q update", f"DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends {names}"),
        differences=tuple(differences),
    )


def _has_server(host: Host) -> bool:
    return bool(glob.glob("/usr/lib/postgresql/*/bin/postgres")) or host.server.answers()
