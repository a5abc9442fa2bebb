"""Hand a delivery over to a resident worker: the entrypoint's side, and the words that both sides use.

The socket is a Unix socket of packets (SOCK_SEQPACKET); each line is one packet:

    entrypoint  deliver, INSTALLATION, parent, started, argv...    joined by NUL; passed on unchanged to a worker
    server      wait SECONDS     all workers are busy; the next answer comes within that time
                cold             deliver it yourself: another version or configuration, or the service is ending
                end STATUS LINE  the message was not taken; return this to pipe(8)
                go SECONDS       from a worker: send the descriptor; the answer comes within that time
    entrypoint  fd               with fd 0 as SCM_RIGHTS (unix(7)): the commit point of the hand-over
    server      end STATUS LINE

The first word of the first packet is the version of the protocol: a server that does not know it closes the connection, and
the message is delivered cold. handover.c is the same side without an interpreter.
The LMTP receiver (lmtp/handing.py) speaks the same protocol; its first packet says `lmtp`, and the last answer has a
STATUS LINE for each recipient, separated by LF.

Until the descriptor is sent no other process has seen the message, and any failure means: deliver it here, cold. Afterwards
this process must not deliver it, and any failure is temporary.

Imports only what is built into the interpreter: this is all that most deliveries load.
"""

import posix
import sys
from _signal import alarm  # type: ignore[import-not-found] # typeshed leaves it out
from _socket import AF_UNIX, SCM_RIGHTS, SO_PEERCRED, SOCK_SEQPACKET, SOL_SOCKET, socket

TYPE_CHECKING = False  # typing itself is too costly for every delivery
if TYPE_CHECKING:
    from collections.abc import Sequence

_FILE = posix.stat(__file__)
INSTALLATION = b"%x.%x.%x" % (_FILE.st_dev, _FILE.st_ino, _FILE.st_mtime_ns)
"""Identifies the installed code: equal in two processes only if they were started from the same installation."""

LARGEST = 131_072
"""Octets of the largest packet that is accepted; a message with a longer argv is delivered cold."""

_DEAF = 1.0
"""Seconds without an answer after which the socket counts as unattended."""

_SPARE = 1.0
"""Seconds added to what the server announces."""

_LAST_SPARE = 60
"""Seconds until the last alarm: enough to deliver cold if that becomes necessary."""

_FAULT = 75, "4.3.0 internal fault"


def hand_over(argv: list[str], started: float) -> tuple[int, str] | None:
    """Let a worker deliver the message on fd 0, if argv names a socket; return the exit status and the line for pipe(8).

    Returns None if no worker has taken it: deliver it in this process. `started`: time.monotonic at the start.
    """
    path = option(argv, "socket")
    if not path:
        return None
    try:
        server = socket(AF_UNIX, SOCK_SEQPACKET)
        if server.fileno() <= 2:
            return None  # a standard descriptor is closed
        _wait_for(server, _DEAF)
        server.connect(path)
        if not _trusted(server):
            return None
        server.send(deliver_packet(argv, posix.getppid(), started))
        word, rest = _answer(server)
        if word == "wait":
            _wait_for(server, int(rest) + _SPARE)
            word, rest = _answer(server)
        if word == "end" and _end(rest)[0]:  # never a success: no worker has the message
            return _end(rest)
        if word != "go":
            return None
        _wait_for(server, int(rest) + _SPARE)
        server.sendmsg([b"fd"], [(SOL_SOCKET, SCM_RIGHTS, bytes(4))])  # an int of 0: stdin
    except (OSError, ValueError, OverflowError):
        return None
    # From here on the message is the worker's.
    try:
        word, rest = _answer(server)
        return _end(rest) if word == "end" else _FAULT
    except (OSError, ValueError):
        return _FAULT


def _wait_for(server: socket, seconds: float) -> None:
    """Wait so long and no longer; if that fails, death by signal defers."""
    server.settimeout(seconds)
    alarm(int(seconds) + _LAST_SPARE)


def option(argv: "Sequence[str]", name: str) -> str:
    """Return the value of --NAME= among the options, or "" if it is missing."""
    for argument in argv:
        if argument == "--":
            break
        if argument.startswith(f"--{name}="):
            return argument[len(name) + 3 :]
    return ""


def deliver_packet(argv: list[str], parent: int, started: float, kind: str = "deliver") -> bytes:
    """Return the first packet. `parent`: the process id of pipe(8). `kind`: the first word."""
    words = [kind, INSTALLATION.decode("ascii"), str(parent), repr(started), *argv]
    return "\0".join(words).encode(sys.getfilesystemencoding(), "surrogateescape")


def _trusted(server: socket) -> bool:
    """Whether the socket belongs to root (systemd created it) or to our own account; no other process is given mail."""
    return peer(server)[1] in (0, posix.geteuid())


def peer(connection: socket) -> tuple[int, int]:
    """Return the process id and the user id at the other end, as the kernel knows them (SO_PEERCRED, unix(7))."""
    credentials = connection.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)
    return int.from_bytes(credentials[:4], sys.byteorder), int.from_bytes(credentials[4:8], sys.byteorder)


def _answer(server: socket) -> tuple[str, str]:
    """Receive one packet; return its first word, and the rest. The word is "" at the end of the connection."""
    word, _, rest = server.recv(1000).decode("ascii").partition(" ")
    return word, rest


def _end(rest: str) -> tuple[int, str]:
    """Parse STATUS LINE of an answer. Raises ValueError for anything else."""
    status, _, line = rest.partition(" ")
    if not 0 <= int(status) <= 255:
        raise ValueError(f"{status} is not an exit status")  # exit(3) keeps eight bits: 256 would be a success
    return int(status), line
