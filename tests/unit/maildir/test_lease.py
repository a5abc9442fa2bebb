"""Leases: a file that a process has open for writing may not be complete."""

from pathlib import Path

from pipehandler.maildir.lease import gets_lease, has_leases


def test_no_lease_while_a_process_writes(tmp_path: Path) -> None:
    """Only while: afterwards the kernel gives one."""
    path = tmp_path / "message"
    with path.open("wb"), path.open("rb") as read:
        assert not gets_lease(read.fileno())
    with path.open("rb") as read:
        assert gets_lease(read.fileno())


def test_whether_there_are_leases(tmp_path: Path) -> None:
    """The file that is tried is removed; so is one that a killed process has left."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "pipehandler.lease").touch()
    assert has_leases(str(tmp_path))
    assert not list((tmp_path / "tmp").iterdir())
