"""The mark of a message that is being parsed, and the second chance on a busy host."""

import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipehandler.delivery import guarded_parse as module
from pipehandler.delivery.guarded_parse import PoisonMark, guarded_parse
from pipehandler.mail.parsed import ParsedMessage
from pipehandler.runtime import deadline
from pipehandler.runtime.deadline import Deadline, TimeUp
from pipehandler.settings.config import Config, Limits, State

MESSAGE = "70ca6f71-7d53-888d-89e8-d8804ed332d8"
WRITTEN = b"parsing\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The path of the mark of MESSAGE."""
    return tmp_path / f"parsing-{MESSAGE}"


def was_fatal(path: Path) -> bool:
    """Whether a second attempt finds the mark of a dead one."""
    with PoisonMark(str(path.parent), MESSAGE) as mark:
        return mark.was_fatal


def test_mark_while_it_is_parsed(path: Path) -> None:
    """The mark exists only while the message is parsed."""
    with PoisonMark(str(path.parent), MESSAGE) as mark:
        assert not mark.was_fatal
        assert path.read_bytes() == WRITTEN
    assert not path.exists()


def test_mark_of_a_dead_attempt(path: Path) -> None:
    """The mark of a dead attempt is found, and removed by the next one that survives."""
    path.write_bytes(WRITTEN)
    assert was_fatal(path)
    assert not path.exists()


def test_mark_of_a_living_attempt(path: Path) -> None:
    """Another recipient's copy that is being parsed at this moment is not a dead attempt, and keeps its mark."""
    with PoisonMark(str(path.parent), MESSAGE):
        assert not was_fatal(path)
        assert path.read_bytes() == WRITTEN
    assert not path.exists()


def test_mark_of_an_attempt_that_ends_now(path: Path) -> None:
    """A process that has opened the mark of a live attempt finds it empty once that has ended."""
    with PoisonMark(str(path.parent), MESSAGE):
        opened = path.open("rb")
    with opened:
        assert opened.read() == b""


def test_mark_that_is_removed_meanwhile(path: Path) -> None:
    """An operator may empty the directory at any time."""
    with PoisonMark(str(path.parent), MESSAGE):
        path.unlink()
    assert not path.exists()


def test_no_directory(tmp_path: Path) -> None:
    """If the mark cannot be written, there is no mark and no suspicion."""
    assert not was_fatal(tmp_path / "missing" / f"parsing-{MESSAGE}")


@pytest.mark.parametrize("kind", ["symlink", "hard link", "fifo", "directory"])
def test_planted_file(path: Path, kind: str) -> None:
    """The owner of the directory cannot choose which file is written, and nothing blocks."""
    target = path.with_name("target")
    target.write_bytes(b"of another account")
    if kind == "symlink":
        path.symlink_to(target)
    elif kind == "hard link":
        path.hardlink_to(target)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert not was_fatal(path)
    assert target.read_bytes() == b"of another account"
    assert os.path.lexists(path)


def test_lock_is_given_up(path: Path) -> None:
    """A process that continues does not keep the mark's file open."""
    path.write_bytes(WRITTEN)
    with path.open("rb") as opened:
        assert was_fatal(path)
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)


Attempts = Callable[[BaseException, float], tuple[int, ParsedMessage]]


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Attempts]:
    """Parse with a parser that fails the first time, with so many seconds left: how often it was called, and the message."""

    def run(error: BaseException, left: float) -> tuple[int, ParsedMessage]:
        calls = 0

        def parse(_: bytes, **__: object) -> ParsedMessage:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise error
            return ParsedMessage(subject="parsed")

        monkeypatch.setattr(module, "parse", parse)
        config = Config(limits=Limits(parse_timeout=10), state=State(directory="/nonexistent"))
        parsed = guarded_parse(b"raw", MESSAGE, config, Deadline(left, time.monotonic()))
        return calls, parsed.message

    yield run
    deadline.clear()
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


@pytest.mark.parametrize("error", [MemoryError(), TimeUp()], ids=["memory", "time"])
@pytest.mark.parametrize(("left", "again"), [(21, True), (19, False)])
def test_a_second_chance(attempts: Attempts, error: BaseException, left: float, again: bool) -> None:
    """A host without free memory or CPU time may have it a moment later: parse once more, if there is time for two
    attempts."""
    calls, message = attempts(error, left)
    assert calls == 1 + again
    assert message.subject == ("parsed" if again else None)
    if not again:
        assert message.error in ("not parsed within 1073741824 octets of memory", "not parsed within 10 s")


def test_no_second_chance_for_a_fault(attempts: Attempts) -> None:
    """An exception of the parser is raised again."""
    calls, message = attempts(ValueError("text of the message"), 100)
    assert calls == 1
    assert message.error is not None
    assert message.error.startswith("ValueError at ")
    assert "text" not in message.error


@pytest.mark.parametrize("error", [OSError(), ImportError(), ModuleNotFoundError(), LookupError("unknown encoding: x")])
def test_a_broken_installation_is_no_fault_of_the_message(attempts: Attempts, error: Exception) -> None:
    """A module or a codec that cannot be loaded defers."""
    with pytest.raises(type(error)) as raised:
        attempts(error, 100)
    assert raised.value is error


@pytest.mark.parametrize("error", [KeyError("x"), IndexError("x")])
def test_a_missing_key_is_one(attempts: Attempts, error: Exception) -> None:
    """Both are kinds of LookupError, but a codec that is missing raises neither."""
    _, message = attempts(error, 100)
    assert message.error is not None
    assert message.error.startswith(f"{type(error).__name__} at ")


def test_a_child_tries_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A message that may kill its parser, because it is in quarantine or its last attempt died, kills only a child."""
    monkeypatch.setattr(module, "parse", lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
    config = Config(state=State(directory=str(tmp_path)))
    try:
        parsed = guarded_parse(b"raw", MESSAGE, config, Deadline(60, time.monotonic()), isolate=True)
        assert parsed.message.error == "the parser died of this message"
        (tmp_path / f"parsing-{MESSAGE}").write_bytes(WRITTEN)
        parsed = guarded_parse(b"raw", MESSAGE, config, Deadline(60, time.monotonic()))
        assert parsed.message.error == "the parser died of this message"
    finally:
        deadline.clear()
