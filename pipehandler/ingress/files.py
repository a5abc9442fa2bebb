"""The ingress import: find the messages in files, for repairing and moving mail.

A file is one message, or an mbox, perhaps compressed; a folder is a Maildir with the folders in it, or has *.eml files
somewhere below it.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack
from typing import IO, NamedTuple

from . import mbox
from .archived import Receipt, Refused, check, receipt
from .compressed import decompressed, is_compressed


class File(NamedTuple):
    """One file: its path; whether it was found in a folder instead of named by the caller; a display name, if not the path;
    whether its time says when its messages were received."""

    path: str
    found: bool = False
    alias: str = ""
    dated: bool = True

    @property
    def name(self) -> str:
        """The display name."""
        return self.alias or self.path

    @property
    def size(self) -> int:
        """Its octets, 0 if that is not known."""
        try:
            return os.stat(self.path, follow_symlinks=not self.found).st_size
        except OSError:
            return 0


class Message(NamedTuple):
    """One message: the name of its file, with a number if it is an mbox; its bytes, or why it is refused.

    readings: what its bytes may be, the likeliest first; more than one only for some in an mbox. receipt: when it was received.
    doubts: see mbox.Entry. share: which part of its file it is, from 0 to 1.
    """

    name: str
    readings: tuple[bytes, ...] = ()
    receipt: Receipt | None = None
    refused: str = ""
    doubts: tuple[str, ...] = ()
    share: float = 1.0


def files(path: str) -> list[File]:
    """List the files that `path` stands for, in order. Raises Refused."""
    try:
        if not os.path.isdir(path):
            os.stat(path)
            return [File(path)]
        if _is_maildir(path):
            return list(_of_maildir(path))
        return _eml_files(path)
    except OSError as error:
        raise Refused(_why(error)) from error


def messages(file: File, largest: int) -> Iterator[Message]:
    """Read the messages in a file; one that cannot be read, is none, or has more than `largest` octets, comes without its bytes."""
    try:
        # A FIFO must not keep us waiting; and the owner of a folder may link to what only we may read.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_NOFOLLOW if file.found else 0)
        with ExitStack() as stack:
            stored = stack.enter_context(open(os.open(file.path, flags), "rb"))
            seen = os.fstat(stored.fileno())
            if not stat.S_ISREG(seen.st_mode):
                yield Message(file.name, refused="not a regular file; use - to read a message or an mbox from stdin")
                return
            stream = stack.enter_context(decompressed(stored)) if is_compressed(stored) else stored
            yield from _messages(file, stream, seen.st_mtime if file.dated else None, largest)
    except Refused as error:
        yield Message(file.name, refused=str(error))
    except OSError as error:
        yield Message(file.name, refused=_why(error))
    except MemoryError:
        yield Message(file.name, refused="it does not fit into memory (limits.memory)")


def _messages(file: File, stream: IO[bytes], modified: float | None, largest: int) -> Iterator[Message]:
    size = os.fstat(stream.fileno()).st_size
    if not size:
        yield Message(file.name, refused="the file is empty")
    elif not file.path.lower().endswith((".eml", ".eml.gz", ".eml.zst")) and mbox.is_mbox(stream.fileno()):
        for number, entry in enumerate(mbox.read(stream.fileno(), largest), 1):
            share = entry.size / size
            refused = "" if entry.size else "nothing below its From line"
            if entry.size > largest:
                refused = _too_large(entry.size, largest)
            name = f"{file.name}#{number}"
            if refused:
                yield Message(name, refused=refused, doubts=entry.doubts, share=share)
            else:
                yield _checked(name, entry.readings, entry.time, modified, entry.doubts, share)
    elif size > largest:
        yield Message(file.name, refused=_too_large(size, largest))
    else:
        yield _checked(file.name, (stream.read(),), "", modified)


def _checked(
    name: str,
    readings: tuple[bytes, ...],
    time: str,
    modified: float | None,
    doubts: tuple[str, ...] = (),
    share: float = 1.0,
) -> Message:
    """The message, refused if it is none."""
    try:
        check(readings[0])
    except Refused as error:
        return Message(name, refused=str(error), doubts=doubts, share=share)
    return Message(name, readings, receipt(readings[0], time, modified), doubts=doubts, share=share)


def _is_maildir(path: str) -> bool:
    return all(os.path.isdir(os.path.join(path, name)) for name in ("cur", "new", "tmp"))


def _of_maildir(path: str) -> Iterator[File]:
    """Yield the files of a Maildir and of all folders in it, in order: those of Maildir++ (`.Work`), and folders in folders. Some
    programs that copy files leave empty folders out, so `cur` or `new` is enough."""
    for inner, folders, names in os.walk(path, onerror=_raise):
        if os.path.basename(inner) in ("cur", "new"):
            yield from (File(os.path.join(inner, name), True) for name in sorted(names) if name[0] != ".")
            folders.clear()
        folders[:] = sorted(name for name in folders if name != "tmp")


def _raise(error: OSError) -> None:
    raise error


def _eml_files(folder: str) -> list[File]:
    found = [
        File(os.path.join(inner, name), True)
        for inner, _, names in os.walk(folder, onerror=_raise)
        for name in names
        if name.lower().endswith((".eml", ".eml.gz", ".eml.zst"))
    ]
    if not found:
        raise Refused("neither a Maildir nor a folder with *.eml files")
    return sorted(found)


def _too_large(size: int, largest: int) -> str:
    return f"{size} octets, more than limits.message_size = {largest}"


def _why(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "a symbolic link in a folder; name its target"
    return os.strerror(error.errno or 0)
