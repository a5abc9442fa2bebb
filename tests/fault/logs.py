"""Blocked logs: everything that a delivery writes to after its commit blocks, is full or is missing, singly and in
combination: the log file, syslog, the journal, pipe(8)'s end of the output, and Sentry.

None of it changes the status or kills the delivery; the message is stored once.
"""

import itertools
import os
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

from harness import account
from harness.devlog import DevLog, dev_log
from harness.handler import ENVIRONMENT, Ended, Handler
from harness.poison import POISON, lethal
from harness.service import Service

from pipehandler.mail.identity import identify
from pipehandler.record.journal import NAME

from .injection import Letter, fresh_database, letter
from .ledger import Ledger, Mode, Row, Scale
from .retried import count, deliver, stored

_FILES = ("open", "none", "full disk", "folder", "FIFO without a reader", "full FIFO", "no such folder", "not ours")
_SYSLOGS = ("off", "open", "full")
_JOURNALS = ("open", "locked for writers", "locked for all", "full disk")
_ANSWERS = ("open", "full", "without a reader", "closed")
_SENTRIES = ("no server listens", "silence", "no such host")

_CLOSED = ["bash", "-c", 'exec "$@" >&- 2>&-', "-"]
"""Runs a command without stdout and stderr."""


class _Point(NamedTuple):
    """The state of each of them; `open`: normal."""

    file: str
    journal: str
    answer: str
    syslog: str = "off"

    def __str__(self) -> str:
        return ", ".join(f"{name} {how}" for name, how in self._asdict().items())


def run(scale: Scale, mode: Mode) -> Row:
    """Every combination of states, or a sample; and Sentry. The service cannot be given another /dev/log."""
    row, ledger = mode.row("logs"), Ledger()
    cold = mode is Mode.COLD
    # A worker has the journal open, so no other process can lock it exclusively.
    journals = [each for each in _JOURNALS if cold or each != "locked for all"]
    points = [
        _Point(*each) for each in itertools.product(_FILES, journals, _ANSWERS, _SYSLOGS if cold else _SYSLOGS[:1])
    ]
    chosen = points[13 :: 193 if cold else 91] if scale.short else scale.thin(points, 17)
    sentries = _SENTRIES[: 1 if scale.short else None] if cold else ()
    with fresh_database() as database, account.folder("pipehandler-") as folder, ThreadPoolExecutor(2) as threads:
        handlers = (Handler(folder / str(number), database.conninfo) for number in itertools.count())
        made = [
            threads.submit(_blocked, point, letter(f"logs{number}"), handler, mode, row, ledger)
            for number, (point, handler) in enumerate(zip(chosen, handlers, strict=False))
        ]
        made += [
            threads.submit(_reported, sentry, handler, row, ledger)
            for sentry, handler in zip(sentries, handlers, strict=False)
        ]
        for each in made:
            each.result()
        ledger.check(database, row)
    return row


