"""The record: what setup changed, with the values from before the first change, written to the disk before the change
is made."""

import json
import stat
from pathlib import Path

import pytest

from pipehandler.setup.record import Record
from pipehandler.setup.step import Change, SetupError


def test_round_trip(tmp_path: Path) -> None:
    """A saved record is loaded; only root may write it; without changes there is no file."""
    path = tmp_path / "etc" / "setup.json"
    record = Record.load(str(path))
    record.add(Change("parameter", "virtual_transport", None, "pipehandler"))
    record.save()
    assert Record.load(str(path)).changes == [
        Change("folder", str(path.parent)),
        Change("parameter", "virtual_transport", None, "pipehandler"),
    ]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for change in list(record.changes):
        record.discard(change)
    record.save()
    assert not path.exists()


def test_value_from_before_the_first_change_stays(tmp_path: Path) -> None:
    """For a second run, the value "before" is one that setup itself wrote."""
    record = Record(str(tmp_path / "setup.json"))
    record.add(Change("list", "virtual_mailbox_domains", "a.example", "b.example"))
    record.add(Change("list", "virtual_mailbox_domains", "a.example, b.example", "b.example, c.example"))
    assert record.changes == [Change("list", "virtual_mailbox_domains", "a.example", "b.example, c.example")]


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"format": 2, "changes": []}', '{"format": 1, "changes": [{"x": 1}]}']
)
def test_unreadable(tmp_path: Path, content: str) -> None:
    """A damaged record is an error that names the file, never an empty record."""
    path = tmp_path / "setup.json"
    path.write_text(content)
    with pytest.raises(SetupError, match=str(path)):
        Record.load(str(path))


def test_unwritable(tmp_path: Path) -> None:
    """A record that cannot be written is an error that says so: nothing is changed without it."""
    (tmp_path / "etc").write_text("a file")
    with pytest.raises(
        SetupError, match=r"setup\.json, without which --remove undoes nothing, cannot be written: File exists"
    ):
        Record(str(tmp_path / "etc" / "setup.json"), [Change("account", "pipehandler")]).save()


def test_format(tmp_path: Path) -> None:
    """The file names its format, so that another version does not misread it."""
    record = Record(str(tmp_path / "setup.json"), [Change("account", "pipehandler")])
    record.save()
    assert json.loads(Path(record.path).read_text())["format"] == 1
