"""`pipehandler serve`: run the resident workers as a service."""

import importlib
import os
import pkgutil
import signal
from contextlib import suppress

import pipehandler.parse
from pipehandler.parse.message import parse

from ..runtime import systemd
from ..settings.config import Config
from .listener import ServeError, listen
from .supervisor import Supervisor

_EXAMPLE = b"""\
From: =?euc-kr?b?vsbEqyC80r3E?= <a@example.org>
Subject: \xc5\xe9\xe8
Content-Type: multipart/mixed; boundary=b

--b
Content-Transfer-Encoding: quoted-printable

=C5=E9=E8 without a charset
--b
Content-Type: text/html; charset=gb2312
Content-Transfer-Encoding: base64

1tDOxA==
--b--
"""
_HTML_EXAMPLE = b"Content-Type: text/html\n\n<p>no other text\n"


def preload() -> None:
    """Load what parsing imports only where a message needs it, and fill its tables; before the fork, so that the workers share
    it and no message waits for it."""
    for module in pkgutil.iter_modules(pipehandler.parse.__path__, "pipehandler.parse."):
        importlib.import_module(module.name)
    for example in (_EXAMPLE, _HTML_EXAMPLE):
        parse(example)


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
    preload()
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
