"""A watch on files: when they have changed, and when they are whole."""

import os
import time
from pathlib import Path

import pytest

from pipehandler.workers.succession import Watch, code_watch, command


def age(path: Path, seconds: float) -> None:
    """Set the times of a file; its change time stays, and cannot be set."""
    then = time.time() - seconds
    os.utime(path, (then, then))


@pytest.mark.parametrize("how", ["content", "replaced", "touched", "mode", "link", "removed"])
def test_changed(tmp_path: Path, how: str) -> None:
    """Any change counts, also of the file that a link leads to; and no longer when it was accepted."""
    file, other, link = tmp_path / "file", tmp_path / "other", tmp_path / "link"
    for each in (file, other):
        each.write_text("x")
    link.symlink_to(file)
    watch = Watch(str(tmp_path / "missing"), str(link))
    assert not watch.changed()
    if how == "content":
        file.write_text("y")
    elif how == "replaced":
        other.replace(file)
    elif how == "touched":
        age(file, 60)
    elif how == "mode":
        file.chmod(0o600)
    elif how == "link":
        link.unlink()
        link.symlink_to(other)
    else:
        file.unlink()
    assert watch.changed()
    assert watch.changed()
    watch.accept()
    assert not watch.changed()


def test_a_missing_one_appears(tmp_path: Path) -> None:
    """A file that was missing is a change."""
    watch = Watch(str(tmp_path / "file"))
    (tmp_path / "file").touch()
    assert watch.changed()


def test_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is whole a second after its last change; one in the future, by a clock that was set back, is at once."""
    old, new = tmp_path / "old", tmp_path / "new"
    old.touch()
    new.touch()
    watch = Watch(str(tmp_path / "missing"), str(old), str(new))
    changed = new.stat().st_ctime_ns
    for after, settled in ((0, False), (999_999_999, False), (1_000_000_000, True), (-1, True)):
        monkeypatch.setattr(time, "time_ns", lambda after=after: changed + after)
        assert watch.settled() is settled
    assert Watch(str(tmp_path / "missing")).settled()


def test_what_the_program_consists_of() -> None:
    """The program, the folder of its packages, and the file that identifies the installation."""
    program, packages, identifying = code_watch()._paths
    assert os.path.isabs(program)
    assert Path(packages, "pipehandler").is_dir()
    assert identifying == str(Path(packages, "pipehandler", "handover.py"))
    assert command()[-1] == program
