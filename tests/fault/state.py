"""Tampered state: a process of the handler's account replaces the circuit breaker's file, the journal, the socket, a
parser's mark, that of a failure or the whole state directory with something else.

Each message is stored all the same, cold or by a running worker. Root's commands end, and write to no file that a link
points to. Only a program that accepts a message from the entrypoint and does not answer may defer it, for as long as it
runs.
"""

import fcntl
import os
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from threading import Thread
from typing import NamedTuple

from harness import account
from harness.database import Database
from harness.handler import ENVIRONMENT, Handler
from harness.preloaded import PROGRAM
from harness.service import Service

from pipehandler.mail.identity import identify
from pipehandler.record.journal import NAME

from .injection import Letter, fresh_database, letter
from .ledger import Ledger, Mode, Row, Scale
from .retried import REPORTS, count, deliver, stored

_SECRET = b"root's own\n"
_MARK, _DIRECTORY, _SOCKET, _FAILURE = "a parser's mark", "the state directory", "the socket", "the mark of a failure"
_PLACES = ("outage", NAME, f"{NAME}-wal", f"{NAME}-shm", f"{NAME}-journal", _MARK, _DIRECTORY, _SOCKET, _FAILURE)
_COMMANDS = (("status",), ("status", "--json"), ("metrics",), ("check", "--part", "handler"))
_FAR = 32_503_680_000
"""The year 3000, for times of files."""

_Plant = Callable[[Path, ExitStack], object]


def _file(content: bytes = b"", mode: int = 0o666, then: float | None = None) -> _Plant:
    """Create a file with this content, mode and time; it belongs to the account, unless the account may not read it."""

    def make(path: Path, _: ExitStack) -> None:
        path.write_bytes(content)
        path.chmod(mode)
        if mode:
            account.give(path)
        if then is not None:
            os.utime(path, (then, then))

    return make


def _sparse(path: Path, _: ExitStack) -> None:
    path.write_bytes(b"SQLite format 3\0")
    os.truncate(path, 1 << 42)
    account.give(path)


def _directory(path: Path, _: ExitStack) -> None:
    path.mkdir(0o755)
    (path / "full").write_bytes(b"x")


def _locked(path: Path, stack: ExitStack) -> None:
    """Another process holds its lock, and never releases it."""
    _file(then=1_000_000_000)(path, stack)
    descriptor = os.open(path, os.O_RDWR)
    stack.callback(os.close, descriptor)
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def _listener(kind: int, *answers: bytes) -> _Plant:
    """A program that accepts every connection, reads one packet and sends these answers; without any, it stays
    silent."""

    def make(path: Path, stack: ExitStack) -> None:
        listening = socket.socket(socket.AF_UNIX, kind)
        listening.bind(str(path))
        path.chmod(0o666)
        listening.listen(20)
        kept: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                    kept.append(connection)
                    if answers:
                        connection.recv(200_000)
                    for answer in answers:
                        connection.send(answer)
                except OSError:
                    if listening.fileno() < 0:
                        return

        thread = Thread(target=serve, daemon=True)
        thread.start()

        def end() -> None:
            listening.shutdown(socket.SHUT_RDWR)
            listening.close()
            thread.join()
            for each in kept:
                each.close()

        stack.callback(end)

    return make


_TAKES_IT = "a program that takes the message"
_PLANTS: dict[str, _Plant] = {
    "nothing": lambda *_: None,
    "an empty file": _file(),
    "garbage": _file(bytes(range(256)) * 16),
    "a file of the year 3000": _file(b"x", then=_FAR),
    "a file of 1970": _file(b"x", then=0),
    "a file of root's": _file(b"x", mode=0),
    "a file without end": _sparse,
    "a directory": _directory,
    "a FIFO": lambda path, _: os.mkfifo(path, 0o666),
    "a device": lambda path, _: os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 5)),
    "a link to a device": lambda path, _: path.symlink_to("/dev/zero"),
    "a link to a file of root's": lambda path, _: path.symlink_to(path.with_name("secret")),
    "a second name of a file of root's": lambda path, _: path.hardlink_to(path.with_name("secret")),
    "a link to itself": lambda path, _: path.symlink_to(path),
    "a link to nothing": lambda path, _: path.symlink_to("/nonexistent/file"),
    "a socket of the dead": lambda path, _: socket.socket(socket.AF_UNIX).bind(str(path)),
    "a file that stays locked": _locked,
    "a program that says nothing": _listener(socket.SOCK_SEQPACKET),
    "a program of another protocol": _listener(socket.SOCK_STREAM, b"220 mx.example.net ESMTP\r\n"),
    "a program that says what no service says": _listener(socket.SOCK_SEQPACKET, b"[" * 900),
    "a program that claims success": _listener(socket.SOCK_SEQPACKET, b"end 0 2.0.0 stored"),
    "a program that lets wait": _listener(socket.SOCK_SEQPACKET, b"wait 1"),
    _TAKES_IT: _listener(socket.SOCK_SEQPACKET, b"go 1"),
}


