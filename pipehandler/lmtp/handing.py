"""Hand one complete message over to a resident worker: what the entrypoint does for pipe(8), without waiting.

The protocol is that of handover.py, with two differences. The first packet says `lmtp`, and the worker's answer has one
line for each recipient. Whatever comes that is not foreseen, after a worker may have the message, is no reply at all:
the client loses its connection, and delivers the message again.
"""

import os
import re
import socket
import time
from collections.abc import Sequence

from ..handover import LARGEST, deliver_packet, peer
from ..mail.outcome import CONGESTED, Outcome
from .dialogue import Transaction

KIND = "lmtp"
"""The first word of the packet to the supervisor."""

_SPARE = 1.0
"""Seconds added to what the service announces."""

_LINE = re.compile(r"(\d{1,3}) (([245])\.\d{1,3}\.\d{1,3} [ -~]*)")
_CODES = {"2": "250", "4": "451", "5": "550"}
_OWN_CODES = {"4.3.1": "452", "5.3.4": "552"}
"""Where RFC 5321 4.2.3 has another reply code for an enhanced status code than that of its class."""


class Lost(Exception):
    """It is not known what became of the message; the text says why."""


def arguments(transaction: Transaction, config: str, size: int, trust_orcpt: bool) -> list[str]:
    """Return the envelope as argv, as pipe(8) would pass it. config: the path of the configuration. size: octets."""
    known = transaction.forwarded
    options = {
        "sender": transaction.mail.sender,
        "queue-id": known.get(b"IDENT", b""),
        "client-address": known.get(b"ADDR", b""),
        # lmtp(8) leaves out a name that is unknown, and pipe(8) says so.
        "client-hostname": known.get(b"NAME", b"") or (b"unknown" if known.get(b"ADDR") else b""),
        "client-helo": known.get(b"HELO", b""),
        "client-port": _number(known.get(b"PORT", b"")),
        "client-protocol": known.get(b"PROTO", b""),
    }
    originals = [each.original for each in transaction.recipients] if trust_orcpt else []
    return [
        f"--config={config}",
        f"--size={size}",
        *(f"--{name}={os.fsdecode(value)}" for name, value in options.items()),
        *(f"--original-recipient={os.fsdecode(original)}" for original in originals),
        "--",
        *(os.fsdecode(each.address) for each in transaction.recipients),
    ]


def _number(value: bytes) -> bytes:
    return value if value.isdigit() else b""


class HandingOver:
    """One message on its way to a worker.

    service: the path of the service's socket. file: the descriptor of the message. recipients: how many replies are
    expected. seconds: for the first answer. `until`: when to give up (time.monotonic).
    """

    def __init__(self, service: str, argv: Sequence[str], file: int, recipients: int, seconds: float) -> None:
        now = time.monotonic()
        self.until = now + seconds
        self._file = file
        self._recipients = recipients
        self._given = False
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            self.socket.connect(service)
            if peer(self.socket)[1] not in (0, os.geteuid()):
                raise OSError("the service is of another account")
            self.socket.send(deliver_packet(list(argv), os.getpid(), now, KIND))
        except OSError:
            self.socket.close()
            raise

    def receive(self) -> list[str] | None:
        """Take the packet that has come; return the replies for all recipients if it is the last. Raises Lost."""
        try:
            word, _, rest = self.socket.recv(LARGEST).decode("ascii").partition(" ")
        except BlockingIOError:
            return None
        except (OSError, ValueError) as error:
            return self._nothing(str(error))
        if word == "end":
            return self._replies(rest)
        if self._given or word not in ("wait", "go") or not rest.isdigit():
            return self._nothing(f"the service answered {word!r}")
        self.until = time.monotonic() + int(rest) + _SPARE
        if word == "go":
            try:
                socket.send_fds(self.socket, [b"fd"], [self._file])
            except OSError as error:
                return self._nothing(str(error))
            self._given = True
        return None

    def _nothing(self, reason: str) -> list[str]:
        """Without a worker that may have the message, all recipients can wait; otherwise raise Lost."""
        if self._given:
            raise Lost(reason)
        return [reply(CONGESTED)] * self._recipients

    def _replies(self, text: str) -> list[str]:
        lines = [_LINE.fullmatch(line) for line in text.split("\n")]
        if not self._given and len(lines) == 1:  # no worker was free
            lines *= self._recipients
        replies = [_reply(found[2], found[3]) for found in lines if found and (found[1] == "0") == (found[3] == "2")]
        if len(replies) != self._recipients or (not self._given and any(each[0] == "2" for each in replies)):
            raise Lost(f"the service sent {len(replies)} replies for {self._recipients} recipients")
        return replies


def reply(outcome: Outcome) -> str:
    """Return the reply for an outcome."""
    return _reply(outcome.line(), outcome.code[0])


def _reply(line: str, status_class: str) -> str:
    return f"{_OWN_CODES.get(line.partition(' ')[0], _CODES[status_class])} {line}"
