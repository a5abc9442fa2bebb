"""Read an mbox (RFC 4155): where each message begins and ends, and what its lines were before a writer quoted them.

    mboxrd    `>` above `From `, `>From `, `>>From ` and so on: one `>` is removed from each.
    mboxo     `>` above `From ` only, so that `>From ` may be the text of the message itself.
    mboxcl2   nothing is quoted; Content-Length says where the message ends.

No field says which of them a file is, so its lines decide. A separator is a line with an address and a time stamp (RFC 4155
Appendix A), above a field, below an empty line or a body. Content-Length decides where it leads to a separator or to the
end of the file. Any other line that begins with `From ` is text. A line that is nearly a separator, or one in an unusual
place, is a doubt: it is reported with its line number.

The file is read in blocks, and no list of its messages is kept: memory does not grow with it.
"""

import os
import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from ..mail.header_fields import BOM

_BLOCK = 1 << 20  # octets that are read at once
_LONGEST_LINE = 1000  # octets of a separator; RFC 5322 2.1.1 allows 998 and the line end
_LONGEST_HEADER = 1 << 20  # octets of a header in which Content-Length is looked for
_MOST_DOUBTS = 10  # that are reported of one message

_FROM_LINE = re.compile(rb"^From (?![ \t]*:)", re.MULTILINE)  # "From :" is an old way to write the field
# Below a separator: a field (RFC 5322 2.2), the mbox line of an earlier hop, the end of an empty header, or nothing.
_HEADER_START = re.compile(rb"[!-9;-~]+[ \t]*:|>From |\r?\n|\Z")

# The address of a separator: one word, a quoted local part, a name and an address, `ann at example.org` (archives of lists), or
# nothing (the null sender). The time stamp: asctime(3), perhaps with a zone before or after the year, or RFC 5322 3.3.
_ADDRESS = rb'(?:"[^"\r\n]*" ?[^ \t\r\n]*|[^ \t\r\n]+(?: at [^ \t\r\n]+)?)?'
_DAY = rb"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),?"
_MONTH = rb"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_ZONE = rb"(?:[ \t]+(?:[A-Z][A-Z0-9+-]{0,9}|[+-][0-9]{2}:?[0-9]{2}|\([A-Z ]{1,40}\))){0,2}"
_CLOCK = rb"[0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?"
_ASCTIME = rb"%s[ \t]+%s[ \t]+[0-9]{1,2},?[ \t]+%s%s[ \t]+[0-9]{4}%s" % (_DAY, _MONTH, _CLOCK, _ZONE, _ZONE)
_RFC_5322 = rb"(?:%s[ \t]+)?[0-9]{1,2}[ \t]+%s[ \t]+[0-9]{4}[ \t]+%s%s" % (_DAY, _MONTH, _CLOCK, _ZONE)
_SEPARATOR = re.compile(
    rb"From %s[ \t]+(?:%s|%s)(?:[ \t]+remote from [^ \t\r\n]+)?[ \t]*\r?\n" % (_ADDRESS, _ASCTIME, _RFC_5322),
    re.IGNORECASE,
)
_TIME = re.compile(rb"(?:%s|%s)(?=[ \t\r\n]|\Z)" % (_ASCTIME, _RFC_5322), re.IGNORECASE)

_HEADER_END = re.compile(rb"^\r?\n", re.MULTILINE)
_CONTENT_LENGTH = re.compile(rb"^Content-Length[ \t]*:[ \t]*([0-9]{1,18})[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_EMPTY_LINE = re.compile(rb"\A(?:\r?\n)?")
_LINE_END_AND_EMPTY_LINE = re.compile(rb"\A\r?\n(?:\r?\n)?")
_LAST_EMPTY_LINE = re.compile(rb"(?:\A|(?<=\n))\r?\n\Z")  # of up to four octets
_QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)
_QUOTED_ONCE = re.compile(rb"^>(From )", re.MULTILINE)


class Entry(NamedTuple):
    """One message of an mbox.

    size: its octets in the file.
    readings: what its octets may have been before they were written to the mbox, the likeliest first; empty if there are
    more than the caller wants.
    time: the time stamp of its separator, "" if that has none.
    doubts: a sentence for each line that could be read otherwise.
    """

    size: int
    readings: tuple[bytes, ...]
    time: str
    doubts: tuple[str, ...]


