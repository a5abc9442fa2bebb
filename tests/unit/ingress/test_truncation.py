"""Whether a message came whole: its octets as ${size} counts them, and the process that wrote it."""

import os
import random
import subprocess
import sys
import time

import pytest

from pipehandler.ingress import truncation
from pipehandler.ingress.truncation import Caller, is_orphan, is_smaller, queue_file_octets
from pipehandler.mail.outcome import TRUNCATED, Undelivered
from pipehandler.runtime.process import process

ALIVE = Caller(os.getpid(), os.getppid())


@pytest.mark.parametrize(
    ("lines", "records"),
    [
        ((), 0),
        ((0,), 2),
        ((127,), 129),
        ((128,), 131),
        ((2_047,), 2_050),
        ((2_048,), 2_053),  # two records, the second of them empty
        ((2_049,), 2_054),
        ((2_048 + 127,), 2_048 + 3 + 127 + 2),
        ((2_048 + 128,), 2_048 + 3 + 128 + 3),
        ((4_096,), 2 * 2_051 + 2),
        ((10, 200, 3), 12 + 203 + 5),
    ],
)
def test_octets_of_records(lines: tuple[int, ...], records: int) -> None:
    """A record has a header of two octets, three from 128 octets on, and at most 2048 octets (Postfix, measured)."""
    raw = b"".join(b"x" * length + b"\n" for length in lines)
    assert queue_file_octets(raw, 0) == records
    assert queue_file_octets(b"y" * 300 + b"\n" + raw, 301) == records


def test_octets_of_any_lines() -> None:
    """The same for any lines, and from any octet of the first on."""
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


@pytest.fixture(scope="module")
def ended() -> Caller:
    """A caller whose pipe(8) has ended: this process, with another parent."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return Caller(os.getpid(), child.pid)


def test_orphan(ended: Caller) -> None:
    """The parent of the entrypoint is asked, and no other process."""
    assert not is_orphan(ALIVE)
    assert is_orphan(ended)
    assert is_orphan(Caller(ended.parent, os.getpid()))  # the entrypoint itself has ended
    with subprocess.Popen(["sleep", "60"]) as child:
        assert not is_orphan(Caller(child.pid, os.getpid()))
        assert is_orphan(Caller(child.pid, os.getppid()))
        child.kill()


def test_ending_parent() -> None:
    """A zombie is gone: it has closed its files."""
    with subprocess.Popen(["sleep", "0"]) as zombie:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        assert is_orphan(Caller(os.getpid(), zombie.pid))


def test_exiting_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is exiting has closed its files, and is still the parent."""
    monkeypatch.setattr(truncation, "process", lambda pid: process(pid)._replace(flags=4))  # type: ignore[union-attr]
    assert os.getppid() == ALIVE.parent
    assert is_orphan(ALIVE)


def test_hidden_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose state is hidden is waited for: when it has gone, this process has another parent."""
    monkeypatch.setattr(truncation, "process", lambda _: None)
    assert not is_orphan(ALIVE)
    monkeypatch.setattr(truncation, "_MOMENT", 60_000)
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        parent = os.getpid()
        if os.fork() == 0:
            os.write(writing, b"%d" % is_orphan(Caller(os.getpid(), parent)))
        else:
            time.sleep(0.3)  # the child asks before this process ends
        os._exit(0)
    os.close(writing)
    os.waitpid(parent, 0)
    with open(reading, "rb") as answer:
        assert answer.read() == b"1"


@pytest.mark.parametrize(
    ("declared", "smaller"), [(None, False), (2, False), (5, False), (6, True), (7, True), (9, True)]
)
def test_smaller(declared: int | None, smaller: bool) -> None:
    """Fewer octets than declared, of a message that came whole; more is what a Milter added."""
    assert is_smaller(b"abc\n", 0, declared, ALIVE) is smaller
    assert queue_file_octets(b"abc\n", 0) == 5


def test_prepended_octets_do_not_count() -> None:
    """${size} does not count what pipe(8) wrote above the message."""
    assert is_smaller(b"Return-Path: <>\nabc\n", 16, 6, ALIVE)
    assert not is_smaller(b"Return-Path: <>\nabc\n", 16, 5, ALIVE)


@pytest.mark.parametrize("declared", [None, 6])
def test_truncated(ended: Caller, declared: int | None) -> None:
    """A message that is smaller, or of unknown size, and whose writer is gone."""
    with pytest.raises(Undelivered, match=f"^4 octets came of a message of {declared}$") as refused:
        is_smaller(b"abc\n", 0, declared, ended)
    assert refused.value.outcome == TRUNCATED


def test_whole_although_the_writer_is_gone(ended: Caller) -> None:
    """All octets that were declared have come."""
    assert not is_smaller(b"abc\n", 0, 5, ended)


@pytest.mark.parametrize("declared", [None, 0, 5])
def test_empty(declared: int | None) -> None:
    """No message is empty."""
    with pytest.raises(Undelivered, match=r"^0 octets came"):
        is_smaller(b"", 0, declared, ALIVE)
