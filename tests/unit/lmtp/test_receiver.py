"""The receiver without a service behind it: time, and what becomes of a message that nothing takes."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness.lmtp import Client, dialogue

from pipehandler.lmtp import handing, receiver
from pipehandler.lmtp.receiver import Receiver
from pipehandler.settings.config import Config, Limits, Lmtp, Log, State
from pipehandler.workers.listener import listen_for_lmtp

MESSAGE = b"Subject: one\n\nbody\n"


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """Start a receiver in a thread; it ends with the test."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    path = tmp_path / "lmtp"
    listeners = listen_for_lmtp(Lmtp(str(path)))
    config = Config(limits=Limits(deadline=5), state=State(str(tmp_path)), log=Log(False, f"{tmp_path}/log"))
    accounts = frozenset({os.geteuid()})
    threads = []

    def start() -> Path:
        running = Receiver(listeners, theirs, config, f"{tmp_path}/c", f"{tmp_path}/service", accounts)
        threads.append(threading.Thread(target=running.run))
        threads[0].start()
        return path

    yield start
    ours.close()
    for thread in threads:
        thread.join(60)
    theirs.close()
    assert not any(thread.is_alive() for thread in threads)


def test_silence(run: Callable[[], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent client is closed, with 421 unless it is in the middle of a message."""
    monkeypatch.setattr(receiver, "SILENCE", 0.1)
    path = run()
    silent, sending = Client(path), Client(path)
    assert sending.reply().startswith("220 ")
    sending.send(b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nDATA\r\nbegun")
    assert [sending.reply()[:3] for _ in range(4)] == ["250", "250", "250", "354"]
    assert silent.replies()[1:] == ["421 4.4.2 silent for too long"]
    assert sending.replies() == []
    for each in (silent, sending):
        each.close()


def test_no_service(run: Callable[[], Path]) -> None:
    """Without a service each recipient is deferred: nothing has the message but the client."""
    client = Client(run())
    client.send(dialogue(MESSAGE, "a@b", "c@d"))
    assert client.replies()[-3:] == [*["451 4.4.5 mail system congested"] * 2, "221 2.0.0 bye"]
    client.close()


ANSWERS: dict[str, tuple[list[bytes], list[str]]] = {
    "each": (
        [b"go 5", b"end 0 2.0.0 stored x\n75 4.3.1 message store full"],
        ["250 2.0.0 stored x", "452 4.3.1 message store full"],
    ),
    "refused": ([b"go 5", b"end 67 5.1.1 no\n65 5.3.4 large"], ["550 5.1.1 no", "552 5.3.4 large"]),
    "after a wait": ([b"wait 5", b"go 5", b"end 0 2.0.0 a\n0 2.0.0 b"], ["250 2.0.0 a", "250 2.0.0 b"]),
    "no worker": ([b"wait 5", b"end 75 4.4.5 congested"], ["451 4.4.5 congested"] * 2),
    "cold": ([b"cold"], ["451 4.4.5 mail system congested"] * 2),
    "gone before": ([], ["451 4.4.5 mail system congested"] * 2),
    "nonsense before": ([b"\xff"], ["451 4.4.5 mail system congested"] * 2),
    "a success before": ([b"end 0 2.0.0 stored"], []),
    "one too few": ([b"go 5", b"end 0 2.0.0 a"], []),
    "one too many": ([b"go 5", b"end 0 2.0.0 a\n0 2.0.0 b\n0 2.0.0 c"], []),
    "contradiction": ([b"go 5", b"end 75 2.0.0 a\n0 2.0.0 b"], []),
    "contradiction, the other way": ([b"go 5", b"end 0 4.3.0 a\n0 2.0.0 b"], []),
    "no status": ([b"go 5", b"end 2.0.0 a\n0 2.0.0 b"], []),
    "empty": ([b"go 5", b"end "], []),
    "a second go": ([b"go 5", b"go 5"], []),
    "cold after go": ([b"go 5", b"cold"], []),
    "gone": ([b"go 5"], []),
    "nonsense": ([b"go 5", b"\xff\xff"], []),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_answers_of_the_service(run: Callable[[], Path], tmp_path: Path, what: str) -> None:
    """Two recipients have two replies, or the connection closes without one: whatever the service answers."""
    packets, expected = ANSWERS[what]
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as service:
        service.bind(f"{tmp_path}/service")
        service.listen()
        client = Client(run())
        client.send(dialogue(MESSAGE, "a@b", "c@d"))
        entrypoint, _ = service.accept()
        with entrypoint:
            assert entrypoint.recv(10_000).startswith(handing.KIND.encode() + b"\0")
            for number, packet in enumerate(packets):
                entrypoint.send(packet)
                if packet.startswith(b"go") and b"go 5" not in packets[:number]:
                    _, (file,), _, _ = socket.recv_fds(entrypoint, 100, 1)
                    with open(file, "rb") as message:
                        assert message.read() == MESSAGE
        replies = client.replies()
        assert [
            reply for reply in replies[replies.index("354 end the message with a dot") + 1 :] if reply[:3] != "221"
        ] == expected
        client.close()


def test_a_worker_that_does_not_answer(run: Callable[[], Path], tmp_path: Path) -> None:
    """When the announced time is over, the connection closes."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as service:
        service.bind(f"{tmp_path}/service")
        service.listen()
        client = Client(run())
        client.send(dialogue(MESSAGE))
        entrypoint, _ = service.accept()
        with entrypoint:
            entrypoint.recv(10_000)
            entrypoint.send(b"go 0")
            assert client.replies()[-1][:3] == "354"
        client.close()
