"""Files of ours: written where they are missing, written again where nobody else changed them, and kept otherwise."""

import hashlib
import os
import shlex

from .record import Record
from .step import Change, Step


def digest(path: str) -> str | None:
    """Return the SHA-256 of a file; None if there is none."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def write(record: Record, path: str, text: str, command: str) -> Step:
    """Return what is to be done so that the file at `path` has `text`, which `command` prints."""
    current = digest(path)
    if current == hashlib.sha256(text.encode()).hexdigest():
        return Step(path, f"{path} is as it should be")
    change = record.find("file", path)
    if current is None or (change is not None and change.after == current):
        found = f"{path} {'does not exist' if current is None else 'is of an earlier setup'}"
        return Step(path, found, (f"{command} > {shlex.quote(path)}",), (Change("file", path),))
    return Step(path, f"{path} is another one ({os.path.basename(path)} of this program differs), and stays")
