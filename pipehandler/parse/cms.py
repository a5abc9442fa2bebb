"""The content of an opaque signature (RFC 8551 3.5.2): the signed octets inside a CMS SignedData (RFC 5652 5).

Only the way to the content is read, in one pass; no signature is verified. Libraries for ASN.1 build all of the structure,
in quadratic time where an octet string is in many pieces, as S/MIME writers make it.
"""

SIGNED_DATA = bytes.fromhex("2a864886f70d010702")  # RFC 5652 5.1
_SEQUENCE, _OID, _OCTETS, _PIECES, _EXPLICIT = 0x30, 0x06, 0x04, 0x24, 0xA0
_DEPTH = 10  # of pieces in pieces; writers make one level


class Broken(Exception):
    """This is not the structure of RFC 5652."""


def signed_content(octets: bytes) -> bytes | None:
    """The octets that were signed; None where `octets` are something else, such as an encrypted message, or hold no content.

    What a cut left of the content is returned. Raises Broken where the structure ends before it.
    """
    content_info = _Reader(octets).enter(_SEQUENCE)
    if content_info.read(_OID) != SIGNED_DATA:
        return None
    signed_data = content_info.enter(_EXPLICIT).enter(_SEQUENCE)
    signed_data.skip()  # version
    signed_data.skip()  # digestAlgorithms
    encapsulated = signed_data.enter(_SEQUENCE)
    encapsulated.skip()  # eContentType
    if encapsulated.at_end():
        return None  # a detached signature
    return encapsulated.enter(_EXPLICIT).octet_string()


class _Reader:
    """A place in BER (X.690 8.1): `end` is where the innermost length that is known ends."""

    def __init__(self, octets: bytes, position: int = 0, end: int | None = None) -> None:
        self.octets, self.position = octets, position
        self.end = len(octets) if end is None else min(end, len(octets))

    def at_end(self) -> bool:
        """Whether nothing follows: the known end, or two zero octets (X.690 8.1.5)."""
        return self.position >= self.end or self.octets.startswith(b"\0\0", self.position)

    def enter(self, tag: int) -> "_Reader":
        """The inside of the next value, which has this tag. What follows it is not read any more."""
        found, end = self._header()
        if found != tag:
            raise Broken(f"tag {found:#x} instead of {tag:#x}")
        return _Reader(self.octets, self.position, self.end if end is None else end)

    def read(self, tag: int) -> bytes:
        """The octets of the next value, which has this tag."""
        found, end = self._header()
        if found != tag or end is None:
            raise Broken(f"tag {found:#x} instead of {tag:#x}")
        start, self.position = self.position, end
        return self.octets[start:end]

    def skip(self) -> None:
        """Pass the next value, which has a known length or nothing but such values inside."""
        _, end = self._header()
        while end is None and not self.at_end():
            _, inner = self._header()
            if inner is None:
                raise Broken("a length is missing")
            self.position = inner
        self.position = self.position + 2 if end is None else end

    def octet_string(self) -> bytes:
        """The octet string that comes next, its pieces joined (X.690 8.7.3); after a cut as much of it as is there."""
        octets, view, content = self.octets, memoryview(self.octets), bytearray()
        ends: list[int | None] = []  # of the pieces around this place; None for one that ends with two zero octets
        while self.position < self.end:
            if octets[self.position] == 0 and ends and ends[-1] is None and octets.startswith(b"\0\0", self.position):
                self.position += 2
                ends.pop()
            else:
                tag, end = self._header()
                if tag == _OCTETS and end is not None:
                    content += view[self.position : min(end, self.end)]
                    self.position = end
                elif tag == _PIECES and len(ends) < _DEPTH:
                    ends.append(end)
                else:
                    raise Broken(f"tag {tag:#x} in an octet string")
            while ends and ends[-1] is not None and self.position >= ends[-1]:
                ends.pop()
            if not ends:
                break
        return bytes(content)

    def _header(self) -> tuple[int, int | None]:
        """The tag of the next value and where it ends, None for an indefinite length; then the position is behind them."""
        octets, position = self.octets, self.position
        if position + 2 > self.end:
            raise Broken("it ends too early")
        tag, length = octets[position], octets[position + 1]
        position += 2
        if length < 0x80 and tag == _OCTETS:  # the case of which a hostile message has millions
            self.position = position
            return tag, position + length
        if tag & 0x1F == 0x1F:
            raise Broken(f"tag {tag:#x}")
        if length == 0x80:
            self.position = position
            return tag, None
        if length > 0x80:
            size = length & 0x7F
            if size > 8 or position + size > self.end:
                raise Broken("it ends too early" if size <= 8 else f"a length of {size} octets")
            length = int.from_bytes(octets[position : position + size], "big")
            position += size
        self.position = position
        return tag, position + length
