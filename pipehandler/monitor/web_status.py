"""Query the process of the inbox page for its counts.

What answers on the socket is believed only if it is a flat JSON object with the counts that the page sends, in time.
"""

import json
import os
import socket
import time
from typing import Any

from ..settings.config import Web

_ANSWER_SECONDS = 2.0
_LARGEST = 65_536
_LARGEST_COUNT = 1 << 53

COUNTS = (
    "requests",
    "streams",
    "opened",
    "refused_host",
    "refused_origin",
    "refused_opened",
    "refused_full",
    "refused_streams",
    "sanitiser_busy",
    "sanitiser_refused",
    "unavailable",
    "faults",
    "open_streams",
    "database_up",
    "listening",
)
"""What every page reports; a newer one may report more."""


class WebStatusError(Exception):
    """The page did not answer; the text says why and what to do."""


def is_expected(settings: Web) -> bool:
    """Whether a page should run on this host: it is public, or has run since the host started."""
    return settings.public or os.path.exists(settings.status_socket)


def ask_page(path: str) -> dict[str, int]:
    """Return the counts of the page that listens on the socket `path`. Raises WebStatusError."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
            until = time.monotonic() + _ANSWER_SECONDS
            connection.settimeout(_ANSWER_SECONDS)
            connection.connect(path)
            reply = b""
            while len(reply) < _LARGEST:
                connection.settimeout(max(0.01, until - time.monotonic()))
                piece = connection.recv(_LARGEST)
                if not piece:
                    break
                reply += piece
    except OSError as error:
        raise WebStatusError(
            f"{path}: no reply ({error}); `systemctl status pipehandler-web.service` says why the inbox page does not run"
        ) from error
    try:
        answer: Any = json.loads(reply)
    except (ValueError, RecursionError) as error:
        raise WebStatusError(f"{path}: the reply is not JSON; another program may be listening there") from error
    if not isinstance(answer, dict) or any(
        type(answer.get(name)) is not int or not 0 <= answer[name] <= _LARGEST_COUNT for name in COUNTS
    ):
        raise WebStatusError(f"{path}: the reply lacks counts of the page; another program may be listening there")
    return {name: answer[name] for name in COUNTS}
