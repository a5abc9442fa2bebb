"""The dialogue: every command, every cut, and any octets at all."""

import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from harness.cpu import seconds
from hypothesis import given, settings
from hypothesis import strategies as st

from pipehandler.lmtp import dialogue as module
from pipehandler.lmtp.dialogue import Content, Data, Dialogue, Event, Message, Quit, Reply, Transaction


class Heard(NamedTuple):
    """What a client hears, and what the receiver gets."""

    replies: bytes
    messages: list[tuple[Transaction, bytes]]
    left: bool


def held(client: Dialogue, octets: bytes, cuts: list[int] | None = None) -> Heard:
    """Run a dialogue: the receiver lets every message come, and answers `250 NUMBER` for each recipient."""
    replies, messages, left, content = bytearray(client.greeting), [], False, b""

    def take(events: Iterator[Event]) -> None:
        nonlocal left, content
        following = None
        for event in events:
            if isinstance(event, Reply):
                replies.extend(event.octets)
            elif isinstance(event, Data):
                content, following = b"", client.proceed()
            elif isinstance(event, Content):
                content += event.octets
            elif isinstance(event, Message):
                messages.append((event.transaction, content))
                following = client.answer([f"250 {number}" for number in range(len(event.transaction.recipients))])
            elif isinstance(event, Quit):
                left = True
        if following is not None:
            take(following)

    places = sorted({0, len(octets), *(cut % (len(octets) + 1) for cut in cuts or [])})
    for begin, end in pairwise(places):
        take(client.feed(octets[begin:end]))
    return Heard(bytes(replies), messages, left)


def codes(replies: bytes) -> list[str]:
    """The code of each reply; a reply of several lines counts once."""
    return [line[:3].decode("ascii") for line in replies.split(b"\r\n")[:-1] if line[3:4] == b" "]


POSTFIX = (
    b"LHLO mx.example.net\r\n"
    b"XFORWARD ADDR=192.0.2.1 PORT=4711 NAME=client.example.org\r\n"
    b"XFORWARD PROTO=ESMTP HELO=client+2Eexample.org IDENT=4jX1870rppzJDj5 SOURCE=REMOTE\r\n"
    b"MAIL FROM:<sender@example.org> SIZE=1234 BODY=8BITMIME SMTPUTF8 ENVID=1 RET=HDRS\r\n"
    b"RCPT TO:<one@example.com> ORCPT=rfc822;alias+2Bx@example.com NOTIFY=SUCCESS\r\n"
    b'RCPT TO:<"we ird\\" one"@example.com>\r\n'
    b"DATA\r\n"
    b"Subject: one\r\n\r\n..dot\r\n.\r\n"
    b"QUIT\r\n"
)
"""What lmtp(8) of Postfix 3.7 sends, with all it has."""


@given(cuts=st.lists(st.integers(0, 10_000), max_size=20))
def test_every_cut_of_a_dialogue(cuts: list[int]) -> None:
    """The dialogue of lmtp(8) means the same wherever it is cut."""
    heard = held(Dialogue("mx.example.com"), POSTFIX, cuts)
    assert heard == held(Dialogue("mx.example.com"), POSTFIX)
    ((transaction, message),) = heard.messages
    assert message == b"Subject: one\n\n.dot\n"
    assert transaction.mail == (b"sender@example.org", 1234)
    assert transaction.recipients == [
        (b"one@example.com", b"alias+x@example.com"),
        (b'we ird" one@example.com', b""),
    ]
    assert transaction.forwarded[b"IDENT"] == b"4jX1870rppzJDj5"
    assert transaction.forwarded[b"HELO"] == b"client.example.org"
    assert codes(heard.replies) == ["220", "250", "250", "250", "250", "250", "250", "354", "250", "250", "221"]
    assert heard.left


def test_octet_by_octet() -> None:
    """Nor does it matter if each octet comes alone."""
    assert held(Dialogue("mx"), POSTFIX, list(range(len(POSTFIX)))) == held(Dialogue("mx"), POSTFIX)


