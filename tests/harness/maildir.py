"""A Maildir, the programs that deliver into it, and `pipehandler watch`, run by the account that it belongs to."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from . import account
from .handler import ENVIRONMENT, Handler
from .service import wait_until

_NUMBERS = itertools.count()


def message(number: int = 1, recipient: str = "user@example.com", sender: str = "sender@example.org") -> bytes:
    """A message as virtual(8) writes it."""
    fields = f"Return-Path: <{sender}>\nX-Original-To: alias@example.com\nDelivered-To: {recipient}\n"
    return fields.encode() + content(number)


def content(number: int = 1) -> bytes:
    """The same message without the fields of its delivery."""
    return (
        f"Message-ID: <{number}@example.org>\nDate: Mon, 02 Mar 2026 07:30:00 +0900\nFrom: a@example.org\n"
        f"To: user@example.com\nSubject: number {number}\n\nHello.\n"
    ).encode()


class Mailbox:
    """A Maildir of the account, made if it is not there, and what the watcher has made of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        for name in ("", "tmp", "new", "cur"):
            (path / name).mkdir(exist_ok=True)
            account.give(path / name)

    def put(self, raw: bytes, name: str = "", rename: bool = False) -> str:
        """Deliver a message: link it into new/ as virtual(8) does, or rename it; returns its name."""
        name = name or f"{1_700_000_000 + next(_NUMBERS)}.V801.mx"
        written = self.path / "tmp" / name
        written.write_bytes(raw)
        account.give(written)
        if rename:
            written.rename(self.path / "new" / name)
        else:
            os.link(written, self.path / "new" / name)
            written.unlink()
        return name

    def names(self, folder: str) -> list[str]:
        """The names in one of its folders."""
        found = self.path / folder
        return sorted(os.listdir(found)) if found.exists() else []

    def wait(self, count: int) -> None:
        """Wait until so many messages were moved to cur/, or new/ is empty."""
        wait_until(lambda: len(self.names("cur")) >= count or self.is_empty(), "the moves to cur/")

    def is_empty(self) -> bool:
        """Whether new/ is."""
        return not self.names("new")


class Watching:
    """A running `pipehandler watch`."""

    def __init__(
        self, handler: Handler, arguments: Sequence[str], under: Sequence[str] = (), program: Path | None = None
    ) -> None:
        self.handler = handler
        program = program or Path(sys.executable).with_name("pipehandler")
        self._command = [*under, str(program), "--config", str(handler.config)]
        self._command += ["watch", *arguments]
        self.running = self.started()

    def started(self) -> "subprocess.Popen[bytes]":
        """Start it, and wait until it watches."""
        running = subprocess.Popen(
            account.command(self._command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            cwd="/",
        )
        assert running.stderr
        line = running.stderr.readline()
        while line and b"watching" not in line:  # strace says what it attaches to
            line = running.stderr.readline()
        if not line:
            running.stderr.close()
            raise RuntimeError(f"pipehandler watch left with {running.wait()}")
        return running

    def workers(self) -> list[int]:
        """The process ids of the workers."""
        pid = self.running.pid
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def restart(self) -> None:
        """Start it again, after it was killed."""
        self.wait()
        self.running = self.started()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it; returns its status."""
        self.running.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; returns its status."""
        status = self.running.wait(120)
        assert self.running.stderr
        self.running.stderr.close()
        return status

    def events(self) -> list[str]:
        """What it has logged about itself."""
        return [line for line in self.handler.log_lines() if line.startswith(("outcome=watch ", "outcome=serve "))]

    def outcomes(self) -> list[str]:
        """The outcomes of the messages."""
        lines = (line.partition(" ")[0] for line in self.handler.log_lines() if "queue_id=" in line)
        return [line.removeprefix("outcome=") for line in lines]

    def waits_for(self, text: str) -> None:
        """Wait until it has logged an event."""
        wait_until(lambda: any(text in line for line in self.events()), text)


@contextmanager
def watching(
    handler: Handler,
    *maildirs: Mailbox,
    remove: bool = False,
    under: Sequence[str] = (),
    program: Path | None = None,
    **sections: dict[str, object],
) -> Iterator[Watching]:
    """Run the watcher of these Maildirs. under: a command that starts it. program: another one. sections: of the configuration."""
    limits: dict[str, object] = {"deadline": 10, "parse_timeout": 4, **sections.pop("limits", {})}
    handler.configure(handler.conninfo, limits=limits, **sections)
    options = ["--remove"] if remove else []
    running = Watching(handler, [*options, *(str(each.path) for each in maildirs)], under, program)
    try:
        yield running
    finally:
        if running.running.poll() is None:
            running.stop()
