"""`pipehandler serve`: the resident workers as a service, from its socket to its end."""

import os
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
"""Parsed once before the workers are forked, so that they share what is loaded on the way."""


def serve(path: str, config: Config) -> None:
    """Run the service until a signal ends it; the socket is systemd's, or is made where the configuration says.

    `path`: where `config` comes from. Raises ServeError where it cannot start.
    """
    if os.geteuid() == 0:
        raise ServeError(
            "root shall not read mail; run it as the account of the transport: User= in a unit, or runuser -u"
        )
    os.umask(0o077)
    parse(_EXAMPLE)
    try:
        listener = systemd.listening_socket()
    except (OSError, ValueError) as error:
        raise ServeError(str(error)) from error
    if listener:
        Supervisor(listener, path, config).run()
        return
    name = config.serve.socket
    with listen(name) as listener:
        made = os.stat(name)
        try:
            Supervisor(listener, path, config).run()
        finally:
            with suppress(OSError):
                if os.path.samestat(os.stat(name), made):
                    os.unlink(name)
