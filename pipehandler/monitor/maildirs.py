"""The Maildirs of watch.maildirs, all together: their paths may hold addresses, which no metric shows."""

from collections.abc import Sequence
from typing import NamedTuple

from ..maildir.contents import Contents, contents, is_watched

STATES = ("watched", "unwatched", "unreadable")
KINDS = ("waiting", "left_alone", "failed")


class Maildirs(NamedTuple):
    """folders: how many Maildirs are in each of STATES. files: for each of KINDS, those of all Maildirs that can be read."""

    folders: dict[str, int]
    files: dict[str, Contents]


def look(paths: Sequence[str]) -> Maildirs | None:
    """Return the state of these Maildirs; None if there are none."""
    if not paths:
        return None
    folders = dict.fromkeys(STATES, 0)
    files = dict.fromkeys(KINDS, Contents(0, None))
    for path in paths:
        try:
            found, watched = contents(path), is_watched(path)
        except OSError:
            folders["unreadable"] += 1
            continue
        folders["watched" if watched else "unwatched"] += 1
        for kind, (number, oldest) in found.items():
            times = [time for time in (files[kind].oldest, oldest) if time is not None]
            files[kind] = Contents(files[kind].files + number, min(times, default=None))
    return Maildirs(folders, files)
