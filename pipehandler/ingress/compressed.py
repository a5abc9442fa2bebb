"""Compressed files: gzip, and zstd with the package of the extra `zstd`, or with Python 3.14.

They are known by their first octets, not by their name: Dovecot compresses the files of a Maildir and leaves their names.
No message begins with these octets.
"""

import gzip
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable
from typing import IO, Any

from pipehandler.settings.extras import MissingExtraError, require

from .archived import Refused

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_BLOCK = 4_096  # octets that are decompressed at once; they may become 30,000 times as many


def is_compressed(file: IO[bytes]) -> bool:
    """Whether the file is compressed. Leaves its position at its beginning."""
    head = file.read(4)
    file.seek(0)
    return head.startswith(_GZIP) or head == _ZSTD


def decompressed(file: IO[bytes]) -> IO[bytes]:
    """Return a temporary file with what `file` holds; it is removed when it is closed.

    Raises Refused if that cannot be read, or the package is missing; OSError if there is no room.
    """
    gzipped = file.read(4).startswith(_GZIP)
    file.seek(0)
    spool = tempfile.TemporaryFile(prefix="pipehandler-")  # noqa: SIM115 # the caller closes it
    try:
        if gzipped:
            shutil.copyfileobj(gzip.GzipFile(fileobj=file), spool)
        else:
            _copy_zstd(file, spool)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        spool.close()
        raise Refused(f"it cannot be decompressed: {error}") from error
    except BaseException:
        spool.close()
        raise
    spool.flush()
    spool.seek(0)
    return spool


def _copy_zstd(file: IO[bytes], spool: IO[bytes]) -> None:
    """Decompress all frames. Raises EOFError if the last one has no end."""
    frame, failure = _zstd()
    reader = frame()
    try:
        while octets := file.read(_BLOCK):
            while octets:
                if reader.eof:
                    reader = frame()
                spool.write(reader.decompress(octets))
                octets = reader.unused_data
    except failure as error:
        raise Refused(f"it cannot be decompressed: {error}") from error
    if not reader.eof:
        raise EOFError("it ends in the middle of a frame")


def _zstd() -> tuple[Callable[[], Any], type[Exception]]:
    """What makes a decompressor for one frame, and its error."""
    if sys.version_info >= (3, 14):
        from compression import zstd

        return zstd.ZstdDecompressor, zstd.ZstdError
    try:
        require("zstd", "reading a file that is compressed with zstd")
    except MissingExtraError as error:
        raise Refused(f"{error}; or decompress it first: zstd -d") from error
    import zstandard

    return lambda: zstandard.ZstdDecompressor().decompressobj(), zstandard.ZstdError
