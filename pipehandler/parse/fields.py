"""The header of a message or of a part, as places in its octets: RFC 5322 2.2, and what is not as it should be there."""

import re
from collections.abc import Callable

from .defect import Notebook
from .limits import Limits
from .part import Field

BOM = b"\xef\xbb\xbf"  # in UTF-8; it is no part of a message
_FIELD_NAME = re.compile(rb"([!-9;-~]{1,200})[ \t]*:")  # RFC 5322 2.2
_END_OF_FIELD = re.compile(rb"\n(?![ \t])")  # what begins with a blank goes on with the field: RFC 5322 2.2.3
_TOLERATED = 20  # lines of one header that are no fields
_BLANKS = re.compile(rb"[ \t]+(?:\r?\n)?")
_CONTENT_FIELD = re.compile(rb"Content-[A-Za-z-]{1,60}[ \t]*:", re.IGNORECASE)
_BASE64_LINE = re.compile(rb"[A-Za-z0-9+/=]+\r?(?:\n|\Z)")
_EMPTY_LINE = re.compile(rb"\n\r?\n")
_TRACE = frozenset({"received", "return-path", "delivered-to", "x-original-to"})


def next_line(raw: bytes, position: int) -> int:
    """Where the line behind that at `position` begins."""
    end = raw.find(b"\n", position)
    return len(raw) if end < 0 else end + 1


class FieldReader:
    """Reads headers anywhere in `raw`, within the limits; what is wrong is written into the notebook."""

    def __init__(self, raw: bytes, limits: Limits, notebook: Notebook) -> None:
        self.raw, self.limits, self.notebook = raw, limits, notebook

    def read(self, position: int, number: str, is_delimiter: Callable[[int], bool]) -> tuple[list[Field], int]:
        """The fields from `position` on, and where the body begins. `number` is that of the part, "" for the message itself;
        `is_delimiter` knows whether a line that begins with "--" ends the part.
        """
        raw, fields, malformed = self.raw, list[Field](), 0
        while position < len(raw):
            if raw.startswith((b"\n", b"\r\n"), position):
                end = next_line(self.raw, position)
                if number or not (raw.startswith(BOM, end) and self._is_above_bom(fields, end)):
                    return fields, end
                position = end
            if raw.startswith(BOM, position) and _FIELD_NAME.match(raw, position + len(BOM)):
                position += len(BOM)
            if raw.startswith(b"--", position) and is_delimiter(position):
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
            end = next_line(self.raw, position)
            fields[-1].body += b" " + self.raw[position : min(end, position + self.limits.field_size)].rstrip()
            return end
        # In the header of the message Postfix ends it here, with an empty line. In a part nothing does.
        return self._beyond_junk(position, fields) if fields and number else None

    def _beyond_junk(self, position: int, fields: list[Field]) -> int | None:
        """Where the header of a part goes on, some lines further on: at the next Content- field; or at the empty line, where the
        body cannot begin with the text before it."""
        is_data = self._holds_data(position, fields)
        for _ in range(_TOLERATED):
            position = next_line(self.raw, position)
            if _CONTENT_FIELD.match(self.raw, position):
                return position
            if self.raw.startswith((b"\n", b"\r\n"), position):
                return position if is_data else None
            if self.raw.startswith(b"--", position):
                break
        return None

    def _holds_data(self, position: int, fields: list[Field]) -> bool:
        """Whether the body of the part that has these fields cannot begin with the line at `position`."""
        named = {field.name.lower(): field.body.strip().lower() for field in fields}
        if named.get("content-transfer-encoding") == b"base64":
            return not _BASE64_LINE.match(self.raw, position)
        return not named.get("content-type", b"text").startswith((b"text", b"multipart"))

    def _is_above_bom(self, fields: list[Field], position: int) -> bool:
        """Whether a header is only what mail hosts wrote above one that begins with a byte order mark. To Postfix that line
        is no field, so it puts an empty line before it."""
        return bool(fields and _FIELD_NAME.match(self.raw, position + len(BOM))) and all(
            field.name.lower() in _TRACE for field in fields
        )


def _excerpt(raw: bytes, position: int) -> str:
    return raw[position : position + 60].partition(b"\n")[0].decode("utf-8", "replace")
