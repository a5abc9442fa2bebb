"""Compare the files of the installation with the hashes that the wheels brought (RECORD): an unpacking that was interrupted, a disk
that fails, or a change by hand."""

import base64
import csv
import errno
import hashlib
import os
import shlex
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import PurePosixPath

from pipehandler.runtime.installation import PACKAGES

from .argv import NEW_ENVIRONMENT
from .finding import Finding

_CLOSED = f"cannot be read ({os.strerror(errno.EACCES)})"


def check_installation() -> list[Finding]:
    """Check pipehandler and the libraries that it needs, as installed for this interpreter."""
    damaged = [f"{path} {problem}" for name in PACKAGES for path, problem in _damaged(name)]
    if not damaged:
        return []
    closed = all(each.endswith(_CLOSED) for each in damaged)
    more = f", and {len(damaged) - 3} more" if len(damaged) > 3 else ""
    return [
        Finding(
            "files-damaged",
            f"files of the installation in {sys.prefix} are not those of the wheels: {'; '.join(damaged[:3])}{more}",
            "What delivers is not what was released and tested; mail may be deferred, or stored wrongly.",
            f"chmod -R o+rX {shlex.quote(sys.prefix)}" if closed else NEW_ENVIRONMENT,
        )
    ]


def _damaged(name: str) -> Iterator[tuple[str, str]]:
    """Yield each file of a package that differs from RECORD, with what is wrong. Bytecode has no hash there.

    RECORD has lines such as `pipehandler/fence.py,sha256=...,1234` (PyPA's specification of installed projects). It is read here,
    because from Python 3.12 on `Distribution.files` leaves out the files that are missing.
    """
    try:
        installed = distribution(name)
    except PackageNotFoundError:
        return
    for row in csv.reader((installed.read_text("RECORD") or "").splitlines()):
        if len(row) != 3:
            yield f"RECORD of {name}", "is truncated"
            return
        file, recorded, _ = row
        relative = PurePosixPath(file)
        if not recorded or relative.suffix == ".pyc" or ".." in relative.parts:
            continue
        path = str(installed.locate_file(relative))
        algorithm, _, expected = recorded.partition("=")
        try:
            with open(path, "rb") as opened:
                digest = hashlib.file_digest(opened, algorithm).digest()
        except FileNotFoundError:
            yield path, "is missing"
        except OSError as error:
            yield path, f"cannot be read ({error.strerror})"
        else:
            if base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii") != expected:
                yield path, "differs"
