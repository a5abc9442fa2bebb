"""The structure of a message: header fields and parts, as places in its octets (RFC 5322 2.1, RFC 2046 5.1).

One pass over the octets, without recursion and without copying bodies: its time is linear in the size, however deep
the nesting, and its memory is bounded by the limits. Attached messages (message/rfc822) are leaves, so that their
exact octets can be kept.
"""

import re
from dataclasses import dataclass

from . import content_type as media
from .defect import Notebook
from .limits import Limits
from .part import Field, Part

_FIELD_NAME = re.compile(rb"([!-9;-~]{1,200})[ \t]*:")  # RFC 5322 2.2
_END_OF_FIELD = re.compile(rb"\n(?![ \t])")  # what begins with a blank goes on with the field: RFC 5322 2.2.3
_ENCODED = frozenset({"base64", "quoted-printable"})
_TOLERATED = 20  # lines of one header that are no fields
_BLANKS = re.compile(rb"[ \t]+(?:\r?\n)?")
_CONTENT_FIELD = re.compile(rb"Content-[A-Za-z-]{1,60}[ \t]*:", re.IGNORECASE)
_BASE64_LINE = re.compile(rb"[A-Za-z0-9+/=]+\r?(?:\n|\Z)")
_EMPTY_LINE = re.compile(rb"\n\r?\n")
_DELIMITER = re.compile(rb"\n--([^\n]{1,10000})")  # RFC 2046 5.1.1 allows 70 characters
_NOT_BLANK = re.compile(rb"\S")
_BOM = b"\xef\xbb\xbf"
_TRACE = frozenset({"received", "return-path", "delivered-to", "x-original-to"})


@dataclass(slots=True)
class _Multipart:
    """A multipart whose end was not yet seen, and the place in the stack of the outer one with the same boundary."""

    part: Part
    boundary: bytes
    shadowed: int | None


def scan(raw: bytes, limits: Limits, notebook: Notebook, outer: Part | None = None, count: int = 0) -> Part:
    """Divide `raw` into its parts. Never raises for content; what is wrong is written into `notebook`.

    `outer` is the part that `raw` was inside of, if it is not the message itself, and `count` the number of parts that the
    message has so far.
    """
    return _Scanner(raw, limits, notebook, outer, count).scan()


