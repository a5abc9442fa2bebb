"""Check what the handler needs on its host, as the account that it runs as.

Here: the configuration, the state directory and the log file. The database is checked in database.py.
"""

import grp
import os
import re
import shlex
import stat
import sys
from collections.abc import Callable, Iterator

from pipehandler.record.journal import NAME
from pipehandler.record.log import STREAMS
from pipehandler.record.sentry import dsn_problem
from pipehandler.settings.config import RENAMED, Config
from pipehandler.settings.config_file import ConfigError, load
from pipehandler.settings.extras import EXTRAS, install_command, is_installed
from pipehandler.store.conninfo import has_secret

from .database import check_database
from .finding import Finding
from .installation import check_installation
from .refused import account
from .service import check_service

ROOM = 16_777_216
"""Octets that should be free on the file system of the state directory."""

_FILES = 1000  # inodes, for the poison marks of as many messages at once


def check_handler(path: str, maxproc: int = 0) -> list[Finding]:
    """Check as this account, with the configuration `path`.

    maxproc: processes of the transport, each of which may need a connection at the same time; 0 if unknown.
    """
    installation = check_installation()
    try:
        config = load(path)
    except ConfigError as error:
        return [*installation, unusable(path, error)]
    return [
        *installation,
        *_old_keys(path, config),
        *_secret(path, config),
        *_state(config.state.directory),
        *_log(config.log.file),
        *_sentry(config.sentry.dsn, path),
        *check_service(config),
        *check_database(config, path, maxproc),
    ]


def unusable(path: str, error: ConfigError) -> Finding:
    """Return the finding that the configuration at `path` cannot be loaded."""
    reason = error.__cause__
    fix = f"# edit {path}: {str(error).removeprefix(f'{path}: ')}"
    if isinstance(reason, PermissionError):
        # For the group only, because the file may hold a password.
        closed = first_closed(path, lambda name: os.access(name, os.X_OK if os.path.isdir(name) else os.R_OK))
        name = shlex.quote(closed or path)
        fix = f"chmod o+x {name}" if closed != path else f"chgrp {_group()} {name} && chmod g+r {name}"
    elif isinstance(reason, FileNotFoundError):
        role = account() if os.geteuid() else "pipehandler"
        minimal = f'[database]\nconninfo = "host=/run/postgresql dbname=mail user={role}"\n'
        text = minimal.replace("\n", "\\n")
        folder, file = shlex.quote(os.path.dirname(path) or "."), shlex.quote(path)
        fix = f"install -d -m 755 {folder} && printf '{text}' > {file}"
    return Finding(
        "configuration",
        f"the configuration cannot be loaded by {account()}: {error}",
        "Every message would be deferred (4.3.5 mail system incorrectly configured).",
        fix,
    )


def first_closed(path: str, may: Callable[[str], bool]) -> str:
    """Return the first folder on the way to `path` for which `may` is False, or `path` itself; "" if there is none.

    Symbolic links are followed after the path as it is written.
    """
    for route in (os.path.abspath(path), os.path.realpath(path)):
        names = route.split("/")
        for number in range(1, len(names) + 1):
            name = "/".join(names[:number]) or "/"
            if not may(name):
                return name
    return ""


def _group() -> str:
    try:
        return grp.getgrgid(os.getegid()).gr_name
    except KeyError:
        return str(os.getegid())


def _old_keys(path: str, config: Config) -> Iterator[Finding]:
    for old in config.old_keys:
        new = RENAMED[old]
        yield Finding(
            "configuration-key-renamed",
            f"{path}: {old} is now called {new}",
            "The next release will refuse the old name, and then defer all mail (4.3.5 mail system incorrectly configured).",
            _rename_command(path, old, new),
        )


def _rename_command(path: str, old: str, new: str) -> str:
    """Return a sed command that renames the key, if it finds exactly one; else the advice to edit the file."""
    section, _, old_name = old.partition(".")
    new_name = new.partition(".")[2]
    pattern = rf"^([ \t]*({section}[.])?){old_name}([ \t]*=)"
    with open(path, encoding="utf-8") as file:
        matches = sum(bool(re.match(pattern, line)) for line in file)
    if matches != 1:
        return f"# edit {path}: in section [{section}] rename {old_name} to {new_name}"
    script = rf"s/{pattern}/\1{new_name}\3/"
    return f"sed -Ei {shlex.quote(script)} {shlex.quote(path)}"


