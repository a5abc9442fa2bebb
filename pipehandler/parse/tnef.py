"""Read the files and the text inside a winmail.dat: MS-OXTNEF, with the properties of MS-OXPROPS.

One pass over the attributes, bounded like the rest of the parser; TNEF libraries copy the remaining octets for each
attribute, which is quadratic. Text that exists only as RTF is converted by libraries, up to a size.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from .content_type import TNEF_SIGNATURE
from .decoding import decode

# MS-OXTNEF 2.1.3.3: attributes.
_BODY, _ATTACH_DATA, _ATTACH_TITLE, _ATTACH_REND, _MAPI, _ATTACHMENT, _CODEPAGE = (
    0x800C, 0x800F, 0x8010, 0x9002, 0x9003, 0x9005, 0x9007,
)  # fmt: skip
# MS-OXPROPS: properties of the message and of an attachment.
_PLAIN, _RTF, _HTML, _INTERNET_CODEPAGE = 0x1000, 0x1009, 0x1013, 0x3FDE
_DATA, _FILE_NAME, _LONG_FILE_NAME, _MIME_TAG, _CONTENT_ID, _DISPLAY_NAME = (
    0x3701, 0x3704, 0x3707, 0x370E, 0x3712, 0x3001,
)  # fmt: skip
_WANTED = frozenset({
    _PLAIN, _RTF, _HTML, _INTERNET_CODEPAGE, _DATA, _FILE_NAME, _LONG_FILE_NAME, _MIME_TAG, _CONTENT_ID, _DISPLAY_NAME,
})  # fmt: skip
# MS-OXTNEF 2.1.3.4: property types and their sizes; types of variable size have a count.
_SIZES = {
    0x01: 4, 0x02: 2, 0x03: 4, 0x04: 4, 0x05: 8, 0x06: 8, 0x07: 8, 0x0A: 4, 0x0B: 2, 0x14: 8, 0x40: 8, 0x48: 16,
}  # fmt: skip
_OBJECT, _STRING8, _UNICODE, _BINARY = 0x0D, 0x1E, 0x1F, 0x102
_VARIABLE = frozenset({_OBJECT, _STRING8, _UNICODE, _BINARY})
_MANY = 0x1000  # a flag in the type: multiple values
_MESSAGE_INTERFACE = bytes.fromhex("0703020000000000c000000000000046")  # an attached message follows, as another TNEF
_ATTRIBUTES = 20_000
_PROPERTIES = 500  # of one message or attachment; real ones have fewer than 200
_RTF_SIZE = 300_000  # octets, compressed or not, at about two microseconds each
_FONTS_SIZE = 8_192  # octets of an RTF font table, which the library scans repeatedly
# Windows code pages whose charset is not named "cp" and the number.
_CODEPAGES = {
    20127: "us-ascii", 20866: "koi8-r", 21866: "koi8-u", 28591: "iso-8859-1", 28592: "iso-8859-2", 28595: "iso-8859-5",
    28597: "iso-8859-7", 28599: "iso-8859-9", 28605: "iso-8859-15", 50220: "iso-2022-jp", 50225: "iso-2022-kr",
    51932: "euc-jp", 51949: "euc-kr", 52936: "hz-gb-2312", 54936: "gb18030", 65001: "utf-8",
}  # fmt: skip


class Broken(Exception):
    """The octets do not have the structure of MS-OXTNEF."""


@dataclass(slots=True)
class File:
    """One attachment: its name, media type and Content-ID if they are given, and its octets.

    `message`: the octets are a TNEF stream of their own, an attached message.
    """

    name: str | None = None
    content_type: str | None = None
    content_id: str | None = None
    content: bytes = b""
    message: bool = False


@dataclass(slots=True)
class Contents:
    """The files in a TNEF stream, and its text in each form it has (`rtf` is compressed).

    `complete` is False if the stream is truncated or exceeds a limit.
    """

    files: list[File] = field(default_factory=list)
    text: str | None = None
    html: str | None = None
    rtf: bytes = b""
    complete: bool = True

    def bodies(self) -> tuple[str | None, str | None]:
        """Return the text, converted from RTF if there is no other form, and the HTML."""
        return self.text or (None if self.html else text_of_rtf(self.rtf)), self.html


def read(octets: bytes, files: int) -> Contents:
    """Read a TNEF stream, with at most `files` of its attachments. Raises Broken if it is not one."""
    if not octets.startswith(TNEF_SIGNATURE):
        raise Broken("no TNEF signature")
    contents, codepage = Contents(complete=len(octets) >= 6), "cp1252"
    view, position = memoryview(octets), 6
    for _ in range(_ATTRIBUTES):
        if position >= len(octets):
            break
        contents.complete = position + 9 <= len(octets)
        if not contents.complete:
            break
        _, attribute, _, size = struct.unpack_from("<BHHI", octets, position)
        data = view[position + 9 : position + 9 + size]
        position += 9 + size + 2  # a checksum follows
        contents.complete = position <= len(octets)
        if attribute == _CODEPAGE and len(data) >= 4:
            codepage = _label(int.from_bytes(data[:4], "little"))
        elif attribute == _BODY:
            contents.text = _text(bytes(data), codepage)
        elif attribute == _MAPI:
            _read_message(dict(_properties(data)), codepage, contents)
        elif attribute == _ATTACH_REND:
            if len(contents.files) >= files:
                contents.complete = False
                break
            contents.files.append(File())
        elif contents.files and attribute in (_ATTACH_DATA, _ATTACH_TITLE, _ATTACHMENT):
            _read_attachment(attribute, data, codepage, contents.files[-1])
    else:
        contents.complete = position >= len(octets)
    return contents


def text_of_rtf(packed: bytes) -> str | None:
    """Return the text of a compressed RTF body (MS-OXRTFCP); None if it is too large or broken."""
    if len(packed) > _RTF_SIZE or int.from_bytes(packed[4:8], "little") > _RTF_SIZE:
        return None
    from compressed_rtf import decompress  # few messages have no other text
    from striprtf.striprtf import font_table_group, rtf_to_text

    try:
        # RTF ignores line ends; this one stops the library's regular expression for links, which takes cubic time.
        rtf = decompress(packed)[:_RTF_SIZE].decode("latin-1").replace("\\fldinst", "\\fldinst\n")
        if len(font_table_group(rtf)) > _FONTS_SIZE:
            return None
        return str(rtf_to_text(rtf, errors="ignore")).strip("\0 \n") or None
    except MemoryError:
        raise  # the caller's limit
    except Exception:  # noqa: BLE001 # these libraries do not say what they raise
        return None


def _label(codepage: int) -> str:
    return _CODEPAGES.get(codepage, f"cp{codepage}")


def _read_message(found: dict[int, object], codepage: str, contents: Contents) -> None:
    if isinstance(number := found.get(_INTERNET_CODEPAGE), int):
        codepage = _label(number)
    if (text := found.get(_PLAIN)) is not None:
        contents.text = _text(text, codepage)
    if (html := found.get(_HTML)) is not None:
        contents.html = _text(html, codepage)
    if isinstance(rtf := found.get(_RTF), bytes):
        contents.rtf = rtf


def _read_attachment(attribute: int, data: memoryview, codepage: str, file: File) -> None:
    if attribute == _ATTACH_DATA:
        file.content = bytes(data)
    elif attribute == _ATTACH_TITLE:
        file.name = file.name or _text(bytes(data), codepage)
    else:
        found = dict(_properties(data))
        content = found.get(_DATA)
        if isinstance(content, bytes):
            file.message = content.startswith(_MESSAGE_INTERFACE + TNEF_SIGNATURE)
            # An object begins with its interface identifier.
            file.content = content[16:] if file.message else content
        for number in (_LONG_FILE_NAME, _FILE_NAME, _DISPLAY_NAME):
            if name := _text(found.get(number), codepage):
                file.name = name if number == _LONG_FILE_NAME else file.name or name
                break
        file.content_type = _text(found.get(_MIME_TAG), codepage)
        file.content_id = _text(found.get(_CONTENT_ID), codepage)


def _properties(data: memoryview) -> Iterator[tuple[int, object]]:
    """Yield the wanted properties with their values: an int, a str for Unicode, or bytes (MS-OXTNEF 2.1.3.4)."""
    position = 4
    for _ in range(min(int.from_bytes(data[:4], "little"), _PROPERTIES)):
        if position + 4 > len(data):
            return
        kind, number = struct.unpack_from("<HH", data, position)
        position += 4
        if number >= 0x8000:  # a named property: a GUID, and a number or a name
            has_name = any(data[position + 16 : position + 20])
            position += 24
            if has_name:
                position += _padded(int.from_bytes(data[position - 4 : position], "little"))
        count = 1
        if kind & _MANY or kind in _VARIABLE:
            count = int.from_bytes(data[position : position + 4], "little")
            position += 4
        kind &= ~_MANY
        if kind in _VARIABLE:
            for index in range(count):
                size = int.from_bytes(data[position : position + 4], "little")
                position += 4
                if position > len(data):
                    return
                if number in _WANTED and not index:
                    yield number, _value(kind, bytes(data[position : position + size]))
                position += _padded(size)
        elif kind in _SIZES:
            if number in _WANTED:
                yield number, _value(kind, bytes(data[position : position + _SIZES[kind]]))
            position += _padded(count * _SIZES[kind])
        else:
            return  # of unknown size: the next property cannot be located


def _value(kind: int, value: bytes) -> object:
    if kind == _UNICODE:
        return value.decode("utf-16-le", "replace").rstrip("\0")
    return value if kind in _VARIABLE else int.from_bytes(value, "little")


def _padded(size: int) -> int:
    return size + -size % 4


def _text(value: object, codepage: str) -> str | None:
    if isinstance(value, bytes):
        return decode(value.rstrip(b"\0"), codepage).text
    return value if isinstance(value, str) else None
