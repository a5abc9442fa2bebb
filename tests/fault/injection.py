"""Faults at system calls: strace(1) lists the calls that a delivery makes, and kills the entrypoint or makes a call
fail.

A call is identified by its name and its number: its ordinal among the calls of that name since the program was started,
which is how strace counts (`when=`). Two deliveries of similar messages make the same calls, with few exceptions. So
the calls of one delivery determine where to inject the faults in others, and each time it is checked whether the fault
occurred. strace runs as the handler's account, and is its parent, as pipe(8) would be. To a running process, a resident
worker or its supervisor, it is attached for one message, and counts from there.
"""

import itertools
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from harness import account
from harness.database import Database
from harness.handler import Ended, Handler
from harness.postgresql import FAST, PostgreSQL

_CALL = re.compile(r"(\w+)\((.*)")
_FILE = re.compile(r'[^"]*"(/[^"]*)"')
_DESCRIPTOR = re.compile(r"(\d+)[,)]")
_OPENED = re.compile(r"\) += (\d+)(?:<|$)")


class Maker(Enum):
    """The processes that make the calls of a delivery. An entrypoint waits while all workers are busy."""

    ENTRYPOINT = "entrypoint"
    WAITING = "waiting entrypoint"
    WORKER = "worker"
    SUPERVISOR = "supervisor"


class Call(NamedTuple):
    """One system call of a delivery: its name, its number from 1 among those of its name, strace's output for it, the
    file that it refers to, if any, and the process that makes it."""

    name: str
    number: int
    said: str
    file: str = ""
    maker: Maker = Maker.ENTRYPOINT

    @property
    def imports(self) -> bool:
        """Whether it refers to a file of the interpreter or its libraries."""
        return self.file.startswith((sys.prefix, sys.base_prefix, "/lib"))

    def __str__(self) -> str:
        return f"{self.name} {self.number} of the {self.maker.value} ({self.file or self.said[:60]})"


class Letter(NamedTuple):
    """The distinct message of one point, and its recipients."""

    name: str
    raw: bytes
    recipients: tuple[str, ...]

    @property
    def queue_id(self) -> str:
        """The queue id that Postfix would give it."""
        return f"4c{self.name}"

    def command(self, handler: Handler) -> list[str]:
        """The arguments with which pipe(8) would deliver it, the same each time."""
        size = len(self.raw) + self.raw.count(b"\n")
        return handler.command(*self.recipients, queue_id=self.queue_id, size=size)


_LETTER = """\
Received: from client.example.org (client.example.org [192.0.2.1])
\tby mx.example.net (Postfix) with ESMTP id 4c{name}
\tfor <user@example.com>; Mon, 7 Sep 2026 10:00:00 +0900 (JST)
From: =?iso-8859-2?Q?Bo=BEena?= <sender@example.org>
To: user@example.com
Date: Mon, 7 Sep 2026 10:00:00 +0900
Message-ID: <{name}@example.org>
Subject: =?utf-8?B?w4RyZ2VyIA==?= {name}
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="="

--=
Content-Type: text/plain; charset=windows-1252
Content-Transfer-Encoding: quoted-printable

caf=E9 {name}
--=
Content-Type: application/pdf; name="bill.pdf"
Content-Disposition: attachment
Content-Transfer-Encoding: base64

JVBERi0xLjQKJcOkw7zDtsOfCg==
{more}--=--
"""


def letter(name: str, *recipients: str, more: str = "") -> Letter:
    """A letter with an attachment and `more` parts. By default it has one recipient, used by no other letter."""
    return Letter(name, _LETTER.format(name=name, more=more).encode(), recipients or (f"{name}@example.com",))


@contextmanager
def fresh_database() -> Iterator[Database]:
    """A migrated database on a separate server."""
    with account.folder("pipehandler-pg-") as folder:
        server = PostgreSQL(folder / "16", 16, FAST).start()
        try:
            with Database.fresh(server) as database:
                yield database
        finally:
            server.stop()


def trace(handler: Handler, command: list[str], message: bytes) -> tuple[Ended, list[Call]]:
    """Run `command` and record its calls, without those of its children."""
    file = handler.folder / "trace"
    ended = handler.run(["strace", "-qq", "-o", str(file), *command], message)
    return ended, calls(file)


