"""Which images a page may show: their type and dimensions, as the first octets state them, never as a sender does.

A browser decodes an image into four octets for each pixel, whatever the size of the file: a PNG of 30,000 by 30,000
pixels has a few hundred kilobytes and takes 3.6 GB. So what is larger than MAX_PIXELS is offered as a file and not
shown. SVG is a document and is never shown.
"""

from collections.abc import Iterator
from typing import NamedTuple

HEAD = 262_144
"""Octets from the beginning of a file that `image_type` wants; a photograph has its preview before its dimensions."""
MAX_PIXELS = 16_000_000
"""The largest image that is shown."""
MAX_THUMBNAIL = 1_000_000
"""Octets of the largest attachment that is shown in the list of attachments."""
MAX_INLINE = 2_000_000
"""Octets of all images together that one message shows inline."""


class InlineImage(NamedTuple):
    """The content of a part that HTML names by its Content-ID (RFC 2392)."""

    content: bytes


class ImageType(NamedTuple):
    """What the first octets of a file state: its media type, and its dimensions in pixels."""

    media_type: str
    width: int
    height: int

    @property
    def showable(self) -> bool:
        """Whether a browser can decode it without harm."""
        return 0 < self.width * self.height <= MAX_PIXELS


def image_type(head: bytes) -> ImageType | None:
    """Return the type and dimensions of a PNG, JPEG, GIF or WebP; None for everything else, and what is damaged."""
    for media_type, read in _READERS:
        size = read(head)
        if size:
            return ImageType(media_type, *size)
    return None


def thumbnail_type(size: int, head: bytes) -> str | None:
    """Return the media type under which an attachment of `size` octets may be shown; None if it may not be."""
    found = image_type(head) if size <= MAX_THUMBNAIL else None
    return found.media_type if found and found.showable else None


def _png(head: bytes) -> tuple[int, int] | None:
    if not head.startswith(b"\x89PNG\r\n\x1a\n") or head[12:16] != b"IHDR" or len(head) < 24:
        return None
    return int.from_bytes(head[16:20]), int.from_bytes(head[20:24])


def _gif(head: bytes) -> tuple[int, int] | None:
    """The screen, and the frames, which may be larger than it (GIF89a, sections 18 and 20)."""
    if head[:6] not in (b"GIF87a", b"GIF89a") or len(head) < 13:
        return None
    width, height = int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    for right, bottom in _gif_frames(head):
        width, height = max(width, right), max(height, bottom)
    return width, height


def _gif_frames(head: bytes) -> Iterator[tuple[int, int]]:
    at = 13 + _colours(head[10])
    while at + 10 < len(head):
        if head[at] == 0x21:
            at = _after_blocks(head, at + 2)
        elif head[at] == 0x2C:
            left, top, width, height = (int.from_bytes(head[at + n : at + n + 2], "little") for n in (1, 3, 5, 7))
            yield left + width, top + height
            at = _after_blocks(head, at + 11 + _colours(head[at + 9]))
        else:
            return


def _colours(flags: int) -> int:
    """Return the octets of the table of colours that these flags announce."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after_blocks(head: bytes, at: int) -> int:
    while at < len(head) and head[at]:
        at += head[at] + 1
    return at + 1


_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _jpeg(head: bytes) -> tuple[int, int] | None:
    """The first frame header; the segments before it have lengths (ITU T.81, B.1.1.4)."""
    if not head.startswith(b"\xff\xd8\xff"):
        return None
    at = 2
    while at + 9 <= len(head) and head[at] == 0xFF:
        marker = head[at + 1]
        if marker in _START_OF_FRAME:
            return int.from_bytes(head[at + 7 : at + 9]), int.from_bytes(head[at + 5 : at + 7])
        if marker == 0xFF:  # a fill octet
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD9:
            at += 2
        else:
            at += 2 + max(2, int.from_bytes(head[at + 2 : at + 4]))
    return None


def _webp(head: bytes) -> tuple[int, int] | None:
    """The canvas (RFC 9649, 2.5 to 2.7); a frame may not be larger than it."""
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP" or len(head) < 30:
        return None
    if head[12:16] == b"VP8X":
        return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
    if head[12:16] == b"VP8L" and head[20] == 0x2F:
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if head[12:16] == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
    return None


_READERS = (("image/png", _png), ("image/jpeg", _jpeg), ("image/gif", _gif), ("image/webp", _webp))
