"""Every file that a delivery reads before its commit is truncated, missing or unreadable, as after a full disk, a power
failure, a failing disk or a copy with wrong permissions. This includes the files of the interpreter and the libraries.

What we ship or write is truncated after each octet (prefixes.py says with which of them a delivery is made), the files of
others at seven places.

Each point has a distinct message. Status 0 lets Postfix delete the message, so it must be stored then. Any other status
is right as long as the status filter defers it, with one exception: once our own code runs, it must choose 71 or 75
itself.
"""

import importlib.util
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

from harness import account
from harness.answering import serving
from harness.database import Database
from harness.handler import Ended, Handler
from harness.installation import Installation

from .injection import Letter, fresh_database, letter
from .ledger import Mode, Row, Scale
from .prefixes import BYTECODE_HEADER, accepted_bytecode, differs

_AT_ONCE = 2
_BATCH = 1000
_SAMPLE = 24
"""The number of points in a sample, besides those of the first files of a delivery."""

_ERRORS = {
    "openat": (
        *(
            "EACCES",
            "EAGAIN",
            "EINTR",
            "EIO",
            "EISDIR",
            "ELOOP",
            "EMFILE",
            "ENAMETOOLONG",
            "ENFILE",
            "ENODEV",
            "ENOENT",
        ),
        *("ENOMEM", "ENOTDIR", "ENXIO", "EOVERFLOW", "EPERM", "ESTALE", "ETXTBSY"),
    ),
    "read": ("EACCES", "EAGAIN", "EBADF", "EINTR", "EINVAL", "EIO", "EISDIR", "ENOMEM", "ESTALE"),
    "newfstatat": ("EACCES", "EIO", "ELOOP", "ENOENT", "ENOMEM", "ENOTDIR", "EOVERFLOW", "ESTALE"),
    "mmap": ("EACCES", "EAGAIN", "ENODEV", "ENOMEM", "EPERM"),
}
"""Errors of open(2), read(2), stat(2) and mmap(2); only a library is mapped. EINTR occurs once, all others persist."""
_FIRST = ("__init__.py", "fence.py", "handover.py", "pipe.py")
"""Our own files that a delivery reads first: every prefix is executed, and a sample has more points."""

_CONFIG, _CLIENT = Path("pipehandler.toml"), Path("client")
"""The configuration and the hand-over client, which are outside of the installation. pipe(8) starts the client."""


class _Point(NamedTuple):
    """One fault of a file, which is named relative to the installation. octets: what is left of it, None if it is whole.

    call: the system call that fails with `error`.
    """

    file: Path
    octets: int | None = None
    call: str = ""
    error: str = ""
    mode: int = 0o644

    def __str__(self) -> str:
        what = f"{self.call}: {self.error}" if self.call else f"{self.octets} octets, mode {self.mode:o}"
        return f"{self.file}: {what}"


class _Host(NamedTuple):
    """A handler with its own installation, and one that the hand-over client precedes, with its own copy of that."""

    handler: Handler
    installation: Installation
    with_client: Handler

    @classmethod
    def of(cls, folder: Path, database: Database) -> "_Host":
        """One in `folder`."""
        with_client = Handler(folder / "with_client", database.conninfo)
        with_client.with_client(with_client.folder / _CLIENT)
        return cls(Handler(folder / "handler", database.conninfo), Installation(folder / "installation"), with_client)

    def content(self, file: Path) -> bytes:
        """The whole of a file of _Point."""
        return self._path(file).read_bytes()

    def _path(self, file: Path) -> Path:
        owner = {_CONFIG: self.handler.folder, _CLIENT: self.with_client.folder}
        return owner.get(file, self.installation.folder) / file

    def deliver(self, point: _Point, sent: Letter) -> Ended:
        """Deliver a letter with a fault in one file."""
        if point.file in (_CONFIG, _CLIENT):
            return self._deliver_outside(point, sent)
        command = self.installation.command(sent.command(self.handler))
        file = self._path(point.file)
        if point.call:
            when = ":when=1" if point.error == "EINTR" else ""  # Python repeats an interrupted call
            inject = f"inject={point.call}:error={point.error}{when}"
            chosen = ["-P", str(file), "-e", f"trace={point.call}", "-e", inject]
            return self.handler.run(["strace", "-f", "-qq", "-o", "/dev/null", *chosen, *command], sent.raw)
        content = file.read_bytes()[: point.octets]
        with self.installation.damaged(file, None if point.octets == -1 else content, point.mode):
            return self.handler.run(command, sent.raw)

    def _deliver_outside(self, point: _Point, sent: Letter) -> Ended:
        """The same with a prefix of a file that is not part of the installation."""
        file = self._path(point.file)
        whole, mode = file.read_bytes(), file.stat().st_mode
        file.unlink()  # a program that runs cannot be written
        file.write_bytes(whole[: point.octets])
        file.chmod(mode)
        try:
            if point.file == _CONFIG:
                return self.handler.run(self.installation.command(sent.command(self.handler)), sent.raw)
            return self._deliver_with_client(sent)
        finally:
            file.unlink()
            file.write_bytes(whole)
            file.chmod(mode)

    def _deliver_with_client(self, sent: Letter) -> Ended:
        """First ask a service that takes the message and ends without an answer: status 0 is a lie then. What asked it is
        started again without any service, and delivers cold."""
        command = sent.command(self.with_client)
        with serving(self.with_client.socket, b"go 0") as packets:
            ended = self.with_client.run(command, sent.raw)
        self.with_client.socket.unlink()
        return self.with_client.run(command, sent.raw) if packets and ended.status else ended


