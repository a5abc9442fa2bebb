"""Find out what keeps an account from a file, from the modes of everything on the way to it, in one pass and as root."""

import os
import pwd
import shlex
import stat
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_FIRST_PERSON = 1000  # accounts below are those of the system (login.defs, UID_MIN)


class Identity(NamedTuple):
    """The account and the one group that pipe(8) gives a process."""

    uid: int
    gid: int


def way(path: str) -> Iterator[str]:
    """Yield every folder on the way to `path`, and the file in the end. Links are followed, so each is a real folder or file.

    `path` must exist.
    """
    here = "/"
    yield here
    for part in os.path.abspath(path).split("/")[1:]:
        here = os.path.join(here, part)
        if os.path.islink(here):
            yield from way(os.path.join(os.path.dirname(here), os.readlink(here)))
            here = os.path.realpath(here)
        else:
            yield here


def closed(paths: Iterable[str], who: Identity) -> list[str]:
    """Return what `who` may not enter or read on the way to `paths`, which exist; what is executed must be executable."""
    return [name for name in dict.fromkeys(name for path in paths for name in way(path)) if not _is_open(name, who)]


def _is_open(name: str, who: Identity) -> bool:
    status = os.stat(name)
    if stat.S_ISDIR(status.st_mode):
        needed = stat.S_IXOTH
    else:
        needed = stat.S_IROTH | (stat.S_IXOTH if status.st_mode & stat.S_IXUSR else 0)
    shift = 6 if status.st_uid == who.uid else 3 if status.st_gid == who.gid else 0
    return (status.st_mode >> shift) & needed == needed


def opened(names: list[str], environment: str) -> str:
    """Return one command that opens `names` to all accounts. environment: the folder of the virtual environment, or ""."""
    inside = [name for name in names if environment and os.path.commonpath([name, environment]) == environment]
    outside = [name for name in names if name not in inside]
    by_mode: dict[str, list[str]] = {}
    for name in outside:
        executed = os.stat(name).st_mode & stat.S_IXUSR
        mode = "o+x" if os.path.isdir(name) else "o+rx" if executed else "o+r"
        by_mode.setdefault(mode, []).append(name)
    commands = [f"chmod {mode} {shlex.join(files)}" for mode, files in by_mode.items()]
    if inside:  # whatever else is in there was created with the same umask
        commands.append(f"chmod -R o+rX {shlex.quote(environment)}")
    return " && ".join(commands)


def home_of(names: list[str]) -> str:
    """Return the first of `names` that is the home of root or of a person, or below it; "" if none is. No other account belongs there."""
    homes = {entry.pw_dir for entry in pwd.getpwall() if entry.pw_uid == 0 or entry.pw_uid >= _FIRST_PERSON} - {
        "/",
        "/nonexistent",
    }
    for name in names:
        for home in sorted(homes):
            if name == home or name.startswith(f"{home}/"):
                return home
    return ""
