"""The trial of an installed program, and the state that it inherits."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from selectors import DefaultSelector

import pytest

from pipehandler.workers import succession as module
from pipehandler.workers.succession import VARIABLE, Inheritance, Trial, inherited

Ended = tuple[int | None, str]
Tried = Callable[[str], tuple[Trial, list[Ended]]]


@pytest.fixture
def selector() -> Iterator[DefaultSelector]:
    """An empty one."""
    with DefaultSelector() as made:
        yield made


@pytest.fixture
def tried(selector: DefaultSelector, monkeypatch: pytest.MonkeyPatch) -> Tried:
    """The trial of a program, and the calls of `done`."""

    def start(program: str) -> tuple[Trial, list[Ended]]:
        monkeypatch.setattr(module, "command", lambda: [sys.executable, "-c", program])
        calls: list[Ended] = []
        return Trial("/config", selector, lambda *how: calls.append(how)), calls

    return start


def wait(selector: DefaultSelector) -> None:
    """Read all that the trial writes, until it has ended."""
    while selector.get_map():
        for key, _ in selector.select():
            key.data()


@pytest.mark.parametrize(
    ("program", "how"),
    [
        ("import sys; print('a warning'); print('{\"code\": 7}'); sys.stdout.flush()", (7, '{"code": 7}')),
        ("import sys; print(sys.argv[1:])", (None, "['--config', '/config', 'serve', '--trial']")),
        ("print('[]')", (None, "[]")),
        ("print('{}')", (None, "{}")),
        ("pass", (None, "status 0")),
        ("print('{\"code\": 7}'); raise SystemExit(3)", (None, '{"code": 7}')),
        ("raise SystemExit('no module x')", (None, "no module x")),
        ("raise SystemExit(3)", (None, "status 3")),
        ("print('x' * 1000000); print('{\"code\": 8}')", (8, '{"code": 8}')),
        ("import os; os.write(1, b'\\xff')", (None, "\ufffd")),
    ],
)
def test_answer(selector: DefaultSelector, tried: Tried, program: str, how: Ended) -> None:
    """The last line is the answer, or the reason; `done` is called once."""
    before = os.listdir("/proc/self/fd")
    _, calls = tried(program)
    wait(selector)
    assert calls == [how]
    assert os.listdir("/proc/self/fd") == before


def test_killed(selector: DefaultSelector, tried: Tried) -> None:
    """It has ended in vain, and is not killed again."""
    trial, calls = tried("import time; time.sleep(600)")
    trial.kill()
    assert trial.until == float("inf")
    wait(selector)
    assert calls == [(None, "status -9")]


def test_abandoned(selector: DefaultSelector, tried: Tried) -> None:
    """It ends, nothing of it is left, and `done` is not called."""
    before = os.listdir("/proc/self/fd")
    trial, calls = tried("import time; time.sleep(600)")
    trial.abandon()
    assert not selector.get_map()
    assert os.listdir("/proc/self/fd") == before
    assert trial._process.returncode == -9
    assert calls == []


def test_inherited_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was passed on, with descriptors that no child of this program gets; nothing on a first start."""
    ends = [end for _ in range(4) for end in os.pipe()]
    for end in ends:
        os.set_inheritable(end, True)
    listener, channel, worker, idle, lmtp, receiver, *others = ends
    given = Inheritance(
        *(listener, channel, 1, [[2, worker, ["x", 1, 2.5, []]], [3, idle, None]], {"died": 4}, "other", True),  # type: ignore[arg-type]
        lmtp=[lmtp],
        lmtp_created=False,
        receivers=[[5, receiver]],  # type: ignore[list-item]
    )
    monkeypatch.setenv(VARIABLE, json.dumps(given._asdict()))
    assert inherited() == given
    assert [os.get_inheritable(end) for end in ends] == [False] * 6 + [True] * len(others)
    assert VARIABLE not in os.environ
    assert inherited() is None
    for end in ends:
        os.close(end)
