"""Check the Maildirs of watch.maildirs: whether they can be watched, are watched, and hold what needs a person."""

import os
import shlex
import stat
import time
from collections.abc import Iterator

from pipehandler.maildir.contents import contents, is_watched
from pipehandler.maildir.folder import FAILED
from pipehandler.settings.config import Config

from .finding import Finding

_OLD_SECONDS = 900
_START = "systemctl start pipehandler-watch.service # docs/maildir.md"


def check_maildirs(config: Config) -> Iterator[Finding]:
    """Check each Maildir."""
    for path in config.watch.maildirs:
        try:
            yield from _check(path)
        except OSError as error:
            yield Finding(
                "maildir",
                f"watch.maildirs: {path} cannot be read as a Maildir: {error.filename or path}: {error.strerror}",
                "Its mail is not stored.",
                f"# make it with cur/, new/ and tmp/, for the account of the watcher, or correct watch.maildirs: {path}",
            )


def _check(path: str) -> Iterator[Finding]:
    states = {name: os.stat(os.path.join(path, name)) for name in ("new", "cur", "tmp")}
    name = shlex.quote(path)
    if len({(state.st_uid, state.st_dev) for state in states.values()}) > 1:
        what = f"{path}: new/, cur/ and tmp/ differ in their owner or their file system"
        fix = f"chown -R --reference={shlex.quote(os.path.join(path, 'new'))} {name}"
        yield Finding("maildir-owner", what, "Messages that are stored cannot be moved, and are delivered again.", fix)
    if any(state.st_mode & (stat.S_IWGRP | stat.S_IWOTH) for state in states.values()):
        what = f"{path}: other accounts may write to it"
        yield Finding("maildir-open", what, "They can remove mail that is not stored yet.", f"chmod -R go-w {name}")
    if not is_watched(path):
        yield Finding("maildir-unwatched", f"{path} is not watched", "Its mail is not stored.", _START)
    found = contents(path)
    waiting, left_alone, failed = found["waiting"], found["left_alone"], found["failed"]
    if waiting.oldest is not None and time.time() - waiting.oldest > _OLD_SECONDS:
        what = f"{path}: {waiting.files} messages wait in new/, the oldest for {(time.time() - waiting.oldest) / 60:.0f} minutes"
        yield Finding("maildir-old", what, "They are not stored yet.", f"# the log says why: {_shown('outcome=watch')}")
    if left_alone.files:
        what = f"{path}: {left_alone.files} files in new/ are left alone"
        detail = "They are dot files, links, or of another account, and will not be stored."
        yield Finding("maildir-left-alone", what, detail, f"ls -la {shlex.quote(os.path.join(path, 'new'))}")
    if failed.files:
        what = f"{path}: {failed.files} messages in {FAILED}/ can never be stored as they are"
        fix = f"# see why in {os.path.join(path, FAILED)}/*.reason, and import, move back to new/ or remove each: docs/maildir.md"
        yield Finding("maildir-failed", what, "Nobody has received them.", fix)


def _shown(text: str) -> str:
    return f"journalctl -t pipehandler -g {text}"
