"""cms: the content of an opaque signature, in any encoding that BER allows, at a linear cost."""

import contextlib
import time

import pytest

from pipehandler.parse.cms import Broken, signed_content

SIGNED = bytes.fromhex("06092a864886f70d010702")
ENVELOPED = bytes.fromhex("06092a864886f70d010703")
DATA = bytes.fromhex("06092a864886f70d010701")


def value(tag: int, content: bytes, definite: bool = True) -> bytes:
    """One value, of definite length or with an end marker (X.690 8.1.3)."""
    if not definite:
        return bytes((tag, 0x80)) + content + b"\0\0"
    length = len(content)
    if length < 128:
        return bytes((tag, length)) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(size))) + size + content


def signed(octets: bytes, definite: bool = True, kind: bytes = SIGNED) -> bytes:
    """A SignedData around what is already an octet string; its certificates and signers are left out."""
    encapsulated = value(0x30, DATA + (value(0xA0, octets, definite) if octets else b""), definite)
    data = value(0x30, b"\x02\x01\x01" + value(0x31, value(0x30, b"\x06\x01\x01")) + encapsulated + b"\x31\0", definite)
    return value(0x30, kind + value(0xA0, data, definite), definite)


CONTENT = b"Content-Type: text/plain\n\ntext\0\0\n" * 20


@pytest.mark.parametrize("definite", [True, False])
def test_content(definite: bool) -> None:
    """In one piece, in several, in pieces of pieces; with lengths and without."""
    pieces = b"".join(value(0x04, CONTENT[at : at + 100]) for at in range(0, len(CONTENT), 100))
    for octets in (value(0x04, CONTENT), value(0x24, pieces), value(0x24, pieces, False),
                   value(0x24, value(0x24, pieces, definite), False), value(0x24, value(0x04, b"") + pieces)):  # fmt: skip
        assert signed_content(signed(octets, definite)) == CONTENT


def test_no_content() -> None:
    """A detached signature, an encrypted message."""
    assert signed_content(signed(b"")) is None
    assert signed_content(signed(value(0x04, b"x"), kind=ENVELOPED)) is None


@pytest.mark.parametrize("definite", [True, False])
def test_a_cut_leaves_the_beginning(definite: bool) -> None:
    """The content up to the truncation is returned; before its beginning there is none."""
    whole = signed(value(0x04, CONTENT), definite)
    start = whole.index(CONTENT)
    for end in range(start, start + len(CONTENT)):
        assert signed_content(whole[:end]) == whole[start:end]
    for end in range(start - 3):
        with contextlib.suppress(Broken):
            assert not signed_content(whole[:end])


@pytest.mark.parametrize(
    "octets", [b"", b"\x30", b"\x30\x80", b"no structure", b"\x30\x89" + b"\1" * 20, b"\x3f\x81\1", b"\0\0"]
)
def test_broken(octets: bytes) -> None:
    """Anything else is reported as broken."""
    with pytest.raises(Broken):
        signed_content(octets)


@pytest.mark.parametrize(
    "octets",
    [
        signed(value(0x24, value(0x04, b"a") * 700_000, False), False),
        signed(value(0x24, value(0x24, b"", False) * 500_000, False), False),
        signed(b"\x24\x80" * 1_000_000, False),
        value(0x30, SIGNED + value(0xA0, value(0x30, b"\x02\x80" + b"\x01\0" * 1_000_000, False), False), False),
    ],
    ids=["many pieces", "empty pieces", "nested pieces", "many values"],
)
def test_no_structure_is_costly(octets: bytes) -> None:
    """Two megabytes of structure cost less than two seconds."""
    begin = time.process_time()
    with contextlib.suppress(Broken):
        signed_content(octets)
    assert time.process_time() - begin < 2