def _secret(path: str, config: Config) -> Iterator[Finding]:
    conninfos = (config.database.conninfo, config.database.admin_conninfo)
    mode = os.stat(path).st_mode
    if any(map(has_secret, conninfos)) and mode & stat.S_IROTH:
        name = shlex.quote(path)
        yield Finding(
            "password-exposed",
            f"{path} holds a password, and its mode is {stat.S_IMODE(mode):04o}",
            "Every account on this host can read it, and connect as the handler does.",
            f"chgrp {_group()} {name} && chmod 640 {name}",
        )


def _state(directory: str) -> Iterator[Finding]:
    name, who = shlex.quote(directory), f"-o {account()} -g {_group()}"
    detail = "Without it deliveries share no knowledge of an outage or of a message that killed its parser, and keep no journal."
    make = f"install -d -m 700 {who} {name}"
    if not os.path.isdir(directory):
        closed = first_closed(directory, lambda name: not os.path.isdir(name) or os.access(name, os.X_OK))
        if closed:
            what, fix = f"{account()} may not enter {closed}", f"chmod o+x {shlex.quote(closed)}"
        elif os.path.lexists(directory):
            what, fix = "not a directory", f"mv {name} {name}.old && {make}"
        else:
            what, fix = "it does not exist", make
        yield Finding("state-directory", f"state.directory {directory}: {what}", detail, fix)
        return
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("state-directory", f"{account()} may not write to state.directory {directory}", detail, make)
    else:
        yield from _journal(directory)
    mode = os.stat(directory).st_mode
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield Finding(
            "state-directory-open",
            f"accounts other than {account()} may write to state.directory {directory}: its mode is {stat.S_IMODE(mode):04o}",
            "They can make every delivery treat the database as down.",
            f"chmod go-w {name}",
        )
    space = os.statvfs(directory)
    room = space.f_bavail * space.f_frsize
    if room < ROOM or (space.f_files and space.f_favail < _FILES):
        yield Finding(
            "state-directory-full",
            f"the file system of state.directory {directory} has {room} octets and {space.f_favail} inodes free;"
            f" it needs {ROOM} and {_FILES}",
            detail,
            f"# free space on the file system of {directory} (du -x {name})",
        )


def _journal(directory: str) -> Iterator[Finding]:
    """Check the files of the journal, which a command of another account may have created."""
    files = [os.path.join(directory, NAME + suffix) for suffix in ("", "-wal", "-shm")]
    closed = [path for path in files if os.path.exists(path) and not os.access(path, os.R_OK | os.W_OK)]
    if closed:
        names = shlex.join(closed)
        yield Finding(
            "journal",
            f"{account()} may not read and write {' '.join(closed)}",
            "Mail is delivered, but no attempt is recorded: `status` and the metrics show what was recorded before.",
            f"chown {account()}:{_group()} {names} && chmod 600 {names}",
        )


def _log(file: str) -> Iterator[Finding]:
    if file in STREAMS:
        yield Finding(
            "log-file",
            f"log.file is {file}, which a delivery that Postfix starts does not have: Postfix shows its output to the sender",
            "Only resident workers write there; the lines of cold deliveries are lost.",
            "# name a file or a FIFO, and let something follow it: docs/monitoring.md",
        )
        return
    exists = os.path.exists(file)
    if file and not os.access(
        file if exists else os.path.dirname(file) or ".", os.W_OK if exists else os.W_OK | os.X_OK
    ):
        name = shlex.quote(file)
        yield Finding(
            "log-file",
            f"{account()} may not write to log.file {file}",
            "Mail is still delivered, but the file does not show why a delivery was deferred.",
            f"install -m 640 -o {account()} -g {_group()} /dev/null {name}"
            if not exists
            else f"chown {account()} {name}",
        )


def _sentry(dsn: str, path: str) -> Iterator[Finding]:
    if dsn and not is_installed("sentry"):
        yield Finding(
            "sentry-sdk",
            f"sentry.dsn is set, but {sys.executable} has no sentry-sdk; the extra pipehandler[sentry] installs"
            f" {EXTRAS['sentry'].requirement}",
            "Deliveries continue as usual, but no internal fault is reported to Sentry.",
            install_command("sentry"),
        )
    elif dsn and (problem := dsn_problem(dsn)):
        yield Finding(
            "sentry-dsn",
            f"sentry.dsn cannot be used: {problem}",
            "Deliveries continue as usual, but no internal fault is reported to Sentry.",
            f"# in {path}, write the DSN that the settings of the project in Sentry show: https://KEY@HOST/PROJECT",
        )
