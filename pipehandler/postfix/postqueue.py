"""Postfix's queue: the output of postqueue(1), added up by the name of the queue."""

import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from types import MappingProxyType
from typing import NamedTuple

from .postconf import DEFAULT_DIRECTORY, find_program

QUEUES = ("maildrop", "incoming", "active", "deferred", "hold")
"""The queues that showq(8) lists, in the order in which a message passes through them; never `corrupt`."""

_TIMEOUT = 60
"""Seconds to read the files of a long queue from a busy disk."""

_REASONS = 50  # the number of different reasons that are counted

_HINTS = {
    "not allowed": "add this account to authorized_mailq_users (main.cf), or run this as root",
    "Permission denied": "postqueue must keep its group postdrop (`postfix set-permissions`; NoNewPrivileges removes it)",
    "mail system is down": "`postfix start`; while it is down the queue cannot be listed",
    "malformed showq": "`postfix start`; while it is down the queue cannot be listed",
    "alternate_config_directories": "or run this as root",
}
"""What to do, by a part of postqueue's error message."""


class QueueError(Exception):
    """The queue cannot be listed; the text says why and what to do. down: because Postfix does not run."""

    def __init__(self, text: str, down: bool = False) -> None:
        super().__init__(text)
        self.down = down


class Queued(NamedTuple):
    """The contents of one queue.

    oldest: the arrival time of its oldest message, in seconds since 1970. reasons: Postfix's reasons for the delays, each with the
    number of messages; only the first 50 different ones are counted.
    """

    messages: int
    oldest: float
    reasons: Mapping[str, int] = MappingProxyType({})


class Listing(NamedTuple):
    """queues: by name, each that is not empty. running: whether Postfix runs; root can list the queue without."""

    queues: dict[str, Queued]
    running: bool


def listing(directory: str = DEFAULT_DIRECTORY, seconds: float = _TIMEOUT) -> Listing:
    """Return the queue of the Postfix whose configuration is in `directory`.

    Raises QueueError, also if it takes longer than `seconds`.
    """
    path = find_program("postqueue")
    if path is None:
        raise QueueError("there is no program postqueue; Postfix is not installed here")
    try:
        with tempfile.TemporaryFile() as errors:
            queues, status = _list([path, "-c", directory, "-j"], errors.fileno(), seconds)
            errors.seek(0)
            message = errors.read(10_000).decode("utf-8", "replace").strip()
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise QueueError(f"postqueue: {error!r}; it should print one JSON object for each message") from error
    if status is None:
        raise QueueError(f"postqueue: not finished within {seconds:g} s; the queue is long, or the disk is busy")
    down = "mail system is down" in message.lower() or "malformed showq" in message
    if status:
        hint = next((hint for part, hint in _HINTS.items() if part in message), "root may always list the queue")
        reason = message.rpartition("fatal: ")[2] or f"status {status}"
        raise QueueError(f"postqueue: {reason}; {hint}", down)
    return Listing(queues, not down)


def _list(command: list[str], errors: int, seconds: float) -> tuple[dict[str, Queued], int | None]:
    """Return the queues and the status of the command; None: it was killed because its time was up."""
    timed_out = threading.Event()
    with subprocess.Popen(  # noqa: S603 # our own arguments
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # to kill its children as well: while Postfix is down it starts showq itself
    ) as running:

        def end() -> None:
            timed_out.set()
            _kill(running)

        timer = threading.Timer(seconds, end)
        timer.start()
        try:
            queues = _add_up(running.stdout or ())
            status = running.wait()
        except Exception:
            if not timed_out.is_set():  # after a kill, the last line may be incomplete
                raise
        finally:
            timer.cancel()
            _kill(running)
    return ({}, None) if timed_out.is_set() else (queues, status)


def _kill(running: subprocess.Popen[str]) -> None:
    if running.poll() is None:
        with suppress(OSError):
            os.killpg(running.pid, signal.SIGKILL)


def _add_up(lines: Iterable[str]) -> dict[str, Queued]:
    """Return the queues, from one line of JSON for each message; lines are not kept, because a queue may be long."""
    queues: dict[str, Queued] = {}
    for line in lines:
        message = json.loads(line)
        name, arrived = str(message["queue_name"]), float(message["arrival_time"])
        queue = queues.get(name, Queued(0, arrived, {}))
        reasons = dict(queue.reasons)
        recipients = message.get("recipients", [])
        for reason in {recipient["delay_reason"] for recipient in recipients if "delay_reason" in recipient}:
            if reason in reasons or len(reasons) < _REASONS:
                reasons[reason] = reasons.get(reason, 0) + 1
        queues[name] = Queued(queue.messages + 1, min(queue.oldest, arrived), reasons)
    return queues
