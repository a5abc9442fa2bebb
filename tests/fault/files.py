"""Every file that a delivery reads before its commit is truncated, missing or unreadable, as after a full disk, a power
failure, a failing disk or a copy with wrong permissions. This includes the files of the interpreter and the libraries.

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
from harness.database import Database
from harness.handler import Ended, Handler
from harness.installation import Installation

from .injection import Letter, fresh_database, letter
from .ledger import Ledger, Mode, Row, Scale

_AT_ONCE = 2
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
_FIRST = ("__init__.py", "fence.py", "handover.py", "__main__.py", "pipe.py")
"""Our own files that a delivery reads first, for which a sample has more points."""


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
    """A handler with its own installation."""

    handler: Handler
    installation: Installation

    def deliver(self, point: _Point, sent: Letter) -> Ended:
        """Deliver a letter with a fault in one file."""
        command = self.installation.command(sent.command(self.handler))
        file = self.installation.folder / point.file
        if point.call:
            when = ":when=1" if point.error == "EINTR" else ""  # Python repeats an interrupted call
            inject = f"inject={point.call}:error={point.error}{when}"
            chosen = ["-P", str(file), "-e", f"trace={point.call}", "-e", inject]
            return self.handler.run(["strace", "-f", "-qq", "-o", "/dev/null", *chosen, *command], sent.raw)
        content = file.read_bytes()[: point.octets]
        with self.installation.damaged(file, None if point.octets == -1 else content, point.mode):
            return self.handler.run(command, sent.raw)


def run(scale: Scale, mode: Mode) -> Row:
    """Damage the files one after the other, all of them or a sample."""
    row, ledger = mode.row("files"), Ledger()
    hosts: SimpleQueue[_Host] = SimpleQueue()
    with fresh_database() as database, account.folder("pipehandler-") as folder:
        for number in range(_AT_ONCE):
            installation = Installation(folder / f"installation{number}")
            hosts.put(_Host(Handler(folder / f"handler{number}", database.conninfo), installation))
        host = hosts.get()
        points = list(_points(host, scale, letter("whole")))
        hosts.put(host)

        def made(numbered: tuple[int, _Point]) -> tuple[_Point, Letter, Ended]:
            number, point = numbered
            host, sent = hosts.get(), letter(f"f{number}")
            try:
                return point, sent, host.deliver(point, sent)
            finally:
                hosts.put(host)

        with ThreadPoolExecutor(_AT_ONCE) as threads:
            for point, sent, ended in threads.map(made, enumerate(points)):
                _judge(point, sent, ended, database, ledger, row)
    return row


def _points(host: _Host, scale: Scale, sent: Letter) -> Iterator[_Point]:
    installation = host.installation
    read = [each.relative_to(installation.folder) for each in _read(host, sent)]
    ours = [each for each in read if "pipehandler" in each.parts]
    others = [each for each in read if each not in ours]
    first = [each for each in ours if each.name in _FIRST and len(each.parts) < 8]
    if not scale.short:
        everything = [each for file in read for each in _faults(installation.folder, file, file in ours)]
        yield from scale.thin(everything, 370)
        return
    for file in first:
        yield from itertools.islice(_faults(installation.folder, file, by_line=True), 0, None, 23)
    everything = [each for file in ours + others for each in _faults(installation.folder, file, by_line=False)]
    yield from everything[:: max(1, len(everything) // _SAMPLE)]


def _read(host: _Host, sent: Letter) -> list[Path]:
    """The files of the installation that a delivery reads, and the sources of those that are compiled."""
    found: dict[Path, None] = {}
    for file in host.installation.loaded(host.handler, sent.command(host.handler), sent.raw):
        found[file] = None
        if file.suffix == ".pyc":
            source = Path(importlib.util.source_from_cache(str(file)))
            if source.exists():
                found[source] = None
    return list(found)


def _faults(folder: Path, file: Path, by_line: bool) -> Iterator[_Point]:
    """The faults of one file: truncated after each line, and within the lines of the first files, or at seven places;
    missing, unreadable, and every error of every call."""
    content = (folder / file).read_bytes()
    size = len(content)
    if by_line and file.suffix == ".py":
        lengths = list(itertools.accumulate(map(len, content.splitlines(keepends=True)), initial=0))
        if file.name in _FIRST:
            lengths += [(start + end) // 2 for start, end in itertools.pairwise(lengths)]
        lengths = sorted(set(lengths) - {size})
    else:
        lengths = sorted({0, 1, 16, size // 4, size // 2, 3 * size // 4, size - 1} & set(range(size)))
    for octets in lengths:
        yield _Point(file, octets)
    yield _Point(file, -1)
    yield _Point(file, size, mode=0)
    for call, errors in _ERRORS.items():
        if call != "mmap" or ".so" in file.suffixes:
            for error in errors:
                yield _Point(file, None, call, error)


def _judge(point: _Point, sent: Letter, ended: Ended, database: Database, ledger: Ledger, row: Row) -> None:
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
    ours = "pipehandler" in point.file.parts
    if ours and ended.status > 0 and ended.status not in (71, 75):
        row.bounced += 1
        row.note(f"{ended} after {point}")
    if ended.status and ended.output.startswith("5."):
        row.bounced += 1
        row.note(f"{ended} after {point}")
