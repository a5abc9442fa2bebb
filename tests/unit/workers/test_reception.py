"""The LMTP receiver as the supervisor sees it. The receivers here are children that only end."""

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from selectors import DefaultSelector
from typing import Any

import pytest

from pipehandler.settings.config import Config, Lmtp
from pipehandler.workers import reception as module
from pipehandler.workers.listener import ServeError
from pipehandler.workers.reception import Reception

INFINITE = float("inf")


class Made:
    """A reception; `events`: its log, as the words, whether it is an error, and the values."""

    def __init__(self, lmtp: Lmtp, created: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[str, bool, dict[str, object]]] = []

        def log_event(_: Config, what: str, failed: bool = False, **values: object) -> None:
            self.events.append((what, failed, values))

        monkeypatch.setattr(module, "log_event", log_event)
        self.selector = DefaultSelector()
        self.others: dict[int, socket.socket] = {}
        self.reception = Reception(
            Config(lmtp=lmtp), "/config", "/socket", (), created, self.selector, lambda: iter(())
        )

    def adopt(self, status: int = 0, staying: bool = True) -> int:
        """A receiver that ends with this status when its channel is closed; returns its pid."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        if (pid := os.fork()) == 0:
            ours.close()
            for other in self.others.values():
                other.close()
            with suppress(OSError):
                theirs.recv(100)
            if status < 0:
                os.kill(os.getpid(), -status)
                time.sleep(60)
            os._exit(status)
        self.others[pid] = theirs
        self.reception.adopt(pid, ours)
        (process,) = [each for each in self.reception._processes if each.pid == pid]
        process.retiring = not staying
        return pid

    def end(self, pid: int) -> None:
        """Let a receiver end, and the supervisor notice it."""
        (process,) = [each for each in self.reception._processes if each.pid == pid]
        process.channel.shutdown(socket.SHUT_WR)
        self.others.pop(pid).close()
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        for key, _ in self.selector.select(10):
            key.data()


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Make a reception with these settings."""
    made: list[Made] = []

    def one(lmtp: Lmtp, created: bool = True) -> Made:
        made.append(Made(lmtp, created, monkeypatch))
        return made[-1]

    yield one
    for each in made:
        for pid in list(each.others):
            os.kill(pid, signal.SIGKILL)
            each.end(pid)
        each.reception.stop()
        each.selector.close()


def test_without_lmtp(make: Any) -> None:
    """No socket and no receiver."""
    made = make(Lmtp())
    assert (len(made.reception), made.reception.sockets, made.reception.spawns_at) == (0, [], INFINITE)
    made.reception.spawn()
    assert (len(made.reception), made.events) == (0, [])


def test_sockets_of_another(make: Any, tmp_path: Path) -> None:
    """Where the service may not open sockets, those of the configuration are left alone."""
    made = make(Lmtp(socket=f"{tmp_path}/lmtp"), created=False)
    assert made.reception.sockets == []
    assert not os.path.exists(f"{tmp_path}/lmtp")


def test_one_receiver(make: Any, tmp_path: Path) -> None:
    """One is missing until it runs; one that retires does not count."""
    made = make(Lmtp(socket=f"{tmp_path}/lmtp"))
    assert made.reception.spawns_at == 0.0
    retiring = made.adopt(staying=False)
    assert (len(made.reception), made.reception.spawns_at) == (1, 0.0)
    staying = made.adopt()
    assert (len(made.reception), made.reception.spawns_at) == (2, INFINITE)
    made.reception.spawn()
    assert len(made.reception) == 2
    (listener,) = made.reception._listeners
    channels = {process.pid: process.channel for process in made.reception._processes}
    assert not any(channel.getblocking() for channel in channels.values())
    assert set(made.reception.sockets) == {listener, *channels.values()}
    listening, receivers = made.reception.heirs()
    assert listening == [listener.fileno()]
    assert dict(receivers) == {pid: channels[pid].fileno() for pid in (retiring, staying)}


@pytest.mark.parametrize(
    ("status", "staying", "cause"),
    [
        (0, False, None),
        (0, True, "left with status 0"),
        (3, False, "left with status 3"),
        (3, True, "left with status 3"),
        (-9, True, "killed by signal 9"),
    ],
)
def test_ended(make: Any, tmp_path: Path, status: int, staying: bool, cause: str | None) -> None:
    """One that ends although it was to stay, or not with 0, is logged as an error, and replaced a second later."""
    made = make(Lmtp(socket=f"{tmp_path}/lmtp"))
    pid = made.adopt(status, staying)
    before = time.monotonic()
    made.end(pid)
    assert len(made.reception) == 0
    assert made.events == ([("receiver lost", True, {"reason": cause})] if cause else [])
    if cause:
        assert before + 1 <= made.reception.spawns_at <= time.monotonic() + 1
    else:
        assert made.reception.spawns_at == 0.0


