"""The octets that Postfix declares as ${size}: those of the records in the queue file."""

import random

from pipehandler.ingress.truncation import queue_file_octets


def test_octets_of_the_queue_file() -> None:
    """Each record of a line has a header of two octets, or of three from 128 octets on; a record has 2048 at most."""
    assert queue_file_octets(b"", 0) == 0
    assert queue_file_octets(b"short\n\n" + b"x" * 128 + b"\n", 0) == 5 + 2 + 0 + 2 + 128 + 3
    chance = random.Random(1)
    sizes = (0, 1, 90, 127, 128, 129, 2047, 2048, 2049, 2175, 2176, 10_000)
    for _ in range(300):
        lines = [b"x" * chance.choice(sizes) for _ in range(chance.randint(1, 6))]
        raw = b"\n".join(lines)
        start = chance.choice([0, 0, len(lines[0]) // 2, len(lines[0])])
        lines[0] = lines[0][start:]
        assert queue_file_octets(raw, start) == sum(map(_records, lines)) - 2, (raw, start)


def _records(line: bytes) -> int:
    pieces = [line[begin : begin + 2048] for begin in range(0, len(line) + 1, 2048)]
    return sum(len(piece) + (3 if len(piece) >= 128 else 2) for piece in pieces)