def is_mbox(descriptor: int) -> bool:
    """Whether a file begins as an mbox does: with a separator, or with a line `From ...` above a field. Raises OSError."""
    mark = _mark(descriptor)
    head = os.pread(descriptor, _LONGEST_LINE, mark)
    start = len(head) - len(head.lstrip(b"\r\n"))
    if not _FROM_LINE.match(head[start:]):
        return False
    line = _line(descriptor, mark + start, 1)
    return line.complete or line.above_field


def read(descriptor: int, largest: int) -> Iterator[Entry]:
    """Yield the messages of an mbox; one of more than `largest` octets comes without its readings. Raises OSError."""

    @cache
    def mboxcl2() -> bool:
        return any(part.by_length and part.unquoted for part in _parts(descriptor))

    for part in _parts(descriptor):
        size = part.end - part.start
        readings: tuple[bytes, ...] = ()
        if size <= largest:
            written = os.pread(descriptor, size, part.start)
            readings = (written,)
            if _QUOTED.search(written):
                undone = _QUOTED.sub(rb"\1", written), _QUOTED_ONCE.sub(rb"\1", written)
                unquoted = part.unquoted or (part.by_length and mboxcl2())
                readings = tuple(dict.fromkeys((written, *undone) if unquoted else (*undone, written)))
        yield Entry(size, readings, part.time, part.doubts)


class _Part(NamedTuple):
    """Where one message is. by_length: Content-Length says where it ends. unquoted: a line of its text begins with `From `.
    time: that of its separator."""

    start: int
    end: int
    by_length: bool
    unquoted: bool
    time: str
    doubts: tuple[str, ...]


class _Line(NamedTuple):
    """A line that begins with `From `: where it is, its number from 1, its octets, and the beginning of the line below."""

    start: int
    number: int
    octets: bytes
    below: bytes
    below_empty_line: bool

    @property
    def complete(self) -> bool:
        """Whether it has an address and a time stamp."""
        return _SEPARATOR.match(self.octets) is not None

    @property
    def time(self) -> str:
        """Its time stamp, "" if there is none."""
        found = _TIME.search(self.octets)
        return found[0].decode("ascii") if found else ""

    @property
    def above_header(self) -> bool:
        """Whether a header may begin below it, perhaps an empty one."""
        return _HEADER_START.match(self.below) is not None

    @property
    def above_field(self) -> bool:
        """Whether a header with a field begins below it."""
        return self.above_header and bool(self.below[:1].strip())


class _Message:
    """The message that is being read: it begins below its separator and goes on until a line ends it."""

    def __init__(self, descriptor: int, separator: "_Line") -> None:
        self.descriptor = descriptor
        self.time = separator.time
        self.start = start = _below(descriptor, separator.start)
        header = os.pread(descriptor, 1 << 14, start)
        end = _HEADER_END.search(header)
        if not end:
            header = os.pread(descriptor, _LONGEST_HEADER, start)
            end = _HEADER_END.search(header)
        self.body = start + (end.end() if end else len(header))
        declared = _CONTENT_LENGTH.search(header, 0, end.start() if end else len(header))
        # Where Content-Length leads, if that is a separator or the end of the file, else 0.
        self.length_end = self.body + int(declared[1]) if declared else 0
        if not _leads_to_an_end(descriptor, self.length_end):
            self.length_end = 0
        self.unquoted = False
        self.doubts: list[str] = []
        self.more_doubts = 0

    def ends_at(self, line: _Line, strict: bool) -> bool:
        """Whether `line` is the separator of the next message; if not, it is text of this one. strict: only a complete one is."""
        separates = self._separates(line, strict)
        self.unquoted = self.unquoted or (not separates and line.start >= self.body)
        return separates

    def _separates(self, line: _Line, strict: bool) -> bool:
        if line.start < self.length_end:
            if line.complete and line.above_field:
                self._doubt(line, "looks like a separator, but is within Content-Length: taken as text")
            return False
        if self.length_end:
            return True
        if not line.complete:
            if not (line.below_empty_line and line.above_field):
                return False
            taken = "text" if strict else "a separator"
            self._doubt(line, f"has no address and time stamp, but is above a field: taken as {taken}")
            return not strict
        if not line.above_header:
            self._doubt(line, "looks like a separator, but no field is below it: taken as text")
            return False
        if line.below_empty_line:
            return True
        if line.start < self.body:
            self._doubt(line, "looks like a separator, but is inside a header: taken as part of it")
            return False
        self._doubt(line, "is taken as a separator, but no empty line is above it")
        return True

    def _doubt(self, line: _Line, reason: str) -> None:
        if len(self.doubts) < _MOST_DOUBTS:
            self.doubts.append(f"line {line.number} {reason}")
        else:
            self.more_doubts += 1

    def part(self, end: int) -> _Part:
        """The message, which ends at `end`, without the empty line that ends it there (RFC 4155 Appendix A)."""
        if self.length_end:
            end = self.length_end
        else:
            start = max(self.start, end - 4)
            empty_line = _LAST_EMPTY_LINE.search(os.pread(self.descriptor, end - start, start))
            end -= len(empty_line[0]) if empty_line else 0
        more = [f"and {self.more_doubts} more lines"] if self.more_doubts else []
        return _Part(self.start, end, self.length_end > 0, self.unquoted, self.time, (*self.doubts, *more))


