"""What the supervisor reports to systemd, and when it wakes up."""

import socket
import time
from pathlib import Path

import pytest

from pipehandler.runtime import systemd
from pipehandler.settings.config import Config
from pipehandler.workers.supervisor import Supervisor


def test_status_is_shown_once_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The numbers change with each message; systemd gets the newest ones a second after those before."""
    shown: list[str] = []
    now, texts = 1000.0, ["STATUS=a"]
    monkeypatch.setattr(systemd, "notify", shown.append)
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(Supervisor, "_text", lambda _: texts[-1])
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        supervisor = Supervisor(listener, f"{tmp_path}/config", Config())
        supervisor._stopping = True  # it starts no workers
        assert supervisor._select_timeout() == 0.0
        supervisor._notify_status()
        assert supervisor._select_timeout() is None
        for text in ("STATUS=b", "STATUS=c"):
            texts.append(text)
            supervisor._notify_status()
            assert supervisor._select_timeout() == 1.0
        now += 1
        assert supervisor._select_timeout() == 0.0
        supervisor._notify_status()
        supervisor._notify_status()
        assert supervisor._select_timeout() is None
        supervisor._selector.close()
        supervisor._signals.close()
        supervisor._signalled.close()
    assert shown == ["STATUS=a", "STATUS=c"]
