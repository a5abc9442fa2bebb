"""tnef: the content of a winmail.dat, in all of its forms, at a linear cost."""

import contextlib
import struct
import time
from collections.abc import Callable

import compressed_rtf
import pytest

from pipehandler.parse.content_type import TNEF_SIGNATURE as SIGNATURE
from pipehandler.parse.tnef import Broken, File, read, text_of_rtf

MESSAGE, ATTACHMENT = 1, 2
BODY, DATA, TITLE, REND, MAPI, ATTACH, CODEPAGE = 0x800C, 0x800F, 0x8010, 0x9002, 0x9003, 0x9005, 0x9007
INTERFACE = bytes.fromhex("0703020000000000c000000000000046")


def attribute(level: int, number: int, data: bytes) -> bytes:
    """MS-OXTNEF 2.1.3.3."""
    return struct.pack("<BHHI", level, number, 6, len(data)) + data + struct.pack("<H", sum(data) & 0xFFFF)


def prop(kind: int, number: int, *values: bytes, name: bytes = b"") -> bytes:
    """MS-OXTNEF 2.1.3.4; a single value of fixed size without a count, all others with counts."""
    head = struct.pack("<HH", kind, number) + name
    if kind & 0x1000 or kind in (0x0D, 0x1E, 0x1F, 0x102):
        head += struct.pack("<I", len(values))
    if kind & 0xFFF in (0x0D, 0x1E, 0x1F, 0x102):
        return head + b"".join(struct.pack("<I", len(each)) + each + b"\0" * (-len(each) % 4) for each in values)
    content = b"".join(values)
    return head + content + b"\0" * (-len(content) % 4)


def properties(*each: bytes) -> bytes:
    """A set of them."""
    return struct.pack("<I", len(each)) + b"".join(each)


def wide(text: str) -> bytes:
    """A PT_UNICODE value."""
    return (text + "\0").encode("utf-16-le")


def stream(*attributes: bytes) -> bytes:
    """A whole winmail.dat."""
    return SIGNATURE + b"\x01\0" + attribute(MESSAGE, 0x9006, b"\0\0\1\0") + b"".join(attributes)


FILE = (attribute(ATTACHMENT, REND, b"\1\0" + b"\0" * 12), attribute(ATTACHMENT, TITLE, b"REPORT~1.TXT\0"),
        attribute(ATTACHMENT, DATA, b"figures\n"))  # fmt: skip


def test_files_with_short_and_long_names() -> None:
    """The long name takes precedence; type and Content-ID are used if present."""
    named = properties(
        prop(0x03, 0x0E21, b"\1\0\0\0"), prop(0x0B, 0x7FFE, b"\1\0"), prop(0x1F, 0x3707, wide("Bericht für Köln.txt")),
        prop(0x1E, 0x370E, b"text/plain\0"), prop(0x1F, 0x3712, wide("<i@x.example>")),
    )  # fmt: skip
    contents = read(stream(*FILE, *FILE, attribute(ATTACHMENT, ATTACH, named)), 10)
    assert contents.files == [
        File("REPORT~1.TXT", content=b"figures\n"),
        File("Bericht für Köln.txt", "text/plain", "<i@x.example>", b"figures\n"),
    ]
    assert contents.complete


def test_content_as_a_property() -> None:
    """Some writers put it there."""
    held = properties(prop(0x102, 0x3701, b"abc"), prop(0x1F, 0x3704, wide("a.bin")))
    assert read(stream(FILE[0], attribute(ATTACHMENT, ATTACH, held)), 10).files == [File("a.bin", content=b"abc")]


def test_properties_of_every_size_are_passed() -> None:
    """Named properties, those with several values, of two, eight, sixteen octets: the next property is found."""
    guid = b"\1" * 16
    before = (
        prop(0x02, 0x6001, b"\1\0"), prop(0x1002, 0x6002, b"\1\0", b"\2\0", b"\3\0"), prop(0x1003, 0x6003, b"\1\0\0\0", b"\2\0\0\0", b"\3\0\0\0"),
        prop(0x40, 0x6004, b"\1" * 8), prop(0x48, 0x6005, guid), prop(0x101F, 0x6006, wide("a"), wide("bcd")),
        prop(0x03, 0x8001, b"\1\0\0\0", name=guid + struct.pack("<II", 0, 5)),
        prop(0x03, 0x8002, b"\1\0\0\0", name=guid + struct.pack("<II", 1, 6) + wide("ab") + b"\0\0"),
    )  # fmt: skip
    for each in before:
        found = read(stream(attribute(MESSAGE, MAPI, properties(each, prop(0x1F, 0x1000, wide("text"))))), 10)
        assert found.text == "text"