def _parts(descriptor: int) -> Iterator[_Part]:
    """Yield where the messages are."""
    lines = _from_lines(descriptor)
    first = next(lines, None)
    if first is None:
        return
    # Where the first line has no time stamp, others of its kind count as well: below an empty line and above a field.
    strict = first.complete
    message = _Message(descriptor, first)
    for line in lines:
        if message.ends_at(line, strict):
            yield message.part(line.start)
            message = _Message(descriptor, line)
    yield message.part(os.fstat(descriptor).st_size)


def _from_lines(descriptor: int) -> Iterator[_Line]:
    """Yield the lines that begin with `From `."""
    offset, number, at_line_start = _mark(descriptor), 1, True
    while block := os.pread(descriptor, _BLOCK, offset):
        # Up to the last whole line; a line that is longer than the block comes in pieces.
        end = block.rfind(b"\n") + 1 or len(block)
        counted = 0
        for found in _FROM_LINE.finditer(block, 0, end):
            if found.start() or at_line_start:
                number += block.count(b"\n", counted, found.start())
                counted = found.start()
                yield _line(descriptor, offset + counted, number)
        number += block.count(b"\n", counted, end)
        at_line_start = block[end - 1] == 0x0A
        offset += end


def _mark(descriptor: int) -> int:
    """How long the byte order mark is that some programs put before the first line."""
    return len(BOM) * (os.pread(descriptor, len(BOM), 0) == BOM)


def _line(descriptor: int, start: int, number: int) -> _Line:
    octets, line_end, below = os.pread(descriptor, 2 * _LONGEST_LINE, start).partition(b"\n")
    above = os.pread(descriptor, min(3, start), max(0, start - 3))
    below_empty_line = above.endswith((b"\n\n", b"\n\r\n")) or not above.strip(b"\r\n")
    return _Line(start, number, (octets + line_end)[:_LONGEST_LINE], below if line_end else b"?", below_empty_line)


def _below(descriptor: int, start: int) -> int:
    """Where the line below that at `start` begins."""
    while block := os.pread(descriptor, _BLOCK, start):
        line_end = block.find(b"\n")
        if line_end >= 0:
            return start + line_end + 1
        start += len(block)
    return start


def _leads_to_an_end(descriptor: int, end: int) -> bool:
    """Whether there is a separator or the end of the file at `end`, perhaps below the end of a line and an empty line."""
    size = os.fstat(descriptor).st_size
    if not 0 < end <= size:
        return False
    above = os.pread(descriptor, 1, end - 1)
    behind = os.pread(descriptor, _LONGEST_LINE, end)
    rest = (_EMPTY_LINE if above == b"\n" else _LINE_END_AND_EMPTY_LINE).sub(b"", behind, 1)
    return bool(_SEPARATOR.match(rest)) or (not behind.strip(b"\r\n") and end + len(behind) == size)
