"""Query the running service of resident workers.

Its socket is in a directory of the handler's account, so what answers there may be anything: it is believed only if it is a flat
JSON object with the counts that the service sends, in one packet, in time.
"""

import json
import os
import socket
import stat
import time

from ..handover import LARGEST
from ..runtime.installation import code_digest, configuration_digest
from ..settings.config import Config
from ..workers.listener import ServeError

_ANSWER_SECONDS = 2.0
_LARGEST_COUNT = 1 << 53

COUNTS = ("workers", "free", "busy", "waiting", "replaced", "died", "congested", "sent_back")
"""What every service reports; a newer one may report more."""

DIGESTS = ("code", "configuration")
"""What stands among the counts for the code and the configuration of the workers."""

OTHER_NAMESPACE = "the service is in another PID namespace than Postfix; start both in one"
"""Why the count other_namespace grows: the service cannot see whether pipe(8) still lives."""


def stale(counts: dict[str, int], config: Config) -> list[str]:
    """Return what the workers have that is no longer what is installed and configured, as ends of a sentence about them.

    counts: the answer of the service; one of an older version says nothing about it. config: as the file has it now. Call
    it in a process that has just started: the code that is compared is its own.
    """
    different = []
    if counts.get("code", code_digest()) != code_digest():
        different.append("run other code than is installed now")
    if counts.get("configuration", configuration_digest(config)) != configuration_digest(config):
        different.append("have another configuration than the file has now")
    return different


def ask(name: str) -> dict[str, int]:
    """Return the counts of the service that listens on the socket `name` (see Supervisor.status).

    Raises ServeError if there is no reply within two seconds, or another one than the service gives.
    """
    try:
        if not stat.S_ISSOCK(os.lstat(name).st_mode):
            raise ServeError(f"{name}: not a socket; messages are delivered cold")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as connection:
            until = time.monotonic() + _ANSWER_SECONDS
            connection.settimeout(_ANSWER_SECONDS)
            connection.connect(name)
            connection.settimeout(max(0.01, until - time.monotonic()))
            connection.send(b"status")
            connection.settimeout(max(0.01, until - time.monotonic()))
            reply = connection.recv(LARGEST)
    except (OSError, ValueError) as error:
        raise ServeError(f"{name}: no reply ({error}); messages are delivered cold") from error
    try:
        answer = json.loads(reply)
    except (ValueError, RecursionError) as error:
        raise ServeError(f"{name}: the reply is not JSON; another program may be listening there") from error
    wrong = _wrong(answer)
    if wrong:
        raise ServeError(f"{name}: the reply {wrong}; another program may be listening there")
    return {str(count): int(value) for count, value in answer.items()}


def _wrong(answer: object) -> str:
    """Return what is wrong with an answer, "" if nothing is."""
    if not isinstance(answer, dict):
        return "is not a JSON object"
    for count, value in answer.items():
        if not (count.isascii() and count.isidentifier() and len(count) <= 40):
            return "has a name that no count has"
        if type(value) is not int or not 0 <= value <= _LARGEST_COUNT:
            return f"has a value for {count} that is not a count"
    missing = [count for count in COUNTS if count not in answer]
    return f"lacks {', '.join(missing)}" if missing else ""