def test_lhlo_announces_what_is_understood() -> None:
    """Each extension, one on a line; the last line has a blank (RFC 5321 4.1.1.1)."""
    replies = held(Dialogue("mx.example.com"), b"LHLO x\r\n").replies.split(b"\r\n")[1:-1]
    assert [line[:4] for line in replies] == [b"250-"] * 7 + [b"250 "]
    words = {line[4:].split(b" ")[0].decode("ascii") for line in replies}
    extensions = {"PIPELINING", "SIZE", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN", "XFORWARD"}
    assert words == {"mx.example.com", *extensions}


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (b"HELO x", "500"),  # RFC 2033 4.1
        (b"EHLO x", "500"),
        (b"BDAT 1 LAST", "500"),
        (b"noop", "250"),
        (b"VRFY user", "252"),
        (b"rset", "250"),
        (b"MAIL FROM:<a@example.org> SIZE=10 BODY=BINARYMIME", "455"),
        (b"MAIL FROM:<a@example.org> FUTURE=1", "455"),
        (b"MAIL FROM:<a@example.org", "451"),
        (b"MAIL FROM:a@example.org", "451"),
        (b"MAIL TO:<a@example.org>", "451"),
        (b"MAIL FROM:<a\0b@example.org>", "451"),
        (b"MAIL FROM:<a\rb@example.org>", "451"),
        (b"MAIL FROM:<a\nb@example.org>", "451"),
        (b"MAIL FROM:<>", "250"),
        (b"mail from: <a@example.org>", "250"),
        (b"MAIL FROM:<@relay.example:a@example.org> SIZE=", "250"),
        (b"XFORWARD NAME=[UNAVAILABLE] FUTURE=1 ADDR", "250"),
        (b"RCPT TO:<a@example.com>", "503"),
        (b"DATA", "503"),
        (b"", "500"),
        (b"x" * 70_000, "451"),
    ],
)
def test_commands(command: bytes, code: str) -> None:
    """Each command has one reply, and the next one is understood. Nothing that is malformed has a permanent one."""
    heard = held(Dialogue("mx"), b"LHLO x\r\n" + command + b"\r\nNOOP\r\n")
    assert codes(heard.replies) == ["220", "250", code, "250"]


def test_recipients_are_refused_one_by_one() -> None:
    """A recipient that is refused has no reply after the dot; one that is named twice has two (RFC 2033 4.2)."""
    commands = b"RCPT TO:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<a@b\r\nRCPT TO:<a@b>\r\nDATA\r\n.\r\n"
    heard = held(Dialogue("mx"), b"LHLO x\r\nMAIL FROM:<>\r\n" + commands)
    assert codes(heard.replies) == ["220", "250", "250", "451", "250", "451", "250", "354", "250", "250"]
    ((transaction, message),) = heard.messages
    assert [recipient.address for recipient in transaction.recipients] == [b"a@b", b"a@b"]
    assert message == b""


def test_too_many_recipients_wait() -> None:
    """Those that are too many get a temporary reply, and the others are delivered."""
    rcpt = b"".join(b"RCPT TO:<%d@example.com>\r\n" % number for number in range(module.MOST_RECIPIENTS + 2))
    heard = held(Dialogue("mx"), b"LHLO x\r\nMAIL FROM:<>\r\n" + rcpt + b"DATA\r\n.\r\n")
    assert codes(heard.replies).count("452") == len(rcpt.splitlines()) - len(heard.messages[0][0].recipients) > 0


def test_long_addresses_fit_into_a_packet() -> None:
    """The addresses of one message are bounded together, too: they go to the worker in one packet."""
    rcpt = b"".join(b"RCPT TO:<%s%d@example.com>\r\n" % (b"x" * 20_000, number) for number in range(10))
    heard = held(Dialogue("mx"), b"LHLO x\r\nMAIL FROM:<>\r\n" + rcpt + b"DATA\r\n.\r\n")
    ((transaction, _),) = heard.messages
    assert sum(len(each.address) for each in transaction.recipients) < module.MOST_OCTETS
    assert codes(heard.replies).count("452") == 10 - len(transaction.recipients)


def test_forwarded_values_are_for_one_message() -> None:
    """What XFORWARD says of one client is not said of the next one."""
    message = b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\n.\r\n"
    heard = held(Dialogue("mx"), b"LHLO x\r\nXFORWARD NAME=one IDENT=1\r\n" + message + message)
    assert [transaction.forwarded for transaction, _ in heard.messages] == [{b"NAME": b"one", b"IDENT": b"1"}, {}]


