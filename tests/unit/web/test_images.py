"""Types and dimensions of images, from their first octets."""

import pytest
from harness.images import gif, jpeg, png, webp

from pipehandler.web.images import MAX_THUMBNAIL, ImageType, image_type, thumbnail_type


@pytest.mark.parametrize(
    ("head", "media_type"),
    [
        (png(640, 480), "image/png"),
        (jpeg(640, 480), "image/jpeg"),
        (jpeg(640, 480, before=200_000), "image/jpeg"),
        (gif(640, 480), "image/gif"),
        (gif(1, 1, frame=(640, 480)), "image/gif"),
        (webp(b"VP8X", 640, 480), "image/webp"),
        (webp(b"VP8L", 640, 480), "image/webp"),
        (webp(b"VP8 ", 640, 480), "image/webp"),
    ],
)
def test_types(head: bytes, media_type: str) -> None:
    """Each type with its dimensions; what is cut off anywhere raises nothing."""
    assert image_type(head) == ImageType(media_type, 640, 480)
    for size in range(len(head) if len(head) < 500 else 200):
        image_type(head[:size])


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"<html>",
        b"BM" + b"\0" * 60,
        b"\0\0\1\0" * 9,
        b"%PDF-1.7",
        b"RIFF" + b"\0" * 40,
    ],
)
def test_others(head: bytes) -> None:
    """SVG is a document, and of other types nothing is known."""
    assert image_type(head) is None
    assert thumbnail_type(len(head), head) is None


def test_thumbnails() -> None:
    """Small enough as a file and as pixels: a PNG of 30,000 by 30,000 has few octets and 3.6 GB."""
    assert thumbnail_type(1000, png(4000, 4000)) == "image/png"
    assert thumbnail_type(MAX_THUMBNAIL + 1, png(40, 40)) is None
    for head in (
        png(30_000, 30_000),
        jpeg(65_535, 65_535),
        gif(1, 1, frame=(65_535, 65_535)),
        webp(b"VP8X", 16384, 16384),
    ):
        assert image_type(head)
        assert thumbnail_type(len(head), head) is None
    assert thumbnail_type(1000, png(0, 10)) is None
