"""Wake listeners with NOTIFY, and wait for it with LISTEN, on a connection of libpq.

A notification is a hint without content: a listener reads the table. NOTIFY holds a lock of the whole cluster until its
transaction is committed, so it is never sent in the transaction that stores a message, but in a separate one, later.
"""

import select
import time
from contextlib import suppress

from psycopg.pq.abc import PGconn

CHANNEL = "pipehandler"

# Nothing in this transaction can be lost, so it waits for no disk and no standby.
_NOTIFY = f"SELECT set_config('synchronous_commit', 'off', true), pg_notify('{CHANNEL}', '')".encode()
_NOTIFY_SECONDS = 1.0


def readable(socket: int, seconds: float = 0.0) -> bool:
    """Whether there is something to read, or the end, within `seconds`. The descriptor may be above 1023."""
    poll = select.poll()
    poll.register(socket, select.POLLIN)
    return bool(poll.poll(max(0.0, 1000 * seconds)))


def notify(connection: PGconn) -> bool:
    """Wake listeners; takes at most a second and never raises. False: the connection is not usable any more."""
    end = time.monotonic() + _NOTIFY_SECONDS
    with suppress(Exception):
        connection.send_query(_NOTIFY)  # short enough never to block
        connection.flush()
        while readable(connection.socket, end - time.monotonic()):
            connection.consume_input()
            while not connection.is_busy():
                if connection.get_result() is None:
                    return True
    return False


def wait(connection: PGconn, seconds: float) -> bool:
    """Wait for a notification, at most `seconds`; whether one came. Raises psycopg's errors."""
    end = time.monotonic() + seconds
    notified = False
    while not notified and readable(connection.socket, end - time.monotonic()):
        connection.consume_input()
        while connection.notifies():
            notified = True
    return notified
