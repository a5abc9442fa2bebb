"""One LMTP session as a value: octets of the client in, events out, without I/O and without a clock.

It takes any octets, cut anywhere, in linear time, and holds no more than one line of them. Named sections are those of
the RFC 5321, unless another is named.

    Reply    octets for the client
    Data     DATA was accepted: the receiver makes room, and then calls `proceed` or `postpone`
    Content  octets of the message, without the dots that the client added
    Message  the message is complete: the receiver delivers it, and then calls `answer`
    Quit     the client leaves

After Data and Message nothing happens until the receiver has decided, however much the client has sent.
"""

from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

from .command import FORWARDED, Mail, Recipient, Refused, forwarded, mail, recipient
from .unstuffing import Unstuffer

LONGEST_LINE = 65_536
"""The octets of the longest command; 4.5.3.1.4 asks for 512, but addresses may be longer in a queue file."""

MOST_RECIPIENTS = 1000
"""The most recipients of one message; 4.5.3.1.8 asks for 100."""

MOST_OCTETS = 100_000
"""The most octets of a message's addresses in all, so that they fit into one packet to a worker."""

_EXTENSIONS = (
    "PIPELINING",  # RFC 2920
    "SIZE",  # RFC 1870 4: without a limit; limits.message_size is decided when the message is there, as with pipe(8)
    "8BITMIME",  # RFC 6152
    "SMTPUTF8",  # RFC 6531
    "ENHANCEDSTATUSCODES",  # RFC 2034
    "DSN",  # RFC 3461
    f"XFORWARD {b' '.join(FORWARDED).decode('ascii')}",  # XFORWARD_README of Postfix
)


class Transaction(NamedTuple):
    """MAIL, its RCPTs in their order, and what XFORWARD says of the client."""

    mail: Mail
    recipients: list[Recipient]
    forwarded: dict[bytes, bytes]


class Reply(NamedTuple):
    """Octets for the client."""

    octets: bytes


class Data(NamedTuple):
    """DATA was accepted for a transaction."""

    transaction: Transaction


class Content(NamedTuple):
    """The next octets of the message."""

    octets: bytes


class Message(NamedTuple):
    """The final dot: the message of the transaction is complete."""

    transaction: Transaction


class Quit:
    """The session ends."""


Event = Reply | Data | Content | Message | Quit


