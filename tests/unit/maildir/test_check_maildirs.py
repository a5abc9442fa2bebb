"""`check` of the Maildirs in watch.maildirs."""

import os
from pathlib import Path

from harness.maildir import Mailbox, message

from pipehandler.check.maildirs import check_maildirs
from pipehandler.maildir.folder import FAILED, Maildir
from pipehandler.settings.config import Config, Watch


def found(path: Path) -> list[str]:
    """The codes of the findings."""
    return [each.code for each in check_maildirs(Config(watch=Watch(maildirs=(str(path),))))]


def test_each_finding(tmp_path: Path) -> None:
    """Missing, open to others, not watched, old mail, files left alone, files in failed/; and nothing else."""
    assert found(tmp_path / "missing") == ["maildir"]
    mailbox = Mailbox(tmp_path / "Maildir")
    assert found(mailbox.path) == ["maildir-unwatched"]
    for name in ("new", "cur", "tmp"):
        os.chown(mailbox.path / name, os.geteuid(), -1)
    watched = Maildir(str(mailbox.path))
    try:
        assert found(mailbox.path) == []
        new = mailbox.path / "new"
        new.chmod(0o777)
        (new / "link").symlink_to("/etc/passwd")
        (new / "old").write_bytes(message(1))
        os.utime(new / "old", (0, 0))
        (mailbox.path / FAILED / "bad").touch()
        (mailbox.path / FAILED / "bad.reason").touch()
        expected = ["maildir-open", "maildir-old", "maildir-left-alone", "maildir-failed"]
        assert found(mailbox.path) == expected
        assert all(
            each.fix and each.detail for each in check_maildirs(Config(watch=Watch(maildirs=(str(mailbox.path),))))
        )
    finally:
        watched.close()
