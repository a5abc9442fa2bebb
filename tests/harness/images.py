"""Images of any dimensions, as few octets."""

import struct
import zlib


def png(width: int, height: int) -> bytes:
    """The beginning of a PNG, which is a whole one if it is small."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * (width + 1) * height) if width * height < 10_000 else b""
    chunks = ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def jpeg(width: int, height: int, before: int = 0) -> bytes:
    """The header of a JPEG with `before` octets of other segments (EXIF, previews) before its dimensions."""
    segments = b""
    while before > 0:
        size = min(before, 65_000)
        segments += b"\xff\xe1" + struct.pack(">H", size + 2) + b"\xff\xc0" * (size // 2) + b"\0" * (size % 2)
        before -= size
    return b"\xff\xd8" + segments + b"\xff\xff\xc2" + struct.pack(">HBHH", 17, 8, height, width) + b"\3" * 10


def gif(width: int, height: int, frame: tuple[int, int] | None = None) -> bytes:
    """A GIF with a table of colours and a comment; its frame may be larger than its screen."""
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0" * 6 + b"\x21\xfe\x03abc\0"
    return head + b"\x2c" + struct.pack("<HHHHB", 0, 0, *(frame or (width, height)), 0) + b"\2\1\0\0;"


def webp(kind: bytes, width: int, height: int) -> bytes:
    """The header of a WebP of each of its three forms."""
    body = {
        b"VP8X": b"\0" * 4 + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little"),
        b"VP8L": b"\x2f" + (width - 1 | height - 1 << 14).to_bytes(4, "little") + b"\0" * 10,
        b"VP8 ": b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height),
    }[kind]
    return b"RIFF" + struct.pack("<I", len(body) + 12) + b"WEBP" + kind + struct.pack("<I", len(body)) + body
