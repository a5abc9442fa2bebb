"""Postfix's queue as Postfix itself tells it: what postqueue(1) prints, added up by the name of the queue."""

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
"""The queues that showq(8) lists, in the order in which a message comes to them; never `corrupt`."""

_SECONDS = 60
"""So long it may take to read the files of a long queue from a busy disk."""

_REASONS = 50  # different ones that are counted

_HINTS = {
    "not allowed": "name this account in authorized_mailq_users (main.cf), or run it as root",
    "Permission denied": "postqueue must keep its group postdrop (`postfix set-permissions`; NoNewPrivileges takes it away)",
    "mail system is down": "`postfix start`; while it is down the queue cannot be listed",
    "malformed showq": "`postfix start`; while it is down the queue cannot be listed",
    "alternate_config_directories": "or run it as root",
}


class QueueError(Exception):
    """The queue cannot be listed; the text says why and what to do."""


class Queued(NamedTuple):
    """What is in one queue. oldest: when its oldest message came, in seconds since 1970. reasons: what Postfix says of why
    messages wait, and of how many; of a great many different ones only the first."""

    messages: int
    oldest: float
    reasons: Mapping[str, int] = MappingProxyType({})


def queued(directory: str = DEFAULT_DIRECTORY, seconds: float = _SECONDS) -> dict[str, Queued]:
    """What is in each queue that is not empty, for the Postfix whose configuration is in `directory`.

    Raises QueueError, also where it takes longer than `seconds`.
    """
    path = find_program("postqueue")
    if path is None:
        raise QueueError("there is no program postqueue; Postfix is not installed here")
    try:
        with tempfile.TemporaryFile() as errors:
            found, status = _listed([path, "-c", directory, "-j"], errors.fileno(), seconds)
            errors.seek(0)
            said = errors.read(10_000).decode("utf-8", "replace").strip()
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise QueueError(f"postqueue: {error!r}; it should print one JSON object for each message") from error
    if status is None:
        raise QueueError(f"postqueue: no end within {seconds:g} s; the queue is long, or the disk is busy")
    if status:
        hint = next((way for text, way in _HINTS.items() if text in said), "root may always list the queue")
        reason = said.rpartition("fatal: ")[2] or f"status {status}"
        raise QueueError(f"postqueue: {reason}; {hint}")
    return found


def _listed(command: list[str], errors: int, seconds: float) -> tuple[dict[str, Queued], int | None]:
    """The queues and the status of the command; None: it was ended because its time was up."""
    late = threading.Event()
    with subprocess.Popen(  # noqa: S603 # our own arguments
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # to end its children, too: while Postfix is down it starts showq itself
    ) as running:

        def end() -> None:
            late.set()
            _kill(running)

        timer = threading.Timer(seconds, end)
        timer.start()
        try:
            found = _added_up(running.stdout or ())
            status = running.wait()
        except Exception:
            if not late.is_set():  # else: what it was saying when it was ended may be half a line
                raise
        finally:
            timer.cancel()
            _kill(running)
    return ({}, None) if late.is_set() else (found, status)


def _kill(running: subprocess.Popen[str]) -> None:
    if running.poll() is None:
        with suppress(OSError):
            os.killpg(running.pid, signal.SIGKILL)


def _added_up(lines: Iterable[str]) -> dict[str, Queued]:
    """The queues, from one line of JSON for each message; a queue may be long, so no line is kept."""
    found: dict[str, Queued] = {}
    for line in lines:
        message = json.loads(line)
        name, came = str(message["queue_name"]), float(message["arrival_time"])
        before = found.get(name, Queued(0, came, {}))
        reasons = dict(before.reasons)
        for reason in {each["delay_reason"] for each in message.get("recipients", []) if "delay_reason" in each}:
            if reason in reasons or len(reasons) < _REASONS:
                reasons[reason] = reasons.get(reason, 0) + 1
        found[name] = Queued(before.messages + 1, min(before.oldest, came), reasons)
    return found
