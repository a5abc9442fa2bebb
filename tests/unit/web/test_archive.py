"""All attachments as one zip file, in pieces."""

import io
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from harness.loop import run_in_loop

from pipehandler.store.inbox_values import InboxAttachment
from pipehandler.store.inboxes import PIECE
from pipehandler.web.archive import ArchivedFile, attached_files, zip_of

DATE = datetime(2026, 11, 27, 10, 30, 2, tzinfo=UTC)


async def pieces_of(*pieces: bytes) -> AsyncIterator[bytes]:
    """The content of one file."""
    for piece in pieces:
        yield piece


async def each(files: list[ArchivedFile]) -> AsyncIterator[ArchivedFile]:
    """These files."""
    for file in files:
        yield file


async def collected(files: list[ArchivedFile], date: datetime = DATE) -> list[bytes]:
    """All pieces of the zip file."""
    return [piece async for piece in zip_of(each(files), date)]


def test_a_whole_archive() -> None:
    """Python's own reader finds every file, with its octets and a name of its own, and unzip would too."""
    large = [bytes([number]) * 262_144 for number in range(20)]
    files = [
        ArchivedFile("a.txt", pieces_of(b"one", b"two")),
        ArchivedFile("A.txt", pieces_of()),
        ArchivedFile("../a.txt", pieces_of(b"three")),
        ArchivedFile("名前", pieces_of(*large)),
        ArchivedFile("名前", pieces_of(b"x")),
    ]
    pieces = run_in_loop(collected(files))
    assert max(map(len, pieces)) < 300_000  # one piece at a time
    with zipfile.ZipFile(io.BytesIO(b"".join(pieces))) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["a.txt", "A (2).txt", "_a.txt", "名前", "名前 (2)"]
        assert archive.read("a.txt") == b"onetwo"
        assert archive.read("名前") == b"".join(large)
        assert archive.infolist()[0].date_time == (2026, 11, 27, 10, 30, 2)


class Read:
    """What stands for the inboxes: attachments of these sizes. asked: the ordinals of each query."""

    def __init__(self, *sizes: int) -> None:
        self.parts = [
            InboxAttachment(ordinal, "1", None, "a/b", None, None, size, True, {}, None, None)
            for ordinal, size in enumerate(sizes, 1)
        ]
        self.asked: list[list[int]] = []

    async def attachment(self, _key: bytes, _delivery: int, ordinal: int) -> AsyncIterator[bytes]:
        """In pieces."""
        self.asked.append([ordinal])
        size = self.parts[ordinal - 1].size
        for first in range(0, size, PIECE):
            yield bytes(min(PIECE, size - first))

    async def small_attachments(self, _key: bytes, _delivery: int, ordinals: list[int]) -> dict[int, bytes]:
        """Several at once."""
        self.asked.append(ordinals)
        return {ordinal: bytes(self.parts[ordinal - 1].size) for ordinal in ordinals}


@pytest.mark.parametrize(
    ("sizes", "queries"),
    [
        ([1] * 913, [913]),
        ([0] * 1000, [1000]),
        ([3], [1]),
        ([PIECE, 1, 1], [1, 2]),
        ([1, 1, PIECE - 1, 1, PIECE + 1, 1, 2 * PIECE], [2, 2, 1, 1, 1]),
        ([1000] * 913, [262, 262, 262, 127]),
    ],
)
def test_small_files_are_read_together(sizes: list[int], queries: list[int]) -> None:
    """Many attachments take a few queries, each of at most the octets of a piece, so that other visitors wait for none."""
    read = Read(*sizes)

    async def whole() -> list[int]:
        files = attached_files(read, b"key", 1, read.parts)  # type: ignore[arg-type] # what it asks of them
        return [len(b"".join([piece async for piece in file.pieces])) async for file in files]

    assert run_in_loop(whole()) == sizes
    assert [len(ordinals) for ordinals in read.asked] == queries
    assert [ordinal for ordinals in read.asked for ordinal in ordinals] == [part.ordinal for part in read.parts]


def test_any_date() -> None:
    """A zip file has dates from 1980 to 2107, and mail has others."""
    for year in (1, 1970, 9999):
        pieces = run_in_loop(collected([ArchivedFile("a", pieces_of(b"x"))], datetime(year, 1, 1, tzinfo=UTC)))
        assert zipfile.ZipFile(io.BytesIO(b"".join(pieces))).read("a") == b"x"


def test_a_content_that_ends_early() -> None:
    """What is sent until then is not a zip file that opens."""

    async def broken() -> AsyncIterator[bytes]:
        yield b"some"
        raise ConnectionError

    sent = []

    async def send() -> None:
        async for piece in zip_of(each([ArchivedFile("a", broken())]), DATE):
            sent.append(piece)

    with pytest.raises(ConnectionError):
        run_in_loop(send())
    assert sent
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(b"".join(sent)))
