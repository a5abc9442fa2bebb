"""The state of the Maildirs for the monitoring."""

import os
from pathlib import Path

from pipehandler.monitor.maildirs import look


def test_maildirs_are_added_up(tmp_path: Path) -> None:
    """The oldest file of all counts; one that cannot be read is counted as such."""
    for number, name in enumerate(("a", "b")):
        (tmp_path / name / "new").mkdir(parents=True)
        (tmp_path / name / "new" / "x").touch()
        os.utime(tmp_path / name / "new" / "x", (number, number))
    found = look([str(tmp_path / name) for name in ("b", "a", "missing")])
    assert found
    assert found.folders == {"watched": 0, "unwatched": 2, "unreadable": 1}
    assert found.files == {"waiting": (2, 0.0), "left_alone": (0, None), "failed": (0, None)}
    assert look([]) is None
