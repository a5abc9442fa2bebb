"""What a Maildir has, seen from outside."""

import os
from pathlib import Path

from harness.maildir import Mailbox, message

from pipehandler.maildir.contents import Contents, contents, is_watched
from pipehandler.maildir.folder import FAILED, Maildir


def test_each_kind(tmp_path: Path) -> None:
    """Mail that waits, files that are left alone, and what failed without its reason; the oldest of each."""
    mailbox = Mailbox(tmp_path / "Maildir")
    assert contents(str(mailbox.path)) == dict.fromkeys(("waiting", "left_alone", "failed"), Contents(0, None))
    new, failed = mailbox.path / "new", mailbox.path / FAILED
    failed.mkdir()
    for number, path in enumerate((new / "a", new / "b", new / ".dot", failed / "bad", failed / "bad.reason")):
        path.write_bytes(message(number))
        os.utime(path, (number, number))
    (new / "link").symlink_to("/etc/passwd")
    os.utime(new / "link", (9, 9), follow_symlinks=False)
    owner = new.stat()
    for path in (new / "a", new / "b"):
        os.chown(path, owner.st_uid, owner.st_gid)
    assert contents(str(mailbox.path)) == {
        "waiting": Contents(2, 0.0),
        "left_alone": Contents(2, 2.0),
        "failed": Contents(1, 3.0),
    }


def test_whether_it_is_watched(tmp_path: Path) -> None:
    """While a watcher has the lock."""
    mailbox = Mailbox(tmp_path / "Maildir")
    for name in ("new", "cur", "tmp"):
        os.chown(mailbox.path / name, os.geteuid(), -1)
    assert not is_watched(str(mailbox.path))
    watched = Maildir(str(mailbox.path))
    assert is_watched(str(mailbox.path))
    watched.close()
    assert not is_watched(str(mailbox.path))
