"""`pipehandler serve`: run the resident workers as a service."""

import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

from pipehandler.parse import loading

from ..runtime import systemd
from ..settings.config import Config
from .listener import ServeError, listen
from .succession import inherited, report_code
from .supervisor import Supervisor


def try_out() -> str:
    """Do what a start does before it serves, for a running service that is about to become this program; report its code."""
    loading.load_all()
    return report_code()


def serve(path: str, config: Config, report: Callable[[str], object]) -> None:
    """Run the service until SIGTERM or SIGINT, on the socket that systemd passed, else on `serve.socket`.

    `path`: the file that `config` was read from. `report` is called with one line when it listens. Raises ServeError if the
    service cannot start.
    """
    if os.geteuid() == 0:
        raise ServeError(
            "serve must not run as root; run it as the account of the transport: User= in a unit, or runuser -u"
        )
    for number in (signal.SIGCHLD, signal.SIGALRM):  # whoever started us may have ignored or blocked them
        signal.signal(number, signal.SIG_DFL)
    os.umask(0o077)
    loading.load_all()  # before the fork, so that the workers share it and no message waits for it
    inheritance = inherited()
    try:
        listener = socket.socket(fileno=inheritance.listener) if inheritance else systemd.listening_socket()
    except (OSError, ValueError) as error:
        raise ServeError(str(error)) from error
    created = inheritance.created if inheritance else listener is None
    listener = listener or listen(config.serve.socket)
    with listener:
        name = listener.getsockname()
        bound = os.stat(name)
        report(f"listening on {name}, {config.serve.workers} workers")
        try:
            Supervisor(listener, path, config, created, inheritance).run()
        finally:
            with suppress(OSError):
                if created and os.path.samestat(os.stat(name), bound):
                    os.unlink(name)
