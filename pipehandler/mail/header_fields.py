"""Find the fields and the end of a header, as positions in its octets (RFC 5322 2.2).

The fingerprint (identity.py) and the parser both use this module, so they always agree. Otherwise a message could be
crafted with the fingerprint of another message and a different visible text. So nothing here depends on a configurable
limit, and lenient rules belong here, not in either of the two.

Tolerated: a byte order mark before the header, even below fields of mail hosts; blanks before the first field; a
continuation line without a leading blank, after a field that ends in a semicolon; field names of any length, as in
Postfix.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

BOM = b"\xef\xbb\xbf"  # a byte order mark in UTF-8; it is not part of a message

DECIDING = frozenset(
    b"message-id in-reply-to references date subject from sender reply-to to cc bcc content-type"
    b" content-transfer-encoding content-disposition content-id content-location content-description".split()
)
"""The fields, in lower case, that determine what a reader sees.

The fingerprint covers them, and the parser decides by no others: neither the decoding of the body nor the charset of
one of these fields may depend on a field that is not in this set.
"""

_MOST_DECIDING = 1_000  # deciding fields read of one header; a real one has a handful, but To may be repeated
_TOLERATED = 20  # lines of one header that are not fields

_NAME = re.compile(rb"([!-9;-~]+)[ \t]*:")  # RFC 5322 2.2, and the blanks of 4.5
# A line that begins with a blank continues the field: RFC 5322 2.2.3. The next two expressions skip many fields at
# once, because a hostile header may have millions; a line that looks like a delimiter must always be examined.
_END_OF_FIELD = re.compile(rb"\n(?![ \t])")
_NO_FIELD = re.compile(rb"\n(?![!-9;-~]+[ \t]*:|[ \t])|\n(?=--)")
_NO_FIELD_OR_DECIDING = re.compile(
    rb"\n(?![!-9;-~]+[ \t]*:|[ \t])|\n(?=--|(?:%s)[ \t]*:)" % b"|".join(sorted(DECIDING)), re.IGNORECASE
)
_BLANKS = re.compile(rb"[ \t]+(?:\r?\n)?")
_NO_TRACE = rb"(?!(?:Received|Return-Path|Delivered-To|X-Original-To)[ \t]*:|[ \t])"
_FIRST_IS_NO_TRACE = re.compile(_NO_TRACE, re.IGNORECASE)
_LATER_IS_NO_TRACE = re.compile(rb"\n" + _NO_TRACE, re.IGNORECASE)


class Place(NamedTuple):
    """One field: its name as written, and the start and end of its body in the octets."""

    name: bytes
    start: int
    end: int


def next_line(raw: bytes, position: int) -> int:
    """Return the start of the line after the one at `position`."""
    end = raw.find(b"\n", position)
    return len(raw) if end < 0 else end + 1


def top(raw: bytes, position: int = 0) -> int:
    """Return where the header of a message begins: after an mbox separator line (RFC 4155) and a byte order mark."""
    if raw.startswith((b"From ", b">From "), position) and not _NAME.match(raw, position):
        position = next_line(raw, position)
    return position + len(BOM) * raw.startswith(BOM, position)


def unfolded(body: bytes) -> bytes:
    """Return the body of a field on one line (RFC 5322 2.2.3), without blanks around it."""
    body = body.strip(b" \t\r\n")
    if b"\n" in body:
        # A regular expression would take fifty times the memory. The last two: continuation lines without a blank.
        for fold, unfold in (
            (b"\r\n ", b" "),
            (b"\r\n\t", b"\t"),
            (b"\n ", b" "),
            (b"\n\t", b"\t"),
            (b"\r\n", b" "),
            (b"\n", b" "),
        ):
            body = body.replace(fold, unfold)
    return body


class Header:
    """The header of a message, to be iterated over once: at most a thousand deciding fields, and `others` more.

    Takes little memory, and time linear in its size. Valid after the iteration: `end`, where the body begins;
    `malformed`, where the lines begin that are not fields, at most one more than are tolerated; `complete`, whether no
    field was skipped. Neither the deciding fields that it yields nor `end` depend on `others`.
    """

    def __init__(self, raw: bytes, position: int, others: int = 0) -> None:
        """The header begins at `position`, which for a message is the result of `top`.

        `others`: the number of fields outside DECIDING to yield.
        """
        self.raw = raw
        self.end = position
        self.malformed: list[int] = []
        self.complete = True
        self._others = others
        self._unchecked: int | None = None  # the position up to which mail hosts wrote every field
        self._empty = True  # no field found yet

    def __iter__(self) -> Iterator[Place]:
        raw, position, size = self.raw, self.end, len(self.raw)
        deciding, others = _MOST_DECIDING, self._others
        while position < size and not self._ends(position):
            found = _NAME.match(raw, position)
            if found is None:
                further = self._beyond(position)
                if further is None:
                    return
                position = further
                continue
            if self._empty:
                self._empty, self._unchecked = False, position
            name, start = found[1], found.end()
            decides = name.lower() in DECIDING
            wanted = deciding if decides else others
            if wanted:
                line_end = _END_OF_FIELD.search(raw, start)
            else:
                self.complete = False
                line_end = (_NO_FIELD_OR_DECIDING if deciding else _NO_FIELD).search(raw, start)
            end, position = line_end.span() if line_end else (size, size)
            if raw[end - 1] in b"; \t\r":
                end, position = self._unmarked_folds(start, end, position)
            if not wanted:
                continue
            if decides:
                deciding -= 1
                others = others if deciding else 0
            else:
                others -= 1
            yield Place(name, start, end)
        self.end = position

    def _ends(self, position: int) -> bool:
        """Whether the header ends before the line at `position`, which may look like a field."""
        return False

    def _goes_on_below(self, position: int) -> bool:
        """Whether the header continues at `position`, below an empty line.

        Postfix does not accept a byte order mark as the start of a field, so it inserts an empty line between that and
        the fields that mail hosts wrote above.
        """
        return (
            self.raw.startswith(BOM, position)
            and _NAME.match(self.raw, position + len(BOM)) is not None
            and self._is_trace(position)
        )

    def _is_trace(self, position: int) -> bool:
        """Whether there are fields above the empty line that ends at `position`, all written by mail hosts."""
        raw, start = self.raw, self._unchecked
        if start is None:
            return False
        header = raw.rfind(b"\n", start, position - 1)  # the line end of the last field
        if _FIRST_IS_NO_TRACE.match(raw, start) or _LATER_IS_NO_TRACE.search(raw, start, max(start, header)):
            return False
        self._unchecked = position + len(BOM)
        return True

    def _beyond_malformed(self, position: int) -> int | None:
        """Return where the header continues after a line that is not a field; None if that line belongs to the body.

        In the header of a message, Postfix ends the header there by inserting an empty line.
        """
        # The first field, or an empty line before it, may be indented.
        blanks = _BLANKS.match(self.raw, position) if self._empty else None
        return blanks.end() if blanks else None

    def _beyond(self, position: int) -> int | None:
        """Return where the header continues at or after a line that is not a field; else set `end` and return None."""
        raw = self.raw
        if raw.startswith((b"\n", b"\r\n"), position):
            self.end = next_line(raw, position)
            return self.end if self._goes_on_below(self.end) else None
        if raw.startswith(BOM, position) and _NAME.match(raw, position + len(BOM)):
            return position + len(BOM)
        self.end = position
        self.malformed.append(position)
        return self._beyond_malformed(position) if len(self.malformed) <= _TOLERATED else None

    def _unmarked_folds(self, start: int, end: int, position: int) -> tuple[int, int]:
        """Extend a field by continuation lines without a leading blank; return its end and the position after it.

        `start` is where its body begins, or that of an earlier field.
        """
        raw = self.raw
        while position < len(raw) and len(self.malformed) < _TOLERATED:
            semicolon = raw.rfind(b";", start, end)
            if semicolon < 0 or raw[semicolon + 1 : end].strip():
                break
            if raw.startswith((b"\n", b"\r\n", BOM), position) or _NAME.match(raw, position) or self._ends(position):
                break
            self.malformed.append(position)
            line_end = _END_OF_FIELD.search(raw, position)
            start = position
            end, position = line_end.span() if line_end else (len(raw), len(raw))
        return end, position
