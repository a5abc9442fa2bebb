"""VISCII (RFC 1456), the charset of old Vietnamese mail: a codec, because Python has none.

Six of its letters are control characters in ASCII.
"""

import codecs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_LOW = {0x02: "Ẳ", 0x05: "Ẵ", 0x06: "Ẫ", 0x14: "Ỷ", 0x19: "Ỹ", 0x1E: "Ỵ"}
_HIGH = (
    "ẠẮẰẶẤẦẨẬẼẸẾỀỂỄỆỐỒỔỖỘỢỚỜỞỊỎỌỈỦŨỤỲ"
    "ÕắằặấầẩậẽẹếềểễệốồổỗỠƠộờởịỰỨỪỬơớƯ"
    "ÀÁÂÃẢĂẳẵÈÉÊẺÌÍĨỳĐứÒÓÔạỷừửÙÚỹỵÝỡư"
    "àáâãảăữẫèéêẻìíĩỉđựòóôõỏọụùúũủýợỮ"
)
_TABLE = "".join(_LOW.get(octet, chr(octet)) for octet in range(128)) + _HIGH
_OCTETS = codecs.charmap_build(_TABLE)


def _decode(octets: "ReadableBuffer", errors: str = "strict") -> tuple[str, int]:
    return codecs.charmap_decode(octets, errors, _TABLE)


def _encode(text: str, errors: str = "strict") -> tuple[bytes, int]:
    return codecs.charmap_encode(text, errors, _OCTETS)


CODEC = codecs.CodecInfo(_encode, _decode, name="viscii")