def run(scale: Scale, mode: Mode) -> Row:
    """Damage the files one after the other, all of them or a sample."""
    row = mode.row("files")
    hosts: SimpleQueue[_Host] = SimpleQueue()
    with fresh_database() as database, account.folder("pipehandler-") as folder:
        for number in range(_AT_ONCE):
            hosts.put(_Host.of(folder / f"host{number}", database))
        host = hosts.get()
        points = iter(list(_points(host, scale, _read(host, letter("whole")), row)))
        numbers = itertools.count()

        def made(point: _Point) -> tuple[_Point, Letter, Ended] | None:
            host = hosts.get()
            try:
                if not _tells_something(host, point):
                    return None
                sent = letter(f"f{next(numbers)}")
                return point, sent, host.deliver(point, sent)
            finally:
                hosts.put(host)

        hosts.put(host)
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            while some := list(itertools.islice(points, _BATCH)):  # the threads are given all of it at once
                for done in threads.map(made, some):
                    if done:
                        _judge(*done, database, row)
    return row


def _read(host: _Host, sent: Letter) -> list[Path]:
    """The files of the installation that a delivery reads, relative to it, and the sources of those that are compiled."""
    found: dict[Path, None] = {}
    for file in host.installation.loaded(host.handler, sent.command(host.handler), sent.raw):
        found[file] = None
        if file.suffix == ".pyc":
            source = Path(importlib.util.source_from_cache(str(file)))
            if source.exists():
                found[source] = None
    return [each.relative_to(host.installation.folder) for each in found]


def _points(host: _Host, scale: Scale, read: list[Path], row: Row) -> Iterator[_Point]:
    """The points among which _tells_something chooses, and what is found out without a delivery."""
    prefixes = [each for each in read if each.suffix in (".cfg", ".pth") or (_is_ours(each) and each.suffix == ".py")]
    prefixes += [_CONFIG, _CLIENT]
    compiled = [each for each in read if each.suffix == ".pyc"]
    octets = [(file, octets) for file in prefixes for octets in range(len(host.content(file)))]
    octets += [(file, octets) for file in compiled if _is_ours(file) for octets in range(BYTECODE_HEADER)]
    faults = [each for file in read for each in _faults(file, len(host.content(file)), whole=file in prefixes)]
    if scale.short:
        first = [each for each in octets if _is_first(each[0])]
        octets = first[::401] + octets[::9973]
        faults, compiled = faults[:: len(faults) // _SAMPLE], compiled[:3]
    yield from (_Point(*each) for each in scale.thin(octets, 4000))
    yield from scale.thin(faults, 370)
    for file in scale.thin(compiled, 40):
        if accepted := accepted_bytecode(host.content(file)):
            row.note(f"{file}: code of {accepted} octets would be executed")


def _faults(file: Path, size: int, whole: bool) -> Iterator[_Point]:
    """The faults of one file: truncated at seven places, unless all prefixes are made anyway (`whole`); missing,
    unreadable, and every error of every call."""
    if not whole:
        for octets in sorted({0, 1, 16, size // 4, size // 2, 3 * size // 4, size - 1} & set(range(size))):
            yield _Point(file, octets)
    yield _Point(file, -1)
    yield _Point(file, size, mode=0)
    for call, errors in _ERRORS.items():
        if call != "mmap" or ".so" in file.suffixes:
            for error in errors:
                yield _Point(file, None, call, error)


def _tells_something(host: _Host, point: _Point) -> bool:
    """Whether a delivery has to show what happens: of most prefixes of our modules it is known without."""
    content = host.content(point.file)
    module = point.file.suffix == ".py" and _is_ours(point.file) and not _is_first(point.file)
    prefix = not point.call and point.octets is not None and 0 <= point.octets < len(content)
    return not (module and prefix) or differs(content, point.octets or 0)


def _is_ours(file: Path) -> bool:
    return "pipehandler" in file.parts


def _is_first(file: Path) -> bool:
    return _is_ours(file) and file.name in _FIRST and len(file.parts) < 8


def _judge(point: _Point, sent: Letter, ended: Ended, database: Database, row: Row) -> None:
    row.points += 1
    row.sent += 1
    row.statuses[ended.status] += 1
    stored = int(
        database.value(
            "SELECT count(*) FROM pipehandler.delivery d"
            " JOIN pipehandler.raw_message r ON r.day = d.day AND r.message = d.message"
            " WHERE d.recipient = %s AND r.raw = %s",
            sent.recipients[0],
            sent.raw,
        )
    )
    if ended.status == 0 and not stored:
        row.lost += 1
        row.note(f"status 0 and nothing stored: {point}: {ended.output}")
    if stored > 1:
        row.doubled += 1
    ours = _is_ours(point.file) or point.file == _CONFIG
    if ours and ended.status > 0 and ended.status not in (71, 75):
        row.bounced += 1
        row.note(f"{ended} after {point}")
    if ended.status and ended.output.startswith("5."):
        row.bounced += 1
        row.note(f"{ended} after {point}")
