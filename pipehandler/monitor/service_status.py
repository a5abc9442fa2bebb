"""Query the running service of resident workers."""

import json
import socket

from ..handover import LARGEST
from ..workers.listener import ServeError

_ANSWER_SECONDS = 2.0


def ask(name: str) -> dict[str, int]:
    """Return the counts of the service that listens on the socket `name` (see Supervisor.status).

    Raises ServeError if there is no reply within two seconds.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            connection.connect(name)
            connection.send(b"status")
            answer: dict[str, int] = json.loads(connection.recv(LARGEST))
    except (OSError, ValueError) as error:
        raise ServeError(f"{name}: no reply ({error}); messages are delivered cold") from error
    return answer
