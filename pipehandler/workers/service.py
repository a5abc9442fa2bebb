"""`pipehandler serve`: run the resident workers as a service."""

import os
import signal
from contextlib import suppress

from pipehandler.parse import loading

from ..runtime import systemd
from ..settings.config import Config
from .listener import ServeError, listen
from .supervisor import Supervisor


def serve(path: str, config: Config) -> None:
    """Run the service until SIGTERM or SIGINT, on the socket that systemd passed, else on `serve.socket`.

    `path`: the file that `config` was read from. Raises ServeError if the service cannot start.
    """
    if os.geteuid() == 0:
        raise ServeError(
            "serve must not run as root; run it as the account of the transport: User= in a unit, or runuser -u"
        )
    for number in (signal.SIGCHLD, signal.SIGALRM):  # whoever started us may have ignored or blocked them
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o077)
    loading.load_all()  # before the fork, so that the workers share it and no message waits for it
    try:
        listener = systemd.listening_socket()
    except (OSError, ValueError) as error:
        raise ServeError(str(error)) from error
    if listener:
        Supervisor(listener, path, config).run()
        return
    name = config.serve.socket
    with listen(name) as listener:
        created = os.stat(name)
        try:
            Supervisor(listener, path, config).run()
        finally:
            with suppress(OSError):
                if os.path.samestat(os.stat(name), created):
                    os.unlink(name)
