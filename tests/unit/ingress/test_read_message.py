"""How much of a message is read, and from which size on it takes a turn."""

import time
from pathlib import Path

import pytest

from pipehandler.delivery.turn import LARGE, Turn
from pipehandler.ingress.single import read_message
from pipehandler.mail.outcome import TOO_LARGE, Undelivered
from pipehandler.record.attempt import Attempt
from pipehandler.runtime import deadline
from pipehandler.runtime.deadline import Deadline
from pipehandler.settings.config import Config, Limits, State


@pytest.mark.parametrize("with_turn", [False, True])
@pytest.mark.parametrize("largest", [1024, LARGE - 1, LARGE, LARGE + 5])
@pytest.mark.parametrize("beyond", [-7, 0, 1, 2])
def test_limit(tmp_path: Path, largest: int, beyond: int, with_turn: bool) -> None:
    """Up to the limit it is read whole; of a larger one no more than one octet beyond it."""
    file = tmp_path / "message"
    file.write_bytes(b"x" * (largest + beyond - 1) + b"y")
    attempt = Attempt("pipe", "cold", "q", time.monotonic())
    attempt.config = Config(limits=Limits(message_size=largest), state=State(str(tmp_path)))
    try:
        turn = Turn(attempt.config, Deadline(60, time.monotonic())) if with_turn else None
        with file.open("rb") as opened:
            if beyond > 0:
                with pytest.raises(Undelivered) as refused:
                    read_message(opened.fileno(), attempt, turn)
                assert refused.value.outcome == TOO_LARGE
            else:
                assert read_message(opened.fileno(), attempt, turn) == file.read_bytes()
    finally:
        deadline.clear()
    assert attempt.size == largest + min(beyond, 1)
    assert (tmp_path / "large").exists() == (with_turn and attempt.size >= LARGE)


@pytest.mark.parametrize("directory", ["missing", "a file", "a link"])
def test_without_a_turn(tmp_path: Path, directory: str) -> None:
    """Where the state directory takes no file, a large message waits for nothing."""
    place = tmp_path / "state"
    if directory == "a file":
        place.touch()
    elif directory == "a link":
        place.mkdir()
        (place / "large").symlink_to(tmp_path / "target")
    file = tmp_path / "message"
    file.write_bytes(b"x" * LARGE)
    attempt = Attempt("pipe", "cold", "q", time.monotonic())
    attempt.config = Config(state=State(str(place)))
    try:
        with file.open("rb") as opened:
            turn = Turn(attempt.config, Deadline(60, time.monotonic()))
            assert len(read_message(opened.fileno(), attempt, turn)) == LARGE
    finally:
        deadline.clear()
    assert not (tmp_path / "target").exists()
