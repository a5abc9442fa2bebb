"""Scan the structure of a message: header fields and parts, as positions in its octets (RFC 5322 2.1, RFC 2046 5.1).

One pass over the octets, without recursion and without copying bodies: the time is linear in the size, however deep
the nesting, and the memory is bounded by the limits. Attached messages (message/rfc822) are leaves, so that their
exact octets are kept.
"""

import re
from typing import NamedTuple

from pipehandler.mail import header_fields
from pipehandler.mail.header_fields import next_line

from . import content_type as media
from .defect import Notebook
from .fields import FieldReader
from .limits import Limits
from .part import Part

_DELIMITER = re.compile(rb"\n--([^\n]{1,10000})")  # RFC 2046 5.1.1 allows 70 characters
_NOT_BLANK = re.compile(rb"\S")


class _Multipart(NamedTuple):
    """An open multipart, and the stack index of an outer one with the same boundary."""

    part: Part
    boundary: bytes
    shadowed: int | None


def scan(raw: bytes, limits: Limits, notebook: Notebook, outer: Part | None = None, count: int = 0) -> Part:
    """Divide `raw` into its parts. Never raises for content; defects go to `notebook`.

    `outer` is the part that encloses `raw`, None if `raw` is the message itself. `count` is the number of parts that
    the message has so far.
    """
    return _Scanner(raw, limits, notebook, outer, count).scan()


