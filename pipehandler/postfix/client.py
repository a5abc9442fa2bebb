"""The hand-over client (handover.c): how it is started, tried and installed.

It is started through the dynamic loader: execvp(3), which pipe(8) uses, runs an empty file with sh, and sh ends with 0. The
loader refuses a file that is empty or truncated. And it is installed as a file of its own, which is exchanged in one step:
pip writes into a file that exists already, and an environment that goes away must not take it along.
"""

import hashlib
import os
import shlex
import struct
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress

from pipehandler.settings.data_files import data_files

from .templates import THIS_INSTALLATION, Installation

PATH = "/usr/local/lib/pipehandler/client"
"""Where it is installed by default: outside of the environment, which an upgrade exchanges."""

OPTION = "--packages="
"""The client's only option; the interpreter follows."""

_SECONDS = 20
_PT_INTERP = 3

_TRIAL = "import posix,sys;posix.write(1,b'%a %d.%d'%('pipehandler_started' in sys._xoptions,*sys.version_info[:2]));posix._exit(75)"
"""Runs in place of a delivery. The option is the one that the client adds."""


Starter = Callable[[list[str]], tuple[int, str]]
"""Starts a command; returns its status and its output."""


class ClientError(Exception):
    """The client cannot be had or does not work; the text says why."""


def shipped() -> str:
    """Return the path of the client in this installation; "" if its wheel was built without a compiler."""
    path = str(data_files("bin") / "pipehandler-client")
    return path if os.path.isfile(path) else ""


def is_shipped(path: str) -> bool:
    """Whether the file has the content of the client in this installation. Raises OSError."""
    digests = []
    for name in (path, shipped()):
        with open(name, "rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").digest())
    return digests[0] == digests[1]


def start(path: str, installation: Installation = THIS_INSTALLATION) -> list[str]:
    """Return the words of argv in master.cf that come before the interpreter. Raises ClientError."""
    return [loader(installation.python), path, OPTION + installation.packages]


def loader(interpreter: str) -> str:
    """Return the dynamic loader of this host's programs: the one that the interpreter names (elf(5)). Raises ClientError."""
    try:
        with open(interpreter, "rb") as file:
            head = file.read(64)
            order = "<" if head[5:6] == b"\1" else ">"
            # The table of program headers; in an entry: type, offset, length. 64 bits, or 32.
            table, places, fields = ("Q", (32, 54), (0, 8, 32)) if head[4:5] == b"\2" else ("I", (28, 42), (0, 4, 16))
            (at,) = struct.unpack_from(order + table, head, places[0])
            size, count = struct.unpack_from(order + "2H", head, places[1])
            file.seek(at)
            headers = file.read(size * count)
            for header in range(0, size * count, size):
                (kind,) = struct.unpack_from(order + "I", headers, header + fields[0])
                offset, length = (struct.unpack_from(order + table, headers, header + each)[0] for each in fields[1:])
                if kind == _PT_INTERP:
                    file.seek(offset)
                    return os.fsdecode(file.read(length).rstrip(b"\0"))
    except (OSError, ValueError, struct.error) as error:
        raise ClientError(f"{interpreter}: {error}") from error
    raise ClientError(f"{interpreter} names no dynamic loader")


def try_out(words: Sequence[str], interpreter: str, run: Starter | None = None) -> str:
    """Start the client with `words`, as master.cf does, and let it become `interpreter`; return the version of Python.

    run: starts it; as this account by default. Raises ClientError.
    """
    packages = words[-1].removeprefix(OPTION)
    command = [*words, interpreter, "-I", "-S", "-X", "utf8", "-c", _TRIAL, packages, "deliver", "--", "trial"]
    try:
        status, output = (run or _run)(command)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClientError(str(error)) from error
    marked, _, version = output.partition(" ")
    if status != 75 or marked != "True" or not version.replace(".", "").isdecimal():
        said = " ".join(output.split())[:200]
        raise ClientError(f"{shlex.join(words)} left with status {status}" + (f": {said}" if said else ""))
    return version


def _run(command: list[str]) -> tuple[int, str]:
    done = subprocess.run(  # noqa: S603 # what master.cf runs for every message
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env={},
        timeout=_SECONDS,
    )
    return done.returncode, done.stdout


def install(path: str) -> None:
    """Put this installation's client at `path`, in one step and only if it works there. Raises ClientError."""
    source = shipped()
    if not source:
        raise ClientError(
            "this installation has no hand-over client: no C compiler worked when it was installed. With one"
            " (Debian: apt-get install gcc musl-tools), install pipehandler again"
        )
    folder = os.path.dirname(os.path.abspath(path))
    temporary = ""
    try:
        if not os.path.isdir(folder):
            os.makedirs(folder)
            os.chmod(folder, 0o755)  # noqa: S103 # whatever the umask: the account of the transport reads the client
        with open(source, "rb") as file:
            content = file.read()
        descriptor, temporary = tempfile.mkstemp(prefix=".client-", dir=folder)
        with open(descriptor, "wb") as new:
            new.write(content)
            os.fchmod(descriptor, 0o755)
            new.flush()
            os.fsync(descriptor)
        try_out(start(temporary), THIS_INSTALLATION.python)
        os.rename(temporary, path)
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise ClientError(f"{path}: {error.strerror}") from error
    finally:
        if temporary:
            with suppress(FileNotFoundError):
                os.unlink(temporary)


def usable(path: str, installation: Installation = THIS_INSTALLATION) -> str:
    """Return why the client at `path` cannot be used here, or ""."""
    try:
        try_out(start(path, installation), installation.python)
    except ClientError as error:
        return str(error)
    return ""