@pytest.mark.parametrize(
    ("value", "original"),
    [
        (b"rfc822;a+2Bb@example.com", b"a+b@example.com"),
        (b"RFC822;a@example.com", b"a@example.com"),
        ("utf-8;gr\\x{FC}n@example.com".encode("ascii"), "grün@example.com".encode()),
        ("utf-8;grün@example.com".encode(), "grün@example.com".encode()),
        (b"utf-8;\\x{D800}\\x{110000}", b"\\x{D800}\\x{110000}"),
        (b"x400;a", b""),
        (b"rfc822;a+00b", b""),
        (b"rfc822", b""),
        (b"", b""),
    ],
)
def test_original_recipient(value: bytes, original: bytes) -> None:
    """ORCPT (RFC 3461 4.2, RFC 6533 3); one that cannot be read is left out, because the sender may have chosen it."""
    commands = b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b> ORCPT=" + value + b"\r\nDATA\r\n.\r\n"
    ((transaction, _),) = held(Dialogue("mx"), commands).messages
    assert transaction.recipients[0].original == original


def test_wrong_number_of_replies() -> None:
    """A reply too few would let the client take the next one for it: it would see mail as delivered that is not."""
    client = Dialogue("mx")
    for event in client.feed(b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n"):
        assert not isinstance(event, Message)
    list(client.proceed())
    assert [type(event) for event in client.feed(b".\r\nQUIT\r\n")] == [Message]
    for number in (0, 1, 3):
        with pytest.raises(ValueError, match=f"{number} replies for 2 recipients"):
            client.answer(["250 2.0.0 stored"] * number)


def test_nothing_is_said_until_the_receiver_decides() -> None:
    """After DATA and after the dot the dialogue waits, whatever the client sends on."""
    client = Dialogue("mx")
    assert list(client.feed(b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nNOOP\r\n"))[-1] == Data(
        Transaction((b"", None), [(b"a@b", b"")], {})  # type: ignore[arg-type, list-item]
    )
    assert list(client.feed(b"NOOP\r\n")) == []
    replies = b"".join(event.octets for event in client.postpone("451 4.4.5 later") if isinstance(event, Reply))
    assert codes(replies) == ["451", "250", "250"]


WORDS = st.sampled_from(
    (
        *(b"LHLO x", b"MAIL FROM:<", b"RCPT TO:<", b">", b"a@b", b"DATA", b".", b"RSET", b"QUIT", b"NOOP", b"BDAT 1"),
        *(
            b"\r\n",
            b"\r",
            b"\n",
            b"\0",
            b'"',
            b"\\",
            b" ",
            b"+4",
            b"\xff",
            b" SIZE=",
            b" ORCPT=rfc822;",
            b"XFORWARD NAME=",
        ),
    )
)
REPLY = re.compile(rb"(?:[245][0-9]{2}-[ -~]*\r\n)*[2345][0-9]{2} [ -~]*\r\n")


@settings(max_examples=300)
@given(words=st.lists(WORDS, max_size=60), cuts=st.lists(st.integers(0, 10_000), max_size=10))
def test_any_octets(words: list[bytes], cuts: list[int]) -> None:
    """Whatever comes, there is one well-formed reply for each command, cut or not; no permanent one but for a command
    that is unknown or out of order."""
    octets = b"".join(words)
    heard = held(Dialogue("mx"), octets, cuts)
    assert heard == held(Dialogue("mx"), octets)
    assert REPLY.sub(b"", heard.replies) == b""
    assert {code for code in codes(heard.replies) if code[0] == "5"} <= {"500", "503"}


@pytest.mark.parametrize("unit", [b"a", b"\r", b"\r\n.", b'"', b'MAIL FROM:<"', b"RCPT TO:<\\", b"\r\n"])
def test_linear(unit: bytes) -> None:
    """Twice the octets take about twice the time, also octet by octet: no loop within a loop."""

    def once(count: int) -> float:
        octets = unit * count
        return seconds(lambda: held(Dialogue("mx"), octets, list(range(0, len(octets), 3))))

    assert once(40_000) < 10 * max(once(10_000), 0.001)


@pytest.mark.parametrize("commands", [20_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_fuzz(commands: int) -> None:
    """tests/unit/lmtp/fuzz.py, with another seed each time, which it prints."""
    path = Path(__file__).with_name("fuzz.py")
    done = subprocess.run([sys.executable, path, str(commands)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.splitlines()[1].split()[0]) > commands / 400