class _Scanner:
    """A scanner of delimiter lines.

    The stack holds the open multiparts; `boundaries` maps a boundary to the index of the innermost one that has it. A
    delimiter of an outer multipart ends all inner ones (RFC 2046 5.1.2).
    """

    def __init__(self, raw: bytes, limits: Limits, notebook: Notebook, outer: Part | None, count: int) -> None:
        self.raw, self.limits, self.notebook, self.outer = raw, limits, notebook, outer
        self.fields = FieldReader(raw, limits, notebook)
        self.stack: list[_Multipart] = []
        self.boundaries: dict[bytes, int] = {}
        self.count = count
        self.leaf: Part | None = None  # the part whose body is being scanned; None in a preamble or epilogue
        self.epilogue: tuple[str, int] | None = None  # the multipart's number, and where its epilogue began

    def scan(self) -> Part:
        number, depth = (self.outer.number, self.outer.depth + 1) if self.outer else ("", 0)
        root, position = self._begin(number, header_fields.top(self.raw), "text/plain", depth)
        while self.stack:
            found, level, closing = self._next_delimiter(position - 1)
            if found is None:
                break
            position = found.end()
            multipart = self.stack[level].part
            start_of_break = found.start() - (self.raw[found.start() - 1 : found.start()] == b"\r")
            self._end_leaf(start_of_break)
            self._leave(level + 1, start_of_break)
            if closing:
                self._leave(level, start_of_break, closed=True)
                self.epilogue = (multipart.number, position)
                continue
            if self.count >= self.limits.parts:
                rest = self.raw.count(found[0], found.start())
                self.notebook.note("parts-left-out", multipart.number, f"about {rest} parts")
                multipart.divided = True
                self.stack.clear()
                break
            default = "message/rfc822" if multipart.content_type == "multipart/digest" else "text/plain"
            number = f"{multipart.number}.{len(multipart.children) + 1}".lstrip(".")
            multipart.divided = True
            child, position = self._begin(number, next_line(self.raw, position), default, multipart.depth + 1)
            multipart.children.append(child)
        self._end_leaf(len(self.raw))
        self._leave(0, len(self.raw))
        if not root.divided:
            root.number = f"{root.number}.1".lstrip(".")
        return root

    def _next_delimiter(self, position: int) -> tuple[re.Match[bytes] | None, int, bool]:
        """Return the next delimiter line, the stack index of its multipart, and whether it closes that."""
        boundaries = self.boundaries
        for found in _DELIMITER.finditer(self.raw, position):  # a hot loop: hostile mail has a line per five octets
            line = found[1].rstrip()
            word = line.partition(b" ")[0]
            if line in boundaries or line[-2:] == b"--" or word in boundaries or word[-2:] == b"--":
                level, closing = self._meaning(line)
                if level is not None:
                    return found, level, closing
        return None, 0, False

    def _meaning(self, line: bytes) -> tuple[int | None, bool]:
        """Return the stack index of the multipart that a line, without its "--", delimits, and whether it closes that.

        The index is None if the line is not a delimiter.
        """
        line = line.rstrip()  # RFC 2046 5.1.1: transport padding
        level = self.boundaries.get(line)
        if level is not None:
            return level, False
        if b" " in line and (word := line.partition(b" ")[0]).removesuffix(b"--") in self.boundaries:
            return self._meaning(word)  # other text may follow the boundary on its line
        return (self.boundaries.get(line[:-2].rstrip()) if line.endswith(b"--") else None), True

    def _begin(self, number: str, position: int, default: str, depth: int) -> tuple[Part, int]:
        """Begin the part whose header is at `position`; return it and where its body begins."""
        self.count += 1
        fields, position = self.fields.read(position, number, self._is_delimiter)
        types = [entry.body for entry in fields if entry.name.lower() == "content-type"]
        if len(types) > 1:
            self.notebook.note("field-repeated", number, "Content-Type")
        content_type, parameters, wrong = media.read(types, default, self.raw, position, not self.stack)
        if wrong:
            self.notebook.note("content-type-invalid", number, wrong)
        if not parameters.complete:
            self.notebook.note("parameters-left-out", number, "Content-Type")
        part = Part(number, self.raw, fields, position, len(self.raw), content_type, parameters, depth)
        self.leaf = part
        if content_type.startswith("multipart/"):
            self._open(part)
        return part, position

    def _open(self, part: Part) -> None:
        boundary = media.boundary_of(part.parameters)
        found = bool(boundary) and bool(self.stack or self.raw.find(b"--" + boundary, part.start) >= 0)
        if not found and part.is_encoded:
            return  # forbidden by RFC 2045 6.4; `enclosed` decodes and divides it
        if not found and not self.stack and (guess := media.guess_boundary(self.raw, part.start)):
            boundary = guess
            self.notebook.note("boundary-guessed", part.number, boundary.decode("ascii", "replace"))
        if not boundary:
            self.notebook.note("boundary-missing", part.number)
        elif part.depth >= self.limits.depth:
            self.notebook.note("depth-left-out", part.number)
            part.skipped = True
        else:
            self.stack.append(_Multipart(part, boundary, self.boundaries.get(boundary)))
            self.boundaries[boundary] = len(self.stack) - 1
            self.leaf = None

    def _end_leaf(self, end: int) -> None:
        if self.leaf is not None:
            self.leaf.end = max(self.leaf.start, end)
            self.leaf = None
        if self.epilogue is not None:
            number, start = self.epilogue
            if _NOT_BLANK.search(self.raw, start, max(start, end)):
                self.notebook.note("epilogue-ignored", number)
            self.epilogue = None

    def _leave(self, level: int, end: int, closed: bool = False) -> None:
        """Close the open multiparts, from the innermost to the one at `level`."""
        while len(self.stack) > level:
            multipart = self.stack.pop()
            if multipart.shadowed is None:
                del self.boundaries[multipart.boundary]
            else:
                self.boundaries[multipart.boundary] = multipart.shadowed
            part = multipart.part
            part.end = max(part.start, end)
            if part.divided:
                if not closed:
                    self.notebook.note("boundary-not-closed", part.number)
            elif part.is_encoded:
                continue  # `enclosed` divides it
            elif _NOT_BLANK.search(self.raw, part.start, part.end):
                self.notebook.note("boundary-not-found", part.number)
            else:
                part.divided = True  # it is empty

    def _is_delimiter(self, position: int) -> bool:
        return (
            self._meaning(self.raw[position + 2 : min(next_line(self.raw, position), position + 10_002)])[0] is not None
        )
