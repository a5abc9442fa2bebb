"""Whatever a server answers, the hand-over client never leaves with 0 without a commit, and never lets two deliver a message."""

import re
import subprocess
from pathlib import Path

import pytest
from harness.compiled import CLIENT, SANITIZED, compiled

from pipehandler.postfix.templates import PACKAGES


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client with invented answers, with the sanitizers for addresses and undefined behaviour."""
    options = (*SANITIZED, f"-I{CLIENT.parent}", f'-DPACKAGE="{PACKAGES}"')
    program = tmp_path_factory.mktemp("answers") / "answers"
    return compiled(Path(__file__).with_name("answers.c"), program, *options)


@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_random_answers(answers: Path, count: int) -> None:
    """Each run ends as its answers allow, and all three ends occur."""
    for seed in range(1, 3):
        done = subprocess.run([answers, str(seed), str(count)], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        ends = re.fullmatch(r"(\d+) left, (\d+) became Python, (\d+) left with 0\n", done.stdout)
        assert ends
        assert min(map(int, ends.groups())) > count // 1_000
