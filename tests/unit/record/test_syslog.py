"""Lines for the syslog daemon, on a socket that stands for /dev/log."""

import os
import re
import socket
from pathlib import Path

import pytest

from pipehandler.record import syslog

LINE = r"<(\d+)>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d pipehandler\[(\d+)\]: (.*)"


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the daemon listens."""
    monkeypatch.setattr(syslog, "_SOCKET", f"{tmp_path}/log")
    return f"{tmp_path}/log"


@pytest.mark.parametrize(("failed", "priority"), [(False, "22"), (True, "19")])
def test_datagram(path: str, failed: bool, priority: str) -> None:
    """The priority of RFC 3164 4.1.1: facility mail (2) times 8, plus error (3) or information (6)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(path)
        syslog.send("outcome=delivered é", failed)
        found = re.fullmatch(LINE, daemon.recv(1_000).decode())
    assert found
    assert found.groups() == (priority, str(os.getpid()), r"outcome=delivered \xe9")


def test_stream(path: str) -> None:
    """A daemon that listens for connections gets the line with a NUL at its end."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as daemon:
        daemon.bind(path)
        daemon.listen()
        syslog.send("text", failed=False)
        connection, _ = daemon.accept()
        with connection:
            received = b"".join(iter(lambda: connection.recv(1_000), b""))
    assert received.endswith(b"]: text\0")


def test_no_daemon(path: str) -> None:
    """Without a daemon, and without one that reads, the line is refused rather than waited for."""
    with pytest.raises(FileNotFoundError):
        syslog.send("text", failed=False)

    def fill() -> None:
        for _ in range(100_000):
            syslog.send("text", failed=False)

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(path)
        with pytest.raises(TimeoutError):
            fill()


def test_no_descriptor_stays(path: str) -> None:
    """Whether it is sent or not, the socket is closed."""
    before = len(os.listdir("/proc/self/fd"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(path)
        syslog.send("text", failed=False)
    with pytest.raises(OSError, match="refused"):
        syslog.send("text", failed=False)
    assert len(os.listdir("/proc/self/fd")) == before