class _Point(NamedTuple):
    """The planted objects, by place."""

    place: str
    plant: str

    def __str__(self) -> str:
        return f"{self.plant} in the place of {self.place}"


def run(scale: Scale, mode: Mode) -> Row:
    """Every planted object in every place, or a sample."""
    row, ledger = mode.row("state"), Ledger()
    points = [_Point(place, plant) for place in _PLACES for plant in _PLANTS]
    chosen = points[5 :: 47 if mode is Mode.COLD else 91] if scale.short else scale.thin(points, 17)
    with fresh_database() as database, account.folder("pipehandler-") as folder, ThreadPoolExecutor(2) as threads:
        made = [
            threads.submit(
                _tampered, point, letter(f"state{number}"), folder / str(number), database, scale, mode, row, ledger
            )
            for number, point in enumerate(chosen)
        ]
        for each in made:
            each.result()
        ledger.check(database, row)
    return row


def _tampered(
    point: _Point, sent: Letter, folder: Path, database: Database, scale: Scale, mode: Mode, row: Row, ledger: Ledger
) -> None:
    """One point, with a separate handler, and a service in the resident mode."""
    handler = Handler(folder, database.conninfo, serve={"workers": 1})
    with Service(handler) if mode is Mode.RESIDENT else nullcontext() as service:
        first = sent._replace(recipients=(f"first-{sent.name}@example.com",))
        stored(lambda each: deliver(handler, each), first, f"{point}, before", row, ledger)
        with _planted(point, sent, handler) as secret:
            takes_it = point.plant == _TAKES_IT and point.place == _SOCKET
            if takes_it:
                count(ended := deliver(handler, sent), str(point), row)
                if ended.status != 75:
                    row.note(f"{ended} with {point}")
            else:
                stored(lambda each: deliver(handler, each), sent, str(point), row, ledger, tries=40)
            for arguments in _COMMANDS[: 1 if scale.short else None]:
                _command(point, handler, arguments, row)
            if secret.read_bytes() != _SECRET:
                row.note(f"a file of root's is changed by {point}")
        if service and service.has_ended():
            row.note(f"the service has ended with {point}")
        if takes_it:
            stored(lambda each: deliver(handler, each), sent, f"{point}, after", row, ledger)
    row.points += 1


@contextmanager
def _planted(point: _Point, sent: Letter, handler: Handler) -> Iterator[Path]:
    """Plant it; yields root's file that the links point to, which is in the same folder."""
    paths = {
        _MARK: handler.state / f"parsing-{identify(sent.raw).id}",
        _FAILURE: handler.state / f"storing-{identify(sent.raw).id}",
        _DIRECTORY: handler.state,
        _SOCKET: handler.socket,
    }
    path = paths.get(point.place, handler.state / point.place)
    secret = path.with_name("secret")
    secret.write_bytes(_SECRET)
    secret.chmod(0o600)
    original = path.with_name("original")
    if os.path.lexists(path):
        path.rename(original)
    with ExitStack() as stack:
        _PLANTS[point.plant](path, stack)
        yield secret
    if original.exists():
        subprocess.run(["rm", "-rf", path], check=True)
        original.rename(path)


def _command(point: _Point, handler: Handler, arguments: tuple[str, ...], row: Row) -> None:
    """Assert that a command of root ends without a traceback."""
    command = [PROGRAM, "--config", str(handler.config), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, cwd="/", timeout=50)
    except subprocess.TimeoutExpired:
        row.note(f"{' '.join(arguments)} does not end with {point}")
        return
    wanted = REPORTS.get(arguments[0], (0,))
    if done.returncode not in wanted or "Traceback" in done.stderr + done.stdout or "root's" in done.stdout:
        row.note(f"{' '.join(arguments)} with {point}: {done.returncode}, {done.stderr[-400:]}")
