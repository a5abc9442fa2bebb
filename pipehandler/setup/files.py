"""Files that setup writes if they are missing, rewrites if they are unchanged since, and keeps otherwise."""

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
    """Return the step that makes `text`, the output of `command`, the content of the file at `path`."""
    current = digest(path)
    if current == hashlib.sha256(text.encode()).hexdigest():
        return Step(path, f"{path} is as it should be")
    change = record.find("file", path)
    if current is None or (change is not None and change.after == current):
        found = f"{path} {'does not exist' if current is None else 'is of an earlier setup'}"
        return Step(path, found, (f"{command} > {shlex.quote(path)}",), (Change("file", path),))
    return Step(path, f"{path} is another one ({os.path.basename(path)} of this program differs), and stays")
