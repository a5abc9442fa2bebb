"""The first packet of an entrypoint, as the service reads it."""

import os

import pytest

from pipehandler.delivery.turn import LARGE
from pipehandler.handover import INSTALLATION, deliver_packet
from pipehandler.workers.worker import Task

ARGV = ["--queue-id=q", "--sender=\udcff", "--", "a@x"]


@pytest.mark.parametrize(("kind", "ingress"), [("deliver", "pipe"), ("lmtp", "lmtp"), ("maildir", "maildir")])
def test_packet(kind: str, ingress: str) -> None:
    """All values come back, also octets that are not UTF-8."""
    task = Task.from_packet(deliver_packet(ARGV, 42, 1.5, kind))
    assert task == Task(INSTALLATION.decode(), 42, 1.5, ARGV, ingress)


def test_words() -> None:
    """The words, joined by NUL, in this order: the client in C writes the same."""
    expected = b"\0".join([b"deliver", INSTALLATION, b"42", b"1.5", b"--queue-id=q", b"--sender=\xff", b"--", b"a@x"])
    assert deliver_packet(ARGV, 42, 1.5) == expected
    assert deliver_packet([], 1, 0.1) == b"\0".join([b"deliver", INSTALLATION, b"1", b"0.1"])


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"status",
        b"deliver",
        b"deliver\0i\0x\x001.5",
        b"deliver\0i\x0042\0x",
        b"deliver\0i\x0042",
        b"other\0i\x0042\x001.5",
        b"deliver\0i\x0042\0nan",
        b"deliver\0i\x0042\0-0.1",
    ],
)
def test_not_a_packet(packet: bytes) -> None:
    """Anything else is none."""
    assert Task.from_packet(packet) is None


def test_start_of_the_host() -> None:
    """Zero is the earliest time."""
    assert Task.from_packet(b"deliver\0i\x0042\x000.0") == Task("i", 42, 0.0, [])


@pytest.mark.parametrize(
    ("size", "large"),
    [
        (str(LARGE - 1), False),
        (str(LARGE), True),
        ("9" * 19, True),
        ("9" * 20, False),
        ("", False),
        ("unknown", False),
        ("-1", False),
        (f"{LARGE}.0", False),
        ("٩" * 8, False),
    ],
)
def test_large(size: str, large: bool) -> None:
    """By the size that Postfix passes; what is no number is not large."""
    assert Task("i", 1, 0.0, [f"--size={size}", "--", f"--size={LARGE}"]).is_large is large


def test_size_is_an_option() -> None:
    """A recipient that looks like the option is not the size."""
    assert not Task("i", 1, 0.0, ["--", f"--size={LARGE}"]).is_large
    assert os.fsencode(ARGV[1]) == b"--sender=\xff"
