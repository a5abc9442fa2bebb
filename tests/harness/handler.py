"""The entrypoint started as pipe(8) starts it: another account, a scrubbed environment, a pipe as stdin, and one pipe
for both outputs."""

import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import IO, NamedTuple

from pipehandler.postfix import client
from pipehandler.postfix.templates import CODE, PACKAGES

from . import account
from .missing import missing

ENVIRONMENT = {"LANG": "C", "MAIL_CONFIG": "/etc/postfix", "TZ": "UTC"}
"""What Postfix leaves of the environment (import_environment is not for pipe(8); see its export_environment)."""

COVERAGE = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
"""Set by script/coverage."""

ENVIRONMENT |= COVERAGE

_COVERED = Path(__file__).with_name("covered.py").read_text()


class Ended(NamedTuple):
    """How the entrypoint ended: its status (negative: killed by that signal) and all it wrote."""

    status: int
    output: str


def entrypoint() -> list[str]:
    """The command of postfix/master.cf.example, with this interpreter and the installed package."""
    return [sys.executable, "-I", "-S", "-X", "utf8", "-c", _COVERED if COVERAGE else CODE, PACKAGES, "deliver"]


def old_entrypoint() -> list[str]:
    """The command as version 0.1.0 printed it."""
    return [sys.executable, "-I", "-S", f"{PACKAGES}/pipehandler/__main__.py", "deliver"]


class Handler:
    """The entrypoint with its own configuration file in `folder`; `log` is its log file, `before` what starts the client."""

    def __init__(self, folder: Path, conninfo: str, **sections: dict[str, object]) -> None:
        self.folder = folder
        self.config = folder / "pipehandler.toml"
        self.log = folder / "log"
        self.state = folder / "state"
        self.socket = folder / "socket"
        self.before: list[str] = []
        self.state.mkdir(parents=True)
        account.give(folder)
        account.give(self.state)
        self.configure(conninfo, **sections)

    @property
    def conninfo(self) -> str:
        """The conninfo in the configuration file."""
        return str(tomllib.loads(self.config.read_text())["database"]["conninfo"])

    def end_hold(self) -> None:
        """Wait for as long as the circuit breaker refuses every delivery."""
        past = time.time() - 60
        os.utime(self.state / "outage", (past, past))

    def configure(self, conninfo: str, **sections: dict[str, object]) -> None:
        """Write the configuration: the conninfo, a log file, and further settings by section."""
        values: dict[str, dict[str, object]] = {
            "database": {"conninfo": conninfo},
            "state": {"directory": str(self.state)},
            "log": {"syslog": False, "file": str(self.log)},
            "serve": {"socket": str(self.socket)},
        }
        for section, keys in sections.items():
            values.setdefault(section, {}).update(keys)
        lines = []
        for section, keys in values.items():
            lines += [f"[{section}]", *(f"{key} = {_toml(value)}" for key, value in keys.items())]
        self.config.write_text("\n".join(lines) + "\n")
        self.config.chmod(0o644)

    def with_client(self, path: Path | None = None) -> "Handler":
        """Let the hand-over client of this environment precede the interpreter, or install it at `path`; returns itself."""
        if not client.shipped():
            missing("the hand-over client, for which this environment needed a C compiler,")
        if path:
            client.install(str(path))
        self.before = client.start(str(path or client.shipped()))
        return self

    def entrypoint(self) -> list[str]:
        """The words of the command up to `deliver`."""
        return [*self.before, *entrypoint()]

    def command(self, *recipients: str, sender: str = "sender@example.org", **options: object) -> list[str]:
        """The whole command line; an option `queue_id` becomes --queue-id=."""
        given = {"config": self.config, "socket": self.socket, "sender": sender, **options}
        return [
            *self.entrypoint(),
            *(f"--{name.replace('_', '-')}={value}" for name, value in given.items()),
            "--",
            *(recipients or ("user@example.com",)),
        ]

    def start(
        self, command: list[str], stdin: int | IO[bytes] = subprocess.PIPE, output: int = subprocess.PIPE
    ) -> subprocess.Popen[bytes]:
        """Start `command`; both outputs are one pipe, as pipe(8) has it."""
        return subprocess.Popen(
            account.command(command),
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=ENVIRONMENT,
            cwd="/",
        )

    def run(self, command: list[str], message: bytes) -> Ended:
        """Run `command` with `message` on its stdin."""
        running = self.start(command)
        output, _ = running.communicate(message, timeout=200)
        return Ended(running.returncode, output.decode())

    def deliver(self, message: bytes, *recipients: str, **options: object) -> Ended:
        """Deliver one message."""
        return self.run(self.command(*recipients, **options), message)  # type: ignore[arg-type]

    def log_lines(self) -> list[str]:
        """The log so far, without the time, the host and the process before each line."""
        lines = self.log.read_text("ascii").splitlines() if self.log.exists() else []
        return [line.partition("]: ")[2] for line in lines]


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, int):
        return str(value)
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
