"""The protocols of systemd: sockets that are passed to a process, and states that it reports."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipehandler.runtime import systemd

PASSED = """
import os, socket, sys
kinds = dict(p=socket.SOCK_SEQPACKET, s=socket.SOCK_STREAM, d=socket.SOCK_DGRAM)
for number, kind in enumerate(sys.argv[1], 3):
    made = socket.socket(socket.AF_INET if kind == "i" else socket.AF_UNIX, kinds.get(kind, socket.SOCK_STREAM))
    os.dup2(made.fileno(), number + 100)
    made.close()
for number in range(3, 3 + len(sys.argv[1])):
    os.dup2(number + 100, number)
os.environ |= {"LISTEN_PID": str(os.getpid() + int(sys.argv[3])), "LISTEN_FDS": sys.argv[2]}
from pipehandler.runtime.systemd import listening_sockets
try:
    packets, streams = listening_sockets()
except ValueError as error:
    print(error)
else:
    print(packets and packets.fileno(), [each.fileno() for each in streams])
    print(*(os.get_inheritable(each.fileno()) for each in [packets, *streams] if each))
"""


def passed(kinds: str, count: str | None = None, pid: int = 0) -> list[str]:
    """What a process finds that was started with these sockets, from descriptor 3 on; pid: added to its own in LISTEN_PID."""
    number = str(len(kinds)) if count is None else count
    command = [sys.executable, "-c", PASSED, kinds, number, str(pid)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.parametrize(
    ("kinds", "found"),
    [("p", "3 []"), ("ps", "3 [4]"), ("sp", "4 [3]"), ("ipi", "4 [3, 5]")],
)
def test_sockets(kinds: str, found: str) -> None:
    """One socket of packets, and any number of streams, in any order; no child inherits them."""
    assert passed(kinds) == [found, " ".join(["False"] * len(kinds))]


@pytest.mark.parametrize(
    ("kinds", "reported"),
    [
        ("s", "1 sockets (SOCK_STREAM)"),
        ("pp", "2 sockets (SOCK_SEQPACKET, SOCK_SEQPACKET)"),
        ("pd", "2 sockets (SOCK_SEQPACKET, SOCK_DGRAM)"),
        ("", "0 sockets (none)"),
    ],
)
def test_other_sockets(kinds: str, reported: str) -> None:
    """Anything else is refused with what was passed."""
    (line,) = passed(kinds)
    assert line.startswith(f"systemd gave {reported}; expected one ListenSequentialPacket=")


def test_sockets_for_another_process() -> None:
    """The variables may be inherited from another process; the sockets are not ours then."""
    assert passed("p", pid=1) == ["None []", ""]


def test_no_number() -> None:
    """A count that is none is no socket."""
    assert passed("", "x")[0].startswith("systemd gave x sockets (none)")


@pytest.mark.parametrize("abstract", [False, True])
def test_notify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, abstract: bool) -> None:
    """All states in one datagram, on a socket in the file system or in the abstract namespace."""
    name = f"{tmp_path}/notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if abstract else name)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else name)
        systemd.notify("READY=1", "STATUS=x")
        assert manager.recv(100) == b"READY=1\nSTATUS=x"


def test_manager_that_does_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a manager that is gone nor one whose queue is full holds up the service."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    systemd.notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", f"{tmp_path}/notify")
    systemd.notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{tmp_path}/notify")
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(10_000):
            systemd.notify("READY=1")
        assert len(os.listdir("/proc/self/fd")) == before
