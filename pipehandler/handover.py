"""Handing a delivery over to a resident worker: the entrypoint's side, and the words that both sides use.

The socket is a Unix socket of packets (SOCK_SEQPACKET); each line is one packet:

    entrypoint  deliver, INSTALLATION, parent, started, argv...    joined by NUL; and so on its way to a worker
    server      wait SECONDS     all workers are busy; in that time there is another answer
                cold             deliver it yourself: another version or configuration, or the end of service
                end STATUS LINE  it was not taken, and this is what to tell pipe(8)
                go SECONDS       from a worker: give me the descriptor; in that time there is an answer
    entrypoint  fd               with fd 0 as SCM_RIGHTS (unix(7)): the commit point of the hand-over
    server      end STATUS LINE

Until the descriptor is sent nobody else has seen the message, and whatever goes wrong means: deliver it here, cold. Afterwards
nothing here may deliver it any more, and whatever goes wrong is a temporary failure.

Imports only what is built into the interpreter: this is all that most deliveries load.
"""

import posix
import sys
from _signal import alarm  # type: ignore[import-not-found]
from _socket import AF_UNIX, SCM_RIGHTS, SO_PEERCRED, SOCK_SEQPACKET, SOL_SOCKET, socket

TYPE_CHECKING = False  # typing itself is too costly for every delivery
if TYPE_CHECKING:
    from collections.abc import Sequence

_FILE = posix.stat(__file__)
INSTALLATION = b"%x.%x.%x" % (_FILE.st_dev, _FILE.st_ino, _FILE.st_mtime_ns)
"""Which code this is: the same in two processes only if they were started from the same installation."""

LARGEST = 131_072
"""Octets of the largest packet that is taken; argv may be longer, and is delivered cold then."""

_DEAF = 1.0
"""Seconds after which nobody is believed to listen."""

_SPARE = 1.0
"""Seconds that are added to what the server promises."""

_LAST_SPARE = 60
"""Seconds after which the last alarm comes: time enough to deliver cold, should it come to that."""

_FAULT = 75, "4.3.0 internal fault"


def hand_over(argv: list[str], started: float) -> tuple[int, str] | None:
    """Let a worker deliver the message on fd 0, if argv names a socket; returns the exit status and the line for pipe(8).

    None: nobody has taken it, deliver it in this process. `started`: time.monotonic at the start.
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
        if word == "end" and _end(rest)[0]:  # not a success: nobody has the message
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
    """Wait so long and no longer; where that should fail, death by signal defers."""
    server.settimeout(seconds)
    alarm(int(seconds) + _LAST_SPARE)


def option(argv: "Sequence[str]", name: str) -> str:
    """The value of --NAME= among the options, or "" if it is not there."""
    for argument in argv:
        if argument == "--":
            break
        if argument.startswith(f"--{name}="):
            return argument[len(name) + 3 :]
    return ""


def deliver_packet(argv: list[str], parent: int, started: float) -> bytes:
    """The first packet. `parent`: the process id of pipe(8)."""
    words = ["deliver", INSTALLATION.decode("ascii"), str(parent), repr(started), *argv]
    return "\0".join(words).encode(sys.getfilesystemencoding(), "surrogateescape")


def _trusted(server: socket) -> bool:
    """Whether the socket is root's (systemd made it) or our own account's: nobody else shall be given mail."""
    return peer(server)[1] in (0, posix.geteuid())


def peer(connection: socket) -> tuple[int, int]:
    """The process id and the user id at the other end, as the kernel knows them (SO_PEERCRED, unix(7))."""
    told = connection.getsockopt(SOL_SOCKET, SO_PEERCRED, 12)
    return int.from_bytes(told[:4], sys.byteorder), int.from_bytes(told[4:8], sys.byteorder)


def _answer(server: socket) -> tuple[str, str]:
    """The word of one packet, and what follows it; "" at the end of the connection."""
    word, _, rest = server.recv(1000).decode("ascii").partition(" ")
    return word, rest


def _end(rest: str) -> tuple[int, str]:
    """STATUS LINE of an answer. Raises ValueError for what is none."""
    status, _, line = rest.partition(" ")
    return int(status), line
