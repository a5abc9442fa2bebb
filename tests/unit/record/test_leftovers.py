"""What killed processes leave in the state directory goes, and nothing else."""

import os
import time
from pathlib import Path

import pytest

from pipehandler.record.leftovers import remove_leftovers

DEAD = 2**22 + 1  # above the largest process id of Linux (PID_MAX_LIMIT)
MESSAGE = "0123abcd-0000-8000-8000-0123456789ab"


@pytest.mark.parametrize(
    ("name", "age", "stays"),
    [
        (f"journal.sqlite.{DEAD}", 0, False),
        (f"journal.sqlite.{DEAD}-wal", 0, False),
        ("journal.sqlite.{own}", 3_500, True),
        ("journal.sqlite.{own}", 3_700, False),
        ("journal.sqlite.{own}-shm", 3_700, False),
        (f"parsing-{MESSAGE}", 86_300, True),
        (f"parsing-{MESSAGE}", 86_500, False),
        (f"storing-{MESSAGE}", 86_300, True),
        (f"storing-{MESSAGE}", 86_500, False),
        (f"parsing-{MESSAGE}0", 10**6, True),
        (f"parsing-{MESSAGE[1:]}", 10**6, True),
        (f"sending-{MESSAGE}", 10**6, True),
        ("journal.sqlite", 10**6, True),
        ("journal.sqlite-wal", 10**6, True),
        ("journal.sqlite.broken", 10**6, True),
        ("journal.sqlite.1.2", 10**6, True),
        ("large", 10**6, True),
        ("outage", 10**6, True),
    ],
)
def test_leftovers(tmp_path: Path, name: str, age: int, stays: bool) -> None:
    """A temporary journal goes with its process, or after an hour; a mark after a day; any other file stays."""
    file = tmp_path / name.format(own=os.getpid())
    file.touch()
    os.utime(file, (time.time() - age,) * 2)
    remove_leftovers(str(tmp_path))
    assert file.exists() is stays


def test_one_does_not_stop_the_others(tmp_path: Path) -> None:
    """What cannot be removed, or is of another kind, is passed over."""
    (tmp_path / f"journal.sqlite.{DEAD}").mkdir()
    (tmp_path / f"journal.sqlite.{DEAD}-a").symlink_to("missing")
    (tmp_path / "a").touch()
    last = tmp_path / f"journal.sqlite.{DEAD}-wal"
    last.touch()
    remove_leftovers(str(tmp_path))
    assert not last.exists()
    remove_leftovers(str(tmp_path / "missing"))
