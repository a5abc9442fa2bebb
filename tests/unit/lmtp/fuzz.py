"""Fuzz the dialogue for as long as you want: python tests/unit/lmtp/fuzz.py [COMMANDS] [SEED].

Random commands, words and octets, cut at random places. Every session must end as it does uncut, with well-formed replies,
and with one reply for each recipient after each final dot.
"""

import random
import re
import sys
from collections.abc import Iterator
from itertools import pairwise

from pipehandler.lmtp.dialogue import LONGEST_LINE, Content, Data, Dialogue, Event, Message, Reply

WORDS = (
    *(b"MAIL FROM:<>\r\nRCPT TO:<a@b>\r\n", b"RCPT TO:<c@d>\r\nDATA\r\n", b"DATA\r\n..\r\n", b"x\r\n.\r\n"),
    *(
        b"LHLO x\r\n",
        b"MAIL FROM:<a@b>\r\n",
        b"MAIL FROM:<>\r\n",
        b"RCPT TO:<a@b>\r\n",
        b"RCPT TO:<c@d> ORCPT=rfc822;x\r\n",
    ),
    *(
        b"DATA\r\n",
        b".\r\n",
        b"text\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"QUIT ",
        b"XFORWARD NAME=a IDENT=+41\r\n",
        b"HELO x\r\n",
    ),
    *(
        b"MAIL FROM:<",
        b"RCPT TO:<",
        b">",
        b"@",
        b":",
        b"\r\n",
        b"\r",
        b"\n",
        b"\0",
        b'"',
        b"\\",
        b" ",
        b"+0",
        b"\xff",
        b" SIZE=9",
    ),
    *(b" ORCPT=utf-8;\\x{41}", b"[UNAVAILABLE]", b"BDAT 1 LAST\r\n", b"VRFY x\r\n", b"x" * (LONGEST_LINE + 1)),
)
REPLIES = re.compile(rb"(?:(?:250-[ -~]*\r\n)*[2345][0-9]{2} [ -~]*\r\n)*")


def session(octets: bytes, cuts: list[int]) -> tuple[bytes, bytes]:
    """Run a session; return what the client hears and what the messages contain."""
    client, heard, content = Dialogue("mx"), bytearray(), bytearray()
    for begin, end in pairwise(sorted({0, len(octets), *cuts})):
        events: Iterator[Event] | None = client.feed(octets[begin:end])
        while events is not None:
            following: Iterator[Event] | None = None
            for event in events:
                if isinstance(event, Reply):
                    heard += event.octets
                elif isinstance(event, Content):
                    content += event.octets
                elif isinstance(event, Data):
                    following = client.proceed()
                elif isinstance(event, Message):
                    recipients = len(event.transaction.recipients)
                    assert recipients > 0
                    heard += b"250 message of %d\r\n" % recipients
                    following = client.answer(["250 2.0.0 stored"] * recipients)
            events = following
    return bytes(heard), bytes(content)


def fuzz(commands: int, seed: int) -> int:
    """Run sessions until there were so many commands; return how many messages came out."""
    chance, messages = random.Random(seed), 0
    while commands > 0:
        words = chance.choices(WORDS, [1] * (len(WORDS) - 1) + [0.02], k=chance.randrange(1, 60))
        octets = b"LHLO x\r\n" + b"".join(words)
        commands -= len(words)
        whole = session(octets, [])
        assert REPLIES.fullmatch(whole[0]), octets
        cuts = [chance.randrange(len(octets) + 1) for _ in range(chance.randrange(8))]
        assert session(octets, cuts) == whole, (octets, cuts)
        messages += whole[0].count(b"250 message of ")
    return messages


if __name__ == "__main__":
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    sys.stdout.write(f"{count} commands with seed {seed}\n")
    sys.stdout.write(f"{fuzz(count, seed)} messages came out, and every reply was right\n")