class Dialogue:
    """The session with one client. `host`: our name in the greeting."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._input = bytearray()
        self._searched = 0  # octets of the input without the end of a line
        self._too_long = False  # the rest of a line is skipped
        self._greeted = False
        self._mail: Mail | None = None
        self._recipients: list[Recipient] = []
        self._octets = 0  # of the addresses
        self._forwarded: dict[bytes, bytes] = {}
        self._text: Unstuffer | None = None  # of the message that is coming in
        self._held = False
        self._ended = False

    @property
    def greeting(self) -> bytes:
        """What the client hears first (4.3.1)."""
        return _line(f"220 {self._host} LMTP pipehandler")

    @property
    def is_idle(self) -> bool:
        """Whether there is no transaction, so that closing costs the client nothing."""
        return self._mail is None and not self._input

    def feed(self, octets: bytes) -> Iterator[Event]:
        """Take octets of the client; yield what they mean. To be run to its end."""
        self._input += octets
        return self._run()

    def proceed(self) -> Iterator[Event]:
        """After Data: let the message come."""
        self._text, self._held = Unstuffer(), False
        yield Reply(_line("354 end the message with a dot"))
        yield from self._run()

    def postpone(self, reply: str) -> Iterator[Event]:
        """After Data: take no message now; the reply counts for all recipients (RFC 2033 4.2)."""
        return self._finish(_line(reply))

    def answer(self, replies: Sequence[str]) -> Iterator[Event]:
        """After Message: one reply for each recipient, in their order (RFC 2033 4.2). Raises ValueError for any other
        number: a client would take the reply to its next command for one of them."""
        if len(replies) != len(self._recipients):
            raise ValueError(f"{len(replies)} replies for {len(self._recipients)} recipients")
        return self._finish(b"".join(map(_line, replies)))

    def _finish(self, reply: bytes) -> Iterator[Event]:
        self._held = False
        self._reset()
        yield Reply(reply)
        yield from self._run()

    def _reset(self) -> None:
        """Forget the transaction, and what XFORWARD said: each value is for one message."""
        self._mail, self._recipients, self._octets, self._forwarded = None, [], 0, {}

    def _run(self) -> Iterator[Event]:
        while self._input and not self._held and not self._ended:
            if self._text:
                yield from self._receive(self._text)
                continue
            line = self._next_line()
            if line is None:
                return
            yield from self._obey(line)

    def _receive(self, text: Unstuffer) -> Iterator[Event]:
        content, rest = text.feed(bytes(self._input))
        self._input = bytearray(rest or b"")
        if content:
            yield Content(content)
        if rest is not None:
            self._text, self._held = None, True
            yield Message(self._transaction())

    def _next_line(self) -> bytes | None:
        """Return the next command without its line end; b"\\n", which is none, for one that is too long."""
        end = self._input.find(b"\r\n", self._searched)
        if end < 0:
            self._searched = max(0, len(self._input) - 1)
            if len(self._input) > LONGEST_LINE:
                self._too_long = True
                del self._input[:-1]
                self._searched = 0
            return None
        line = b"\n" if self._too_long or end > LONGEST_LINE else bytes(self._input[:end])
        del self._input[: end + 2]
        self._searched, self._too_long = 0, False
        return line

    def _obey(self, line: bytes) -> Iterator[Event]:
        verb, _, argument = line.partition(b" ")
        command = self._COMMANDS.get(verb.upper())
        if any(octet in line for octet in (b"\0", b"\r", b"\n")):
            yield Reply(_line("451 4.5.2 not a command line"))
        elif command is None:  # RFC 2033 4.1: this is the reply to HELO and EHLO as well
            yield Reply(_line("500 5.5.1 command not recognised"))
        else:
            try:
                yield from command(self, argument.strip())
            except Refused as refusal:
                yield Reply(_line(str(refusal)))

    def _lhlo(self, _: bytes) -> Iterator[Event]:
        self._greeted = True
        self._reset()
        words = [self._host, *_EXTENSIONS]
        yield Reply(b"".join(_line(f"250{'-' if word != words[-1] else ' '}{word}") for word in words))

    def _xforward(self, argument: bytes) -> Iterator[Event]:
        if self._mail:
            raise Refused("503 5.5.1 XFORWARD comes before MAIL")
        self._forwarded |= forwarded(argument)
        yield Reply(_line("250 2.0.0 noted"))

    def _begin(self, argument: bytes) -> Iterator[Event]:
        if not self._greeted or self._mail:
            raise Refused("503 5.5.1 MAIL comes after LHLO, once for a message")
        self._mail = mail(argument)
        self._octets = len(self._mail.sender)
        yield Reply(_line("250 2.1.0 sender noted"))

    def _add(self, argument: bytes) -> Iterator[Event]:
        if not self._mail:
            raise Refused("503 5.5.1 RCPT comes after MAIL")
        added = recipient(argument)
        octets = self._octets + len(added.address) + len(added.original) + 100
        if len(self._recipients) >= MOST_RECIPIENTS or octets > MOST_OCTETS:
            raise Refused(
                "452 4.5.3 too many recipients"
            )  # 4.5.3.1.10: the client sends the message again for the rest
        self._recipients.append(added)
        self._octets = octets
        yield Reply(_line("250 2.1.5 recipient noted"))

    def _data(self, _: bytes) -> Iterator[Event]:
        if not self._recipients:
            raise Refused("503 5.5.1 DATA comes after RCPT")  # RFC 2033 4.2, where no RCPT succeeded
        self._held = True
        yield Data(self._transaction())

    def _rset(self, _: bytes) -> Iterator[Event]:
        self._reset()
        yield Reply(_line("250 2.0.0 forgotten"))

    def _noop(self, _: bytes) -> Iterator[Event]:
        yield Reply(_line("250 2.0.0 here"))

    def _vrfy(self, _: bytes) -> Iterator[Event]:
        yield Reply(_line("252 2.5.0 decided on delivery"))

    def _quit(self, _: bytes) -> Iterator[Event]:
        self._ended = True
        yield Reply(_line("221 2.0.0 bye"))
        yield Quit()

    _COMMANDS: ClassVar = {
        b"LHLO": _lhlo,
        b"XFORWARD": _xforward,
        b"MAIL": _begin,
        b"RCPT": _add,
        b"DATA": _data,
        b"RSET": _rset,
        b"NOOP": _noop,
        b"VRFY": _vrfy,
        b"QUIT": _quit,
    }

    def _transaction(self) -> Transaction:
        assert self._mail is not None  # noqa: S101 # RCPT comes after MAIL
        return Transaction(self._mail, self._recipients, self._forwarded)


def _line(text: str) -> bytes:
    return text.encode("ascii", "replace") + b"\r\n"
