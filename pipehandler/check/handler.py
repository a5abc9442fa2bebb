"""Is everything there that the handler needs on its host? Asked as the account that it runs as.

The configuration, the state directory and the log file; database.py beside it goes on with the database.
"""

import grp
import os
import shlex
import stat
import sys
from collections.abc import Callable, Iterator

from pipehandler.settings.config import Config, ConfigError, load
from pipehandler.settings.extras import EXTRAS, install_command, is_installed
from pipehandler.store.conninfo import has_secret

from .database import account, check_database
from .finding import Finding

ROOM = 16_777_216
"""Octets that should be free where the state directory is."""

_FILES = 1000  # inodes, for the marks of as many messages at once


def check_handler(path: str, maxproc: int = 0) -> list[Finding]:
    """What this account finds with the configuration `path`.

    maxproc: processes of the transport, which all may want a connection at once; 0 if that is not known.
    """
    try:
        config = load(path)
    except ConfigError as error:
        return [unusable(path, error)]
    return [
        *_secret(path, config),
        *_state(config.state.directory),
        *_log(config.log.file),
        *_sentry(config.sentry.dsn),
        *check_database(config, path, maxproc),
    ]


def unusable(path: str, error: ConfigError) -> Finding:
    """The configuration at `path` cannot be loaded."""
    reason = error.__cause__
    mend = f"# edit {path}: {str(error).removeprefix(f'{path}: ')}"
    if isinstance(reason, PermissionError):
        # As group, because the file may hold what is not for everybody.
        closed = first_closed(path, lambda each: os.access(each, os.X_OK if os.path.isdir(each) else os.R_OK))
        name = shlex.quote(closed or path)
        mend = f"chmod o+x {name}" if closed != path else f"chgrp {_group()} {name} && chmod g+r {name}"
    elif isinstance(reason, FileNotFoundError):
        role = account() if os.geteuid() else "pipehandler"
        minimal = f'[database]\nconninfo = "host=/run/postgresql dbname=mail user={role}"\n'
        text = minimal.replace("\n", "\\n")
        folder, file = shlex.quote(os.path.dirname(path) or "."), shlex.quote(path)
        mend = f"install -d -m 755 {folder} && printf '{text}' > {file}"
    return Finding(
        "configuration",
        f"the configuration cannot be loaded by {account()}: {error}",
        "Every message would be deferred (4.3.5 mail system incorrectly configured).",
        mend,
    )


def first_closed(path: str, may: Callable[[str], bool]) -> str:
    """The first folder on the way to `path`, or to what its links mean, or `path` itself, for which `may` is False; "" if none."""
    for way in (os.path.abspath(path), os.path.realpath(path)):
        names = way.split("/")
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
    why = "Without it deliveries know neither of an outage of the database nor of a message that killed its parser, and no journal is kept."
    make = f"install -d -m 700 {who} {name}"
    if not os.path.isdir(directory):
        closed = first_closed(directory, lambda each: not os.path.isdir(each) or os.access(each, os.X_OK))
        if closed:
            what, mend = f"{account()} may not enter {closed}", f"chmod o+x {shlex.quote(closed)}"
        elif os.path.lexists(directory):
            what, mend = "it is no directory", f"mv {name} {name}.old && {make}"
        else:
            what, mend = "it is not there", make
        yield Finding("state-directory", f"state.directory {directory}: {what}", why, mend)
        return
    if not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        yield Finding("state-directory", f"{account()} may not write into state.directory {directory}", why, make)
    mode = os.stat(directory).st_mode
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield Finding(
            "state-directory-open",
            f"others than {account()} may write into state.directory {directory}: its mode is {stat.S_IMODE(mode):04o}",
            "Whoever writes there can make every delivery believe that the database is down.",
            f"chmod go-w {name}",
        )
    space = os.statvfs(directory)
    room = space.f_bavail * space.f_frsize
    if room < ROOM or (space.f_files and space.f_favail < _FILES):
        yield Finding(
            "state-directory-full",
            f"where state.directory {directory} is, {room} octets and {space.f_favail} inodes are free;"
            f" {ROOM} and {_FILES} should be",
            why,
            f"# make room on the file system of {directory} (du -x {name})",
        )


def _log(file: str) -> Iterator[Finding]:
    there = os.path.exists(file)
    if file and not os.access(file if there else os.path.dirname(file) or ".", os.W_OK if there else os.W_OK | os.X_OK):
        name = shlex.quote(file)
        yield Finding(
            "log-file",
            f"{account()} may not write to log.file {file}",
            "Deliveries go on as always, but nobody can read why one of them was deferred.",
            f"install -m 640 -o {account()} -g {_group()} /dev/null {name}"
            if not there
            else f"chown {account()} {name}",
        )


def _sentry(dsn: str) -> Iterator[Finding]:
    if dsn and not is_installed("sentry"):
        yield Finding(
            "sentry-sdk",
            f"sentry.dsn is set, but {sys.executable} has no sentry-sdk; the extra pipehandler[sentry] installs"
            f" {EXTRAS['sentry'].requirement}",
            "Deliveries continue as usual, but no internal fault is reported to Sentry.",
            install_command("sentry"),
        )
