"""`pipehandler serve`: run the resident workers as a service."""

import ipaddress
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

from pipehandler.parse import loading

from ..runtime import systemd
from ..settings.config import Config
from .listener import ServeError, listen
from .succession import Inheritance, inherited, report_code
from .supervisor import Supervisor


def try_out() -> str:
    """Load what a start loads, on trial for a running service that may become this program; report its code."""
    loading.load_all()
    return report_code()


def serve(path: str, config: Config, report: Callable[[str], object]) -> None:
    """Run the service until SIGTERM or SIGINT, on the socket passed by systemd, else on `serve.socket`.

    `path`: the file that `config` was read from. `report` is called with one line when the service listens. Raises
    ServeError if it cannot start.
    """
    if os.geteuid() == 0:
        raise ServeError(
            "serve must not run as root; run it as the account of the transport: User= in a unit, or runuser -u"
        )
    for number in (signal.SIGCHLD, signal.SIGALRM):  # the parent may have left them ignored or blocked
        signal.signal(number, signal.SIG_DFL)
    os.umask(0o077)
    loading.load_all()  # before the fork, so that workers share the modules and no message waits for them
    inheritance = inherited()
    try:
        listener, lmtp = _inherited(inheritance) if inheritance else systemd.listening_sockets()
        _require_loopback(lmtp)
    except (OSError, ValueError) as error:
        raise ServeError(str(error)) from error
    created = inheritance.created if inheritance else listener is None
    lmtp_created = inheritance.lmtp_created if inheritance else not lmtp
    listener = listener or listen(config.serve.socket)
    with listener:
        name = listener.getsockname()
        bound = os.stat(name)
        report(f"listening on {name}, {config.serve.workers} workers")
        try:
            Supervisor(listener, path, config, created, inheritance, lmtp, lmtp_created).run()
        finally:
            with suppress(OSError):
                if created and os.path.samestat(os.stat(name), bound):
                    os.unlink(name)


def _inherited(inheritance: Inheritance) -> tuple[socket.socket, list[socket.socket]]:
    """Return the listening sockets of this process's previous program."""
    return socket.socket(fileno=inheritance.listener), [socket.socket(fileno=number) for number in inheritance.lmtp]


def _require_loopback(listeners: list[socket.socket]) -> None:
    """Raise ValueError for a socket that another host can reach."""
    for listener in listeners:
        if listener.family != socket.AF_UNIX and not ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
            raise ValueError(f"LMTP on {listener.getsockname()[0]}: other hosts must not reach it; listen on 127.0.0.1")