@pytest.mark.parametrize(
    ("attributes", "text", "html"),
    [
        ([attribute(MESSAGE, BODY, b"plain\0")], "plain", None),
        ([attribute(MESSAGE, CODEPAGE, b"\xe3\x04\0\0\0\0\0\0"), attribute(MESSAGE, BODY, "текст".encode("cp1251"))], "текст", None),
        ([attribute(MESSAGE, MAPI, properties(prop(0x1F, 0x1000, wide("Köln"))))], "Köln", None),
        ([attribute(MESSAGE, MAPI, properties(prop(0x03, 0x3FDE, struct.pack("<I", 65001)),
                                              prop(0x102, 0x1013, "<p>Köln".encode())))], None, "<p>Köln"),
        ([attribute(MESSAGE, MAPI, properties(prop(0x03, 0x3FDE, struct.pack("<I", 20866)),
                                              prop(0x102, 0x1013, "<p>текст".encode("koi8-r"))))], None, "<p>текст"),
    ],
)  # fmt: skip
def test_bodies(attributes: list[bytes], text: str | None, html: str | None) -> None:
    """Text and HTML in the charset that is named."""
    contents = read(stream(*attributes), 10)
    assert (contents.text, contents.html) == (text, html)


def test_text_of_rtf() -> None:
    """Compressed or not (MS-OXRTFCP); None if it is not RTF, or too large."""
    rtf = rb"{\rtf1\ansi\ansicpg1252{\fonttbl{\f0\fswiss Arial;}}\f0 Gr\'fc\'dfe,\par K\u246?ln}"
    for packed in (compressed_rtf.compress(rtf), compressed_rtf.compress(rtf, compressed=False)):
        contents = read(stream(attribute(MESSAGE, MAPI, properties(prop(0x102, 0x1009, packed)))), 10)
        assert text_of_rtf(contents.rtf) == "Grüße,\nKöln"
    assert text_of_rtf(b"") is None
    assert text_of_rtf(b"\0" * 20) is None
    assert text_of_rtf(compressed_rtf.compress(b"x" * 400_000, compressed=False)) is None


def test_an_attached_message() -> None:
    """Its content is another stream, after the identifier of its interface."""
    inner = stream(*FILE)
    held = properties(prop(0x0D, 0x3701, INTERFACE + inner), prop(0x1F, 0x3001, wide("Re: figures")))
    (file,) = read(stream(FILE[0], attribute(ATTACHMENT, ATTACH, held)), 10).files
    assert (file.name, file.message, file.content) == ("Re: figures", True, inner)


def test_a_cut_leaves_what_was_before_it() -> None:
    """The rest of a stream that ends early is missing, and a defect records it."""
    whole = stream(attribute(MESSAGE, BODY, b"plain"), *FILE)
    for end in range(len(whole)):
        with contextlib.suppress(Broken):
            contents = read(whole[:end], 10)
            assert contents.text is None or b"plain".startswith(contents.text.encode())
            assert all(b"figures\n".startswith(file.content) for file in contents.files)
            assert contents.complete is (whole[:end] in _wholes(whole))


def _wholes(whole: bytes) -> set[bytes]:
    """The streams that end between two attributes."""
    ends, at = {6}, 6
    while at < len(whole):
        at += 11 + struct.unpack_from("<I", whole, at + 5)[0]
        ends.add(at)
    return {whole[:end] for end in ends}


def test_no_more_files_than_the_limit() -> None:
    """The surplus files are left out, and the result is marked as incomplete."""
    contents = read(stream(*FILE * 5), 3)
    assert (len(contents.files), contents.complete) == (3, False)


@pytest.mark.parametrize("octets", [b"", b"x" * 100, SIGNATURE[:3]])
def test_no_stream(octets: bytes) -> None:
    """What has no signature is something else."""
    with pytest.raises(Broken):
        read(octets, 10)


@pytest.mark.parametrize(
    "made",
    [
        lambda: stream(attribute(MESSAGE, BODY, b"") * 900_000),
        lambda: stream(b"".join(FILE) * 100_000),
        lambda: stream(attribute(MESSAGE, MAPI, properties(*[prop(0x03, 0x6001, b"\0" * 4)] * 1_000)) * 1_000),
        lambda: stream(attribute(MESSAGE, MAPI, struct.pack("<I", 1) + struct.pack("<HHI", 0x101F, 0x6001, 1 << 31) + b"\0" * 8_000_000)),
        lambda: SIGNATURE + b"\0" * 10_000_000,
        lambda: SIGNATURE + b"\xff" * 10_000_000,
    ],
    ids=["attributes", "files", "properties", "values", "zeros", "ones"],
)  # fmt: skip
def test_no_stream_is_costly(made: Callable[[], bytes]) -> None:
    """Ten megabytes cost less than two seconds. They are made here, not kept from the collection of the tests on."""
    octets = made()
    begin = time.process_time()
    read(octets, 1_000)
    assert time.process_time() - begin < 2


@pytest.mark.parametrize(
    "rtf",
    [b"{\\field{\\*\\fldinst{" * 15_000, b"{\\fonttbl" + b"\\f1" * 90_000, b"{\\fonttbl" + b"{\\f1 " * 1_600 + b"}" * 1_600,
     b"{" * 290_000, b"\\'e4" * 70_000, b"\\u1?" * 60_000, b"{\\pict\\bin1" + b"1" * 200_000, b"a" * 290_000],
)  # fmt: skip
def test_no_rtf_is_costly(rtf: bytes) -> None:
    """Input on which the RTF readers are slow is not passed to them."""
    begin = time.process_time()
    text_of_rtf(compressed_rtf.compress(rtf, compressed=False))
    assert time.process_time() - begin < 2
