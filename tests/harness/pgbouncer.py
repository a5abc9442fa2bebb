"""A private PgBouncer in front of a server."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import account
from .database import Database
from .missing import missing


@contextmanager
def pgbouncer(folder: Path, database: Database, user: str = "pipehandler", **settings: str) -> Iterator[str]:
    """PgBouncer for one database, with these settings of pgbouncer.ini; yields a conninfo through it.

    user: the account on the server, whatever the client says.
    """
    program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
    if not Path(program).exists():
        missing("PgBouncer")
    port, file = account.free_port(), folder / "pgbouncer.ini"
    server = database.server
    values = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "unix_socket_dir": "",
        "auth_type": "any",
        "logfile": str(folder / "pgbouncer.log"),
        **settings,
    }
    # With auth_type any, the server's user is that of the entry.
    target = f"host={server.folder} port={server.port} user={user}"
    lines = ["[databases]", f"{database.name} = {target}", "[pgbouncer]", *(f"{k} = {v}" for k, v in values.items())]
    file.write_text("\n".join(lines) + "\n")
    account.give(folder)
    running = subprocess.Popen(account.command([program, "-q", str(file)]), cwd="/")
    try:
        conninfo = f"host=127.0.0.1 port={port} dbname={database.name} user={user}"
        for _ in range(100):
            if subprocess.run(["pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]).returncode != 2:
                break
            time.sleep(0.05)
        yield conninfo
    finally:
        running.terminate()
        running.wait(10)