def test_no_process(make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no process can be forked, it is logged as an error, and tried again a second later."""
    made = make(Lmtp(socket=f"{tmp_path}/lmtp"))

    def fail() -> None:
        raise OSError(11, "no process")

    monkeypatch.setattr(module, "fork_with_channel", fail)
    before = time.monotonic()
    made.reception.spawn()
    made.reception.spawn()
    assert made.events == [("no receiver", True, {"reason": "[Errno 11] no process"})]
    assert before + 1 <= made.reception.spawns_at <= time.monotonic() + 1


def test_retired_and_stopped(make: Any, tmp_path: Path) -> None:
    """A receiver is told by the end of its channel; stopping closes the sockets as well."""
    made = make(Lmtp(socket=f"{tmp_path}/lmtp"))
    pid = made.adopt()
    made.reception.retire_all()
    assert os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert made.reception.spawns_at == 0.0
    made.reception.stop()
    assert made.reception.spawns_at == INFINITE
    assert made.reception.heirs()[0] == []
    with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
        client.connect(f"{tmp_path}/lmtp")


def test_killed(make: Any, tmp_path: Path) -> None:
    """All of them."""
    made = make(Lmtp(socket=f"{tmp_path}/lmtp"))
    pid = made.adopt()
    made.reception.kill()
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended
    assert ended.si_status == signal.SIGKILL


def test_another_configuration(make: Any, tmp_path: Path) -> None:
    """Other sockets are opened, the receiver is replaced, and the accounts are those of the new configuration."""
    made = make(Lmtp(socket=f"{tmp_path}/lmtp"))
    made.adopt()
    (before,) = made.reception._listeners
    made.reception.configure(Config(lmtp=Lmtp(socket=f"{tmp_path}/lmtp", accounts=("4711",))))
    assert made.reception._listeners == [before]
    assert 4711 in made.reception._accounts
    assert made.reception.spawns_at == 0.0
    made.reception.configure(Config(lmtp=Lmtp(socket=f"{tmp_path}/other")))
    assert before.fileno() == -1
    assert [each.getsockname() for each in made.reception._listeners] == [f"{tmp_path}/other"]
    assert 4711 not in made.reception._accounts


def test_one_place_moves(make: Any, tmp_path: Path) -> None:
    """The socket of the other one stays as it is, although the receiver listens there as well."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    made = make(Lmtp(socket=f"{tmp_path}/lmtp", address=address))
    made.adopt()
    unix, tcp = made.reception._listeners
    made.reception.configure(Config(lmtp=Lmtp(socket=f"{tmp_path}/other", address=address)))
    assert unix.fileno() == -1
    assert [each.family for each in made.reception._listeners] == [socket.AF_INET, socket.AF_UNIX]
    assert made.reception._listeners[0] is tcp
    made.reception.configure(Config(lmtp=Lmtp(socket=f"{tmp_path}/other")))
    assert [each.family for each in made.reception._listeners] == [socket.AF_UNIX]
    assert tcp.fileno() == -1


def test_wrong_configuration(make: Any, tmp_path: Path) -> None:
    """It changes nothing: the receiver stays, on the same place."""
    made = make(Lmtp(socket=f"{tmp_path}/lmtp"))
    made.adopt()
    for lmtp in (Lmtp(socket=f"{tmp_path}/missing/lmtp"), Lmtp(socket=f"{tmp_path}/lmtp", accounts=("x y",))):
        with pytest.raises(ServeError):
            made.reception.configure(Config(lmtp=lmtp))
        assert [each.getsockname() for each in made.reception._listeners] == [f"{tmp_path}/lmtp"]
        assert made.reception._config.lmtp == Lmtp(socket=f"{tmp_path}/lmtp")
        assert made.reception.spawns_at == INFINITE


def test_sockets_of_systemd_stay(make: Any, tmp_path: Path) -> None:
    """Sockets that were passed to the service are not replaced by those of a new configuration."""
    made = make(Lmtp(), created=False)
    made.reception.configure(Config(lmtp=Lmtp(socket=f"{tmp_path}/lmtp")))
    assert made.reception._listeners == []
    assert not os.path.exists(f"{tmp_path}/lmtp")
