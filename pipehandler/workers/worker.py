"""A resident worker: delivers the messages that the supervisor assigns, one at a time, on one open database connection.

A message takes the same path as in a cold delivery (ingress/pipe.py), or that of LMTP or of a Maildir beside it
(ingress/lmtp.py, ingress/maildir.py). Nothing carries over from one message to the
next: limits and alarms are set for each, and the process is replaced after a number of messages, after it grew, and
after an unexpected error.
"""

import os
import select
import signal
import socket
import time
from contextlib import suppress
from typing import NamedTuple, NoReturn

from ..delivery.turn import LARGE
from ..handover import LARGEST, option, peer
from ..ingress import lmtp, maildir, pipe
from ..ingress.single import Finished, Resident
from ..ingress.truncation import Caller
from ..mail.outcome import FAULT, described
from ..record.attempt import write_log
from ..record.journal import Journal
from ..runtime import deadline
from ..runtime.deadline import GRACE
from ..settings.config import Config
from ..store.errors import StoreError
from ..store.message_store import MessageStore

READY, FREE, LAST = b"ready", b"free", b"last"
"""Reports to the supervisor: ready for a first message; done and free for another; done and about to exit."""

_DESCRIPTOR_SECONDS = 2.0
"""Seconds that the entrypoint may take to send the descriptor of the message."""

_INGRESSES = {"deliver": pipe.INGRESS, "lmtp": lmtp.INGRESS, "maildir": maildir.INGRESS}
"""The ingress, by the first word of the packet."""

_PAGE = os.sysconf("SC_PAGE_SIZE")


class Task(NamedTuple):
    """The first packet of an entrypoint, or of the LMTP receiver.

    `parent`: the pid of pipe(8). `started`: time.monotonic in the entrypoint, or at the end of the message.
    """

    installation: str
    parent: int
    started: float
    argv: list[str]
    ingress: str = pipe.INGRESS

    @property
    def is_large(self) -> bool:
        """Whether its message is large; false if Postfix does not pass the size."""
        size = option(self.argv, "size")
        return size.isascii() and size.isdigit() and len(size) < 20 and int(size) >= LARGE

    @classmethod
    def from_packet(cls, packet: bytes) -> "Task | None":
        """Return the task in a packet, or None if the packet is not one."""
        words = os.fsdecode(packet).split("\0")
        try:
            kind, installation, parent, started, *argv = words
            task = cls(installation, int(parent), float(started), argv, _INGRESSES[kind])
        except (ValueError, KeyError):
            return None
        return task if task.started >= 0 else None  # not for NaN


def work(channel: socket.socket, config: Config) -> NoReturn:
    """Deliver the messages from `channel`, each a packet with an entrypoint's connection; then exit the process."""
    status = 1
    try:
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(signum, signal.SIG_IGN)  # the supervisor stops a worker by closing its channel
        database = config.database
        store = MessageStore(database.conninfo, database.connect_timeout, database.statement_timeout)
        with suppress(StoreError):
            store.connect()  # if this fails, the first message retries and reports the error
        channel.send(READY)
        size = _size()
        resident = Resident(config, store, Journal(config.state.directory))
        for number in range(1, config.serve.max_messages + 1):
            _wait(channel, store)
            packet, files, _, _ = socket.recv_fds(channel, LARGEST, 1, socket.MSG_CMSG_CLOEXEC)
            if not packet:
                break
            task = Task.from_packet(packet)
            with socket.socket(fileno=files[0]) as entrypoint:
                sound = task is not None and _deliver(task, entrypoint, resident)
            grown = _size() - size > config.serve.max_growth
            last = number == config.serve.max_messages or grown or not sound
            channel.send(LAST if last else FREE)
            if last:
                break
        store.close()
        status = 0
    except BaseException as error:  # noqa: BLE001 # the log says why, and the supervisor starts another
        with suppress(BaseException):
            write_log(config, "worker", failed=True, pid=os.getpid(), reason=described(error))
    finally:
        os._exit(status)


def _wait(channel: socket.socket, store: MessageStore) -> None:
    """Wait for the next message. If the server ends the database connection, close it; the message opens another."""
    while True:
        watched = [channel.fileno()] + ([] if store.socket is None else [store.socket])
        readable, _, _ = select.select(watched, [], [])
        if channel.fileno() in readable:
            return
        store.close()


def _deliver(task: Task, entrypoint: socket.socket, resident: Resident) -> bool:
    """Take the message's descriptor, deliver it and answer; return whether the worker may take another message."""
    limits = resident.config.limits
    entrypoint.settimeout(_DESCRIPTOR_SECONDS)
    try:
        # Never in the future: the start that the entrypoint sends may only shorten the time that remains.
        started = min(task.started, time.monotonic())
        entrypoint.send(b"go %d" % (max(0.0, started + limits.deadline - time.monotonic()) + GRACE + 1))
        _, files, _, _ = socket.recv_fds(entrypoint, 100, 1, socket.MSG_CMSG_CLOEXEC)
    except OSError:
        return True  # it has exited, or will deliver the message cold
    if not files:
        return True
    finished = _run(task, started, files[0], entrypoint, resident)
    with suppress(OSError):
        lines = "\n".join(f"{result.outcome.status} {result.line}" for result in finished.results)
        entrypoint.send(f"end {lines}".encode("ascii", "replace"))
    os.close(files[0])
    try:
        with deadline.afterwards():
            finished.after_reply()
    except BaseException:  # noqa: BLE001 # the message is stored and answered; another worker goes on
        return False
    return all(result.outcome != FAULT for result in finished.results)


def _run(task: Task, started: float, file: int, entrypoint: socket.socket, resident: Resident) -> Finished:
    if task.ingress == lmtp.INGRESS:
        return lmtp.run(task.argv, started, file, resident)
    if task.ingress == maildir.INGRESS:
        return maildir.run(task.argv, started, file, resident)
    return pipe.run(task.argv, started, file, Caller(peer(entrypoint)[0], task.parent), resident)


def _size() -> int:
    """Return the size of this process's address space in octets (proc(5))."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * _PAGE
