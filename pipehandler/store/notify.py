"""A word to those who wait for mail: PostgreSQL's NOTIFY and LISTEN, on a connection of libpq.

It is a hint and says nothing: who wants to know looks at the table. NOTIFY holds a lock of the whole cluster until its transaction
is committed, so it never belongs into the one that stores a message, but into one of its own, later.
"""

import select
import time
from contextlib import suppress
from typing import Any

CHANNEL = "pipehandler"

# There is nothing in this transaction that could be lost, so it shall wait for no disk and no standby.
_NOTIFY = f"SELECT set_config('synchronous_commit', 'off', true), pg_notify('{CHANNEL}', '')".encode()
_NOTIFY_SECONDS = 1.0


def readable(socket: int, seconds: float = 0.0) -> bool:
    """Whether there is something to read, or the end, within so many seconds; the descriptor may have any number."""
    watched = select.poll()
    watched.register(socket, select.POLLIN)
    return bool(watched.poll(max(0.0, 1000 * seconds)))


def notify(connection: Any) -> bool:
    """Wake those who listen; a second at the most, and never raises. False: nothing can be done with the connection any more."""
    ends = time.monotonic() + _NOTIFY_SECONDS
    with suppress(Exception):
        connection.send_query(_NOTIFY)  # so short that it never blocks
        connection.flush()
        while readable(connection.socket, ends - time.monotonic()):
            connection.consume_input()
            while not connection.is_busy():
                if connection.get_result() is None:
                    return True
    return False


def heard(connection: Any, seconds: float) -> bool:
    """Wait for a notification, so many seconds at the most; whether one came. Raises the errors of psycopg."""
    ends = time.monotonic() + seconds
    came = False
    while not came and readable(connection.socket, ends - time.monotonic()):
        connection.consume_input()
        while connection.notifies():
            came = True
    return came