def kill(handler: Handler, command: list[str], message: bytes, call: Call) -> Ended:
    """Run `command`, killed before `call` is executed. Without such a call it is not killed, which the status shows."""
    # Not with --seccomp-bpf: there strace cannot send signals.
    chosen = ["-e", f"trace={call.name}", "-e", f"inject={call.name}:signal=SIGKILL:when={call.number}"]
    return handler.run(["strace", "-qq", "-o", "/dev/null", *chosen, *command], message)


def fail(
    handler: Handler, command: list[str], message: bytes, call: Call, fault: str, ever: bool = False
) -> tuple[Ended, str]:
    """Run `command` with `fault` injected in place of `call`: error=ENOSPC, retval=0, ...; with `ever` all later calls
    of that name as well. Returns strace's output for the calls of that name, with "(INJECTED)" where a fault was
    injected."""
    file = handler.folder / "trace"
    when = f"{call.number}+" if ever else call.number
    # With --seccomp-bpf, which needs -f, only the calls of that name are slow.
    chosen = ["--seccomp-bpf", "-f", "-e", f"trace={call.name}", "-e", f"inject={call.name}:{fault}:when={when}"]
    ended = handler.run(["strace", "-qq", "-o", str(file), *chosen, *command], message)
    return ended, file.read_text("ascii", "replace")


@contextmanager
def attached(pid: int, file: Path, call: Call | None = None, fault: str = "") -> Iterator[None]:
    """Attach strace(1) to an idle process, until it is idle again or has ended. strace writes to `file` all calls, or
    those of the name of `call`, with its fault: inject=... of strace, without the name."""
    rest(pid)
    file.unlink(missing_ok=True)
    # The call in which it waits is restarted when strace is attached, and so shows that it is.
    chosen = ["-e", f"trace={call.name},pselect6,epoll_wait", "-e", f"inject={call.name}:{fault}"] if call else []
    tracer = subprocess.Popen(["strace", "-qq", "-p", str(pid), "-o", str(file), *chosen])
    try:
        while not (file.exists() and file.stat().st_size) and tracer.poll() is None:
            time.sleep(0.002)
        yield
        rest(pid)
    finally:
        tracer.terminate()
        tracer.wait()


def rest(pid: int, seconds: float = 0.06) -> None:
    """Wait until a process has been idle for so long, or has ended."""
    seen, since = "", time.monotonic()
    while time.monotonic() - since < seconds:
        try:
            now = "".join(re.findall(r"(?m)^(?:State|.*ctxt_switches):.*", Path(f"/proc/{pid}/status").read_text()))
        except OSError:
            now = "gone"
        if now != seen:
            seen, since = now, time.monotonic()
        time.sleep(0.005)


def since(calls: list[Call], wanted: Callable[[Call], bool]) -> list[Call]:
    """The calls from the first one that is selected."""
    return list(itertools.dropwhile(lambda each: not wanted(each), calls))


def sample(calls: list[Call], count: int) -> list[Call]:
    """So many of the calls, half of them from those that are not part of an import."""
    chosen = []
    for some in ([each for each in calls if not each.imports], [each for each in calls if each.imports]):
        chosen += some[:: max(1, 2 * len(some) // count)]
    return chosen


def calls(file: Path, maker: Maker = Maker.ENTRYPOINT) -> list[Call]:
    """The calls in strace's output."""
    return list(_calls(file, maker))


def _calls(file: Path, maker: Maker) -> Iterator[Call]:
    counted: Counter[str] = Counter()
    files: dict[str, str] = {}
    for line in file.read_text("ascii", "replace").splitlines():
        parts = _CALL.match(line)
        if not parts:  # a signal
            continue
        name, said = parts[1], parts[2]
        counted[name] += 1
        about = (
            _FILE.match(said) if name in ("openat", "newfstatat", "readlink", "unlink", "access", "connect") else None
        )
        descriptor = _DESCRIPTOR.match(said)
        known = files.get(descriptor[1], "") if descriptor else ""
        path = about[1] if about else known
        if name == "openat" and (opened := _OPENED.search(said)):
            files[opened[1]] = path
        elif name == "close" and descriptor:
            files.pop(descriptor[1], None)
        yield Call(name, counted[name], said, path, maker)
