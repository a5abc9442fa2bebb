"""Load everything that parsing may need: the modules and libraries that are otherwise imported on use, and tables."""

import importlib
import pkgutil

import pipehandler.parse

from .message import parse

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


def load_all() -> None:
    """Load everything. If a module cannot be loaded, its exception passes through."""
    for module in pkgutil.iter_modules(pipehandler.parse.__path__, "pipehandler.parse."):
        importlib.import_module(module.name)
    for example in (_EXAMPLE, _HTML_EXAMPLE):
        parse(example)
