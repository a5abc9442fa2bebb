"""All attachments as one zip file, in pieces."""

import io
import zipfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from harness.loop import run_in_loop

from pipehandler.web.archive import ArchivedFile, zip_of

DATE = datetime(2026, 11, 27, 10, 30, 2, tzinfo=UTC)


async def pieces_of(*pieces: bytes) -> AsyncIterator[bytes]:
    """The content of one file."""
    for piece in pieces:
        yield piece


async def collected(files: list[ArchivedFile], date: datetime = DATE) -> list[bytes]:
    """All pieces of the zip file."""
    return [piece async for piece in zip_of(files, date)]


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
        async for piece in zip_of([ArchivedFile("a", broken())], DATE):
            sent.append(piece)

    with pytest.raises(ConnectionError):
        run_in_loop(send())
    assert sent
    with pytest.raises(zipfile.BadZipFile):
        zipfile.ZipFile(io.BytesIO(b"".join(sent)))
