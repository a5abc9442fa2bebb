"""A client of the LMTP receiver, octet by octet, and the service that it talks to."""

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .handler import Handler
from .service import Service, wait_until

SECONDS = 60


def stuffed(message: bytes) -> bytes:
    """A message as lmtp(8) sends it, with its end."""
    lines = message.removesuffix(b"\n").split(b"\n") if message else []
    return b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines) + b".\r\n"


def dialogue(message: bytes, *recipients: str, sender: str = "sender@example.org") -> bytes:
    """All that lmtp(8) sends for one message."""
    rcpt = "".join(f"RCPT TO:<{recipient}>\r\n" for recipient in recipients or ("user@example.com",))
    head = f"LHLO mx\r\nXFORWARD IDENT=4jX1870rppzJDj5\r\nMAIL FROM:<{sender}> SIZE={len(message)}\r\n{rcpt}DATA\r\n"
    return head.encode() + stuffed(message) + b"QUIT\r\n"


class Client:
    """One connection to a socket."""

    def __init__(self, path: Path | tuple[str, int]) -> None:
        self.socket = socket.socket(socket.AF_UNIX if isinstance(path, Path) else socket.AF_INET)
        self.socket.settimeout(SECONDS)
        try:
            self.socket.connect(str(path) if isinstance(path, Path) else path)
        except OSError:
            self.socket.close()
            raise
        self._input = self.socket.makefile("rb")

    def send(self, octets: bytes) -> None:
        """Send octets; the other end may have closed."""
        try:
            self.socket.sendall(octets)
        except (BrokenPipeError, ConnectionResetError):
            return

    def reply(self) -> str:
        """The last line of the next reply, "" when the connection is closed."""
        while True:
            try:
                line = self._input.readline()
            except ConnectionResetError:
                return ""
            if line[3:4] != b"-":
                return line.decode("ascii").rstrip("\r\n")

    def replies(self) -> list[str]:
        """All replies until the connection is closed."""
        return list(iter(self.reply, ""))

    def close(self) -> None:
        """Close it."""
        self._input.close()
        self.socket.close()


class Receiving:
    """A running service with its LMTP socket."""

    def __init__(self, handler: Handler, service: Service) -> None:
        self.handler = handler
        self.service = service
        self.path = handler.folder / "lmtp"

    def client(self) -> Client:
        """A new connection, whose greeting has been read."""
        client = Client(self.path)
        assert client.reply().startswith("220 ")
        return client

    def deliver(self, message: bytes, *recipients: str, sender: str = "sender@example.org") -> list[str]:
        """Deliver a message in one piece; the replies behind its dot, without the one to QUIT."""
        client = Client(self.path)
        client.send(dialogue(message, *recipients, sender=sender))
        replies = client.replies()
        client.close()
        dot = next((number for number, reply in enumerate(replies) if reply.startswith("354 ")), len(replies))
        return [reply for reply in replies[dot + 1 :] if not reply.startswith("221 ")]

    def receiver(self) -> int:
        """The process id of the receiver, which has no connection to the database: it listens on the LMTP socket."""
        wait_until(self.path.exists, "the LMTP socket")
        with open("/proc/net/unix") as table:
            (inode,) = {
                line.split()[6] for line in table if line.rstrip().endswith(f" {self.path}") and line.split()[5] == "01"
            }
        found: list[int] = []

        def look() -> bool:  # it may be about to be replaced
            found[:] = [pid for pid in self.service.workers() if f"socket:[{inode}]" in _files(pid)]
            return bool(found)

        wait_until(look, "the receiver")
        return found[0]


def _files(pid: int) -> Sequence[str]:
    found = []
    with suppress(FileNotFoundError):  # it has ended, or closed one meanwhile
        for name in os.listdir(f"/proc/{pid}/fd"):
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return found


@contextmanager
def receiving(
    handler: Handler,
    deadline: int = 10,
    limits: dict[str, object] | None = None,
    program: Path | None = None,
    **lmtp: object,
) -> Iterator[Receiving]:
    """Run the service of `handler` with an LMTP socket that this account may use. `lmtp`: further keys of [lmtp]."""
    handler.configure(
        handler.conninfo,
        serve={"workers": 2, "queue_timeout": 2},
        limits={"deadline": deadline, "parse_timeout": 4, **(limits or {})},
        lmtp={"socket": str(handler.folder / "lmtp"), "accounts": [str(os.geteuid())], **lmtp},
    )
    with Service(handler, program=program) as service:
        yield Receiving(handler, service)