def _blocked(point: _Point, sent: Letter, handler: Handler, mode: Mode, row: Row, ledger: Ledger) -> None:
    """One delivery in the states of the point, and others that find the stored message."""
    paths = {"open": handler.log, "none": "", "full disk": "/dev/full", "no such folder": "/nonexistent/log"}
    handler.configure(
        handler.conninfo,
        log={"file": str(paths.get(point.file, handler.folder / "odd")), "syslog": point.syslog != "off"},
        serve={"workers": 1},
    )
    with ExitStack() as stack:
        syslog = stack.enter_context(dev_log()) if point.syslog != "off" else None
        if point.journal == "full disk":
            stack.enter_context(_small_disk(handler.state))
        _spoil_file(point, handler, stack)
        service = stack.enter_context(Service(handler) if mode is Mode.RESIDENT else nullcontext())
        first = sent._replace(recipients=(f"first-{sent.name}@example.com",))
        stored(lambda each: deliver(handler, each), first, f"{point}, before", row, ledger)
        _spoil_journal(point, handler, stack)
        if syslog and point.syslog == "full":
            syslog.fill()
        ledger.send(sent.raw, *sent.recipients)
        ended = _answered(point, sent, handler, syslog)
        count(ended, str(point), row)
        if ended.status != 0:
            row.note(f"{ended} with {point}")
        again = deliver(handler, sent)
        count(again, str(point), row)
        if not again.output.startswith("2.0.0 stored before"):
            row.note(f"{ended} with {point}, and then {again}")
        if service and service.has_ended():
            row.note(f"the service has ended with {point}")
    row.points += 1


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """A separate file system, with little room."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k,mode=0700", "tmpfs", folder], check=True)
    account.give(folder)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def _spoil_file(point: _Point, handler: Handler, stack: ExitStack) -> None:
    odd = handler.folder / "odd"
    if point.file == "folder":
        odd.mkdir()
    elif point.file == "not ours":
        odd.touch(0o600)
    elif "FIFO" in point.file:
        os.mkfifo(odd)
        odd.chmod(0o666)
        if point.file == "full FIFO":
            descriptor = os.open(odd, os.O_RDWR | os.O_NONBLOCK)
            stack.callback(os.close, descriptor)
            _fill(descriptor)


def _spoil_journal(point: _Point, handler: Handler, stack: ExitStack) -> None:
    if point.journal == "full disk":
        with (handler.state / "ballast").open("wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(bytes(4096))
            except OSError:
                return
    if point.journal != "open":
        journal = stack.enter_context(closing(sqlite3.connect(handler.state / NAME, isolation_level=None, timeout=10)))
        if point.journal == "locked for all":
            journal.execute("PRAGMA locking_mode = EXCLUSIVE")
        journal.execute("BEGIN IMMEDIATE")


def _answered(point: _Point, sent: Letter, handler: Handler, syslog: DevLog | None) -> Ended:
    """Deliver with pipe(8)'s end of the output in the state of the point. The start of the output is returned if it is
    open."""
    command = sent.command(handler)
    if point.answer == "closed":
        command = [*_CLOSED, *command]
    command = syslog.command(command) if syslog else account.command(command)  # it switches to the account itself
    reading, writing = os.pipe()
    with open(reading, "rb", buffering=0) as reader, open(writing, "wb", buffering=0) as writer:
        if point.answer == "full":
            os.set_blocking(writing, False)
            _fill(writing)
            os.set_blocking(writing, True)
        elif point.answer == "without a reader":
            reader.close()
        running = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=writer, stderr=writer, env=ENVIRONMENT, cwd="/"
        )
        running.communicate(sent.raw, timeout=100)
        writer.close()
        return Ended(running.returncode, reader.read(1000).decode() if point.answer == "open" else "")


def _fill(descriptor: int) -> None:
    """Write into a pipe until it is full."""
    try:
        while True:
            os.write(descriptor, bytes(4096))
    except BlockingIOError:
        pass


def _reported(sentry: str, handler: Handler, row: Row, ledger: Ledger) -> None:
    """A message that kills its parser is stored unparsed, and reported to a Sentry server that does not answer."""
    raw = POISON.replace(b"<poison@", b"<%s@" % sentry.replace(" ", "-").encode())
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if sentry == "silence" else account.free_port()
        host = "nobody.invalid" if sentry == "no such host" else "127.0.0.1"
        handler.configure(
            handler.conninfo,
            sentry={"dsn": f"http://key@{host}:{port}/1", "quarantined": True, "min_interval": 1},
        )
        sent = letter(f"sentry-{sentry.replace(' ', '-')}")._replace(raw=raw)
        ledger.send(sent.raw, *sent.recipients)
        mark = handler.state / f"parsing-{identify(raw).id}"
        mark.write_bytes(b"parsing\n")
        account.give(mark)
        ended = handler.run([*lethal(), *sent.command(handler)], sent.raw)
        count(ended, f"Sentry: {sentry}", row)
        if "stored, not parsed" not in ended.output:
            row.note(f"{ended} with Sentry: {sentry}")
    row.points += 1
