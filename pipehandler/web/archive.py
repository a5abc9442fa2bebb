"""All attachments of a message as one zip file, written while it is sent: nothing is held but one piece, or as many small files."""

import zipfile
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from datetime import datetime
from typing import NamedTuple

from pipehandler.store.inbox_values import InboxAttachment
from pipehandler.store.inboxes import PIECE

from .all_inboxes import AllInboxes
from .headers import safe_file_name


class ArchivedFile(NamedTuple):
    """One file: the name that the sender gave it, and its content in pieces."""

    name: str
    pieces: AsyncIterator[bytes]


async def attached_files(
    inboxes: AllInboxes, key: bytes, delivery: int, parts: Iterable[InboxAttachment]
) -> AsyncIterator[ArchivedFile]:
    """Read attachments for an archive: a large one in pieces, of small ones as many at once as have the octets of a piece."""
    for few in _read_together(parts):
        contents: Mapping[int, bytes] = {}
        if len(few) > 1:
            contents = await inboxes.small_attachments(key, delivery, [part.ordinal for part in few])
        for part in few:
            content = contents.get(part.ordinal)
            pieces = inboxes.attachment(key, delivery, part.ordinal) if content is None else _whole(content)
            yield ArchivedFile(part.file_name or f"attachment-{part.ordinal}", pieces)


def _read_together(parts: Iterable[InboxAttachment]) -> Iterator[list[InboxAttachment]]:
    """Group attachments in their order: each group has at most PIECE octets, or one attachment."""
    few: list[InboxAttachment] = []
    octets = 0
    for part in parts:
        if few and octets + part.size > PIECE:
            yield few
            few, octets = [], 0
        few.append(part)
        octets += part.size
    if few:
        yield few


async def _whole(content: bytes) -> AsyncIterator[bytes]:
    yield content


class _Pieces:
    """A file that cannot seek: what zipfile writes is taken out by `drain`."""

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self._written.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing: `drain` is what takes the octets."""

    def drain(self) -> bytes:
        data = b"".join(self._written)
        self._written.clear()
        return data


async def zip_of(files: AsyncIterator[ArchivedFile], date: datetime) -> AsyncIterator[bytes]:
    """Return a zip file of `files` in pieces. Equal names get a number; every file has the date of the message.

    Files are stored and not compressed: most attachments are compressed already, and compressing would stop the process
    for everyone. An exception of a file's pieces passes through, and the zip file then has no end, so it cannot be taken
    for a whole one.
    """
    target = _Pieces()
    names: set[str] = set()
    moment = min(max(date.timetuple()[:6], (1980, 1, 1, 0, 0, 0)), (2107, 12, 31, 23, 59, 58))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:  # type: ignore[call-overload] # it only writes
        async for file in files:
            entry = zipfile.ZipInfo(_unused(safe_file_name(file.name), names), moment)
            entry.external_attr = 0o600 << 16
            with archive.open(entry, "w", force_zip64=True) as member:
                async for piece in file.pieces:
                    member.write(piece)
                    yield target.drain()
            yield target.drain()
    yield target.drain()


def _unused(name: str, names: set[str]) -> str:
    """Return `name`, with a number if a file of this archive has it; file systems may ignore the case."""
    stem, dot, extension = name.rpartition(".")
    if not dot:
        stem, extension = name, ""
    number = 1
    while name.casefold() in names:
        number += 1
        name = f"{stem} ({number}){dot}{extension}"
    names.add(name.casefold())
    return name
