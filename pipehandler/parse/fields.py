"""Read the header fields of a message or a part, within the limits. mail/header_fields.py has the syntax."""

import re
from collections.abc import Callable

from pipehandler.mail.header_fields import DECIDING, Header, next_line, unfolded

from .defect import Notebook
from .limits import Limits
from .part import Field

_LONGEST_NAME = 200  # octets of a name that are kept
_JUNK_LINES = 20  # tolerated in a part's header
_JUNK_LINES_ABOVE = 2  # tolerated above its first field: more are probably the body of a part without a header
_CONTENT_FIELD = re.compile(rb"Content-[A-Za-z-]{1,60}[ \t]*:", re.IGNORECASE)
_CONTENT_TYPE = re.compile(rb"Content-Type[ \t]*:", re.IGNORECASE)
_BASE64_LINE = re.compile(rb"[A-Za-z0-9+/=]+\r?(?:\n|\Z)")


class FieldReader:
    """A reader of headers anywhere in `raw`, within the limits. Defects go to the notebook."""

    def __init__(self, raw: bytes, limits: Limits, notebook: Notebook) -> None:
        self.raw, self.limits, self.notebook = raw, limits, notebook

    def read(self, position: int, number: str, is_delimiter: Callable[[int], bool]) -> tuple[list[Field], int]:
        """Return the fields from `position` on, and where the body begins.

        `number` is that of the part, "" for the message itself. `is_delimiter` returns whether the line at a position,
        which begins with "--", ends the part.
        """
        fields: list[Field] = []
        if number:  # RFC 2046 5.1: only Content- fields have a meaning here
            header: Header = _PartHeader(self.raw, position, fields, is_delimiter)
        else:
            header = Header(self.raw, position, self.limits.fields)
        deciding, complete = 0, True
        for name, start, end in header:
            if number and name[:8].lower() != b"content-":
                continue
            # Counted separately, so that no other field can displace a deciding one.
            if name.lower() in DECIDING:
                deciding += 1
                if deciding > self.limits.fields:
                    complete = False
                    continue
            fields.append(Field(name[:_LONGEST_NAME].decode("ascii"), self._body(name, start, end)))
        for place in header.malformed:
            self.notebook.note("field-malformed", number, _excerpt(self.raw, place))
        if not complete or not (number or header.complete):
            self.notebook.note("fields-left-out", number, f"{len(fields)} were kept")
        return fields, header.end

    def _body(self, name: bytes, start: int, end: int) -> bytes:
        body = unfolded(self.raw[start:end])
        size = max(len(body), len(name))
        if len(body) > self.limits.field_size or len(name) > _LONGEST_NAME:
            self.notebook.note("field-too-long", name[:_LONGEST_NAME].decode("ascii"), f"{size} octets")
        return body[: self.limits.field_size]


class _PartHeader(Header):
    """The header of a part. No mail host has checked it, so it may contain lines that are not fields."""

    def __init__(self, raw: bytes, position: int, fields: list[Field], is_delimiter: Callable[[int], bool]) -> None:
        """`fields` are the Content- fields read so far; the reader adds to them."""
        super().__init__(raw, position)
        self._fields, self._is_delimiter = fields, is_delimiter

    def _ends(self, position: int) -> bool:
        return self.raw.startswith(b"--", position) and self._is_delimiter(position)

    def _goes_on_below(self, position: int) -> bool:
        return False

    def _beyond_malformed(self, position: int) -> int | None:
        further = super()._beyond_malformed(position)
        return self._beyond_junk(position) if further is None else further

    def _beyond_junk(self, position: int) -> int | None:
        """Return where the header continues below junk lines; None if the body has begun.

        It continues at the next Content- field, or at the empty line if the body cannot begin with the text above that.
        Above the first field, only the Content-Type proves that there is a header.
        """
        is_data = self._holds_data(position)
        expected, lines = (_CONTENT_FIELD, _JUNK_LINES) if self._fields else (_CONTENT_TYPE, _JUNK_LINES_ABOVE)
        for _ in range(lines):
            position = next_line(self.raw, position)
            if expected.match(self.raw, position):
                return position
            if self.raw.startswith((b"\n", b"\r\n"), position):
                return position if is_data else None
            if self.raw.startswith(b"--", position):
                break
        return None

    def _holds_data(self, position: int) -> bool:
        """Whether these fields announce data that cannot begin with the line at `position`."""
        named = {field.name.lower(): field.body.lower() for field in self._fields}
        if named.get("content-transfer-encoding") == b"base64":
            return not _BASE64_LINE.match(self.raw, position)
        return not named.get("content-type", b"text").startswith((b"text", b"multipart"))


def _excerpt(raw: bytes, position: int) -> str:
    return raw[position : position + 60].partition(b"\n")[0].decode("utf-8", "replace")