class _Scanner:
    """Goes over the delimiter lines. The stack holds the open multiparts, `boundaries` leads from a delimiter to the
    innermost of them; a delimiter of an outer one ends all that is inside (RFC 2046 5.1.2)."""

    def __init__(self, raw: bytes, limits: Limits, notebook: Notebook, outer: Part | None, count: int) -> None:
        self.raw, self.limits, self.notebook, self.outer = raw, limits, notebook, outer
        self.stack: list[_Multipart] = []
        self.boundaries: dict[bytes, int] = {}
        self.count = count
        self.leaf: Part | None = None  # whose body is being passed; None in a preamble or an epilogue
        self.epilogue: tuple[str, int] | None = None  # of which multipart, and where it began

    def scan(self) -> Part:
        # RFC 4155: a "From " line was written by an mbox, and is no part of the message.
        position = self._next_line(0) if self.raw.startswith((b"From ", b">From ")) else 0
        position += len(_BOM) * self.raw.startswith(_BOM, position)
        number, depth = (self.outer.number, self.outer.depth + 1) if self.outer else ("", 0)
        root, position = self._begin(number, position, "text/plain", depth)
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
            child, position = self._begin(number, self._next_line(position), default, multipart.depth + 1)
            multipart.children.append(child)
        self._end_leaf(len(self.raw))
        self._leave(0, len(self.raw))
        if not root.divided:
            root.number = f"{root.number}.1".lstrip(".")
        return root

    def _next_line(self, position: int) -> int:
        end = self.raw.find(b"\n", position)
        return len(self.raw) if end < 0 else end + 1

    def _next_delimiter(self, position: int) -> tuple[re.Match[bytes] | None, int, bool]:
        """The next line that is one, which open multipart it belongs to, and whether it closes it."""
        boundaries = self.boundaries
        for found in _DELIMITER.finditer(self.raw, position):  # a hot loop: a line in five octets, if somebody wants
            line = found[1].rstrip()
            word = line.partition(b" ")[0]
            if line in boundaries or line[-2:] == b"--" or word in boundaries or word[-2:] == b"--":
                level, closing = self._meaning(line)
                if level is not None:
                    return found, level, closing
        return None, 0, False

    def _meaning(self, line: bytes) -> tuple[int | None, bool]:
        """Which open multipart a line after "--" belongs to, and whether it closes it."""
        line = line.rstrip()  # RFC 2046 5.1.1: transport padding
        level = self.boundaries.get(line)
        if level is not None:
            return level, False
        if b" " in line and (word := line.partition(b" ")[0]).removesuffix(b"--") in self.boundaries:
            return self._meaning(word)  # the boundary has to begin the line, not to fill it
        return (self.boundaries.get(line[:-2].rstrip()) if line.endswith(b"--") else None), True

    def _begin(self, number: str, position: int, default: str, depth: int) -> tuple[Part, int]:
        """A new part whose header begins at `position`; the place where its body begins."""
        self.count += 1
        fields, position = self._header(position, number)
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
        if not found and part.transfer_encoding in _ENCODED:
            return  # RFC 2045 6.4 forbids it; what is inside is looked for later
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
        """Close the multiparts from the innermost to that at `level`."""
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
            elif part.transfer_encoding in _ENCODED:
                continue  # as above
            elif _NOT_BLANK.search(self.raw, part.start, part.end):
                self.notebook.note("boundary-not-found", part.number)
            else:
                part.divided = True  # nothing in it at all

    def _header(self, position: int, number: str) -> tuple[list[Field], int]:
        """The fields from `position` on, and where the body begins."""
        raw, fields, malformed = self.raw, list[Field](), 0
        while position < len(raw):
            if raw.startswith((b"\n", b"\r\n"), position):
                end = self._next_line(position)
                if not (raw.startswith(_BOM, end) and self._is_above_bom(fields, end)):
                    return fields, end
                position = end
            if raw.startswith(_BOM, position) and _FIELD_NAME.match(raw, position + len(_BOM)):
                position += len(_BOM)
            if raw.startswith(b"--", position) and self._is_delimiter(position):
                return fields, position
            name = _FIELD_NAME.match(raw, position)
            if name is None:
                self.notebook.note("field-malformed", number, _excerpt(raw, position))
                malformed += 1
                further = self._beyond_malformed(position, fields, number) if malformed <= _TOLERATED else None
                if further is None:
                    return fields, position
                position = further
                continue
            if len(fields) >= self.limits.fields:
                empty = _EMPTY_LINE.search(raw, position - 1)
                end = empty.end() if empty else len(raw)
                self.notebook.note("fields-left-out", number, f"{len(fields)} were kept")
                return fields, end
            found = _END_OF_FIELD.search(raw, name.end())
            end = found.start() if found else len(raw)
            if not number or name[1][:8].lower() == b"content-":
                if end - name.end() > self.limits.field_size:
                    size = end - name.end()
                    self.notebook.note("field-too-long", name[1].decode("ascii"), f"{size} octets")
                    end = name.end() + self.limits.field_size
                fields.append(Field(name[1].decode("ascii"), raw[name.end() : end]))
            position = found.end() if found else len(raw)
        return fields, position

    def _beyond_malformed(self, position: int, fields: list[Field], number: str) -> int | None:
        """Where the header goes on after a line that is no field; None if the line is already of the body."""
        blanks = _BLANKS.match(self.raw, position)
        if not fields and blanks:  # the first field, or an empty line before it, moved to the right
            return blanks.end()
        if fields and fields[-1].body.rstrip().endswith(b";"):  # folded without a blank
            end = self._next_line(position)
            fields[-1].body += b" " + self.raw[position : min(end, position + self.limits.field_size)].rstrip()
            return end
        # In the header of the message Postfix ends it here, with an empty line. In a part nothing does.
        return self._beyond_junk(position, fields) if fields and number else None

    def _beyond_junk(self, position: int, fields: list[Field]) -> int | None:
        """Where the header of a part goes on, some lines further on: at the next Content- field; or at the empty line, where the
        body cannot begin with the text before it."""
        is_data = not _BASE64_LINE.match(self.raw, position) and self._holds_data(fields)
        for _ in range(_TOLERATED):
            position = self._next_line(position)
            if _CONTENT_FIELD.match(self.raw, position):
                return position
            if self.raw.startswith((b"\n", b"\r\n"), position):
                return position if is_data else None
            if self.raw.startswith(b"--", position):
                break
        return None

    def _holds_data(self, fields: list[Field]) -> bool:
        named = {field.name.lower(): field.body.strip().lower() for field in fields}
        return named.get("content-transfer-encoding") == b"base64" or not named.get("content-type", b"text").startswith(
            (b"text", b"multipart")
        )

    def _is_above_bom(self, fields: list[Field], position: int) -> bool:
        """Whether a header is only what mail hosts wrote above one that begins with a byte order mark. To Postfix that line
        is no field, so it puts an empty line before it."""
        return bool(_FIELD_NAME.match(self.raw, position + len(_BOM))) and all(
            field.name.lower() in _TRACE for field in fields
        )

    def _is_delimiter(self, position: int) -> bool:
        return self._meaning(self.raw[position + 2 : min(self._next_line(position), position + 10_002)])[0] is not None


def _excerpt(raw: bytes, position: int) -> str:
    return raw[position : position + 60].partition(b"\n")[0].decode("utf-8", "replace")
