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
    # Without a digest, setup was interrupted while it wrote the file.
    if current is None or (change is not None and change.after in (None, current)):
        found = f"{path} {'does not exist' if current is None else 'is of an earlier setup'}"
        return Step(path, found, (f"{command} > {shlex.quote(path)}",), (Change("file", path),))
    return Step(path, f"{path} is another one ({os.path.basename(path)} of this program differs), and stays")


def append(path: str, command: str, begin: str, end: str) -> tuple[str, ...]:
    """Return the commands that append the output of `command` between two marker lines, all of it or nothing."""
    new = f"{path}.new"
    unfinished = "" if _ends_with_line_break(path) else "echo; "
    return (
        shlex.join(["cp", "-p", path, new]),
        f"{{ {unfinished}echo {shlex.quote(begin)}; {command}; echo {shlex.quote(end)}; }} >> {shlex.quote(new)}",
        shlex.join(["mv", new, path]),
    )


def _ends_with_line_break(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read().endswith(b"\n")
    except FileNotFoundError:  # Postfix is not installed yet
        return True


def keep(record: Record, *paths: str) -> tuple[list[str], list[Change]]:
    """Return the commands and changes that keep copies of files beside the record, before their first change."""
    copies = {path: os.path.join(os.path.dirname(record.path), f"setup{path.replace('/', '-')}") for path in paths}
    missing = {path: copy for path, copy in copies.items() if not (record.find("copy", path) and os.path.exists(copy))}
    return (
        [shlex.join(["cp", "-p", path, copy]) for path, copy in missing.items()],
        [Change("copy", path, before=copy) for path, copy in missing.items()],
    )


def says_the_same(path: str, other: str) -> bool:
    """Return whether two files of Postfix differ in nothing but line breaks, white space, and repeated parameters."""
    return _content(path) == _content(other)


def _content(path: str) -> tuple[list[str], dict[str, str]]:
    comments: list[str] = []
    entries: list[str] = []
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            if line.lstrip().startswith("#"):
                comments.append(line.strip())
            elif line[0].isspace() and entries:
                entries[-1] += line
            elif line.strip():
                entries.append(line)
    parts = [entry.partition("=") for entry in entries]
    # Of a parameter, which is one word, the last value counts; other entries are those of master.cf.
    return comments, {
        " ".join((name if len(name.split()) == 1 else entry).split()): " ".join(value.split())
        for entry, (name, _, value) in zip(entries, parts, strict=True)
    }
