"""`pipehandler serve`: run the resident workers as a service."""

import os
import signal
from contextlib import suppress

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
"""Both are parsed once before the fork, so that the workers share the modules and tables that parsing loads on demand."""


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
    for example in (_EXAMPLE, _HTML_EXAMPLE):
        parse(example)
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
