"""The content of an opaque signature (RFC 8551 3.5.2): the signed octets inside a CMS SignedData (RFC 5652 5).

Only the path to the content is read, in one pass; no signature is verified. ASN.1 libraries build the whole structure,
in quadratic time if an octet string is split into many pieces, as S/MIME software does.
"""

SIGNED_DATA = bytes.fromhex("2a864886f70d010702")  # RFC 5652 5.1
_SEQUENCE, _OID, _OCTETS, _PIECES, _EXPLICIT = 0x30, 0x06, 0x04, 0x24, 0xA0
_DEPTH = 10  # levels of nested pieces; real messages have one


class Broken(Exception):
    """The octets do not have the structure of RFC 5652."""


def signed_content(octets: bytes) -> bytes | None:
    """Return the signed octets; None if `octets` are something else, such as an encrypted message, or have no content.

    Truncated content is returned as far as it goes. Raises Broken if the structure ends before the content.
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
    """A position in BER data (X.690 8.1); `end` is the end of the innermost value with a definite length."""

    def __init__(self, octets: bytes, position: int = 0, end: int | None = None) -> None:
        self.octets, self.position = octets, position
        self.end = len(octets) if end is None else min(end, len(octets))

    def at_end(self) -> bool:
        """Whether nothing follows: at `end`, or at two zero octets (X.690 8.1.5)."""
        return self.position >= self.end or self.octets.startswith(b"\0\0", self.position)

    def enter(self, tag: int) -> "_Reader":
        """Return a reader for the contents of the next value, which must have this tag; nothing after it is read."""
        found, end = self._header()
        if found != tag:
            raise Broken(f"tag {found:#x} instead of {tag:#x}")
        return _Reader(self.octets, self.position, self.end if end is None else end)

    def read(self, tag: int) -> bytes:
        """Return the octets of the next value, which must have this tag."""
        found, end = self._header()
        if found != tag or end is None:
            raise Broken(f"tag {found:#x} instead of {tag:#x}")
        start, self.position = self.position, end
        return self.octets[start:end]

    def skip(self) -> None:
        """Skip the next value, which must have a definite length or contain only values that have."""
        _, end = self._header()
        while end is None and not self.at_end():
            _, inner = self._header()
            if inner is None:
                raise Broken("a length is missing")
            self.position = inner
        self.position = self.position + 2 if end is None else end

    def octet_string(self) -> bytes:
        """Return the next octet string, its pieces joined (X.690 8.7.3); if truncated, as far as it goes."""
        octets, view, content = self.octets, memoryview(self.octets), bytearray()
        ends: list[int | None] = []  # of the enclosing strings; None for one that ends with two zero octets
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
        """Read the tag and length of the next value; return the tag and the value's end, None if it is indefinite."""
        octets, position = self.octets, self.position
        if position + 2 > self.end:
            raise Broken("it ends too early")
        tag, length = octets[position], octets[position + 1]
        position += 2
        if length < 0x80 and tag == _OCTETS:  # the fast path: a hostile message has millions of these
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
