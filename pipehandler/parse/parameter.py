"""Fields with parameters, Content-Type and Content-Disposition: RFC 2045 5.1, RFC 2183 2, RFC 2231."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from .charset import one_line, storable
from .decoding import decode
from .encoded_word import decode_words
from .utf_8 import is_utf8

# A quote inside of a value ends it only where no other comes before the next semicolon, or another parameter follows.
_INNER_QUOTE = rb"\"(?=[^\";]*\")(?!\s{0,9}[\w*-]{1,40}\s{0,9}=)"
_PARAMETER = re.compile(
    rb";\s*([^\s=;\"]+)\s*=\s*(?:\"([^\"\\]*(?:(?:\\.|%s)[^\"\\]*)*)(?:\"|\\?\Z)|([^;]*))" % _INNER_QUOTE, re.DOTALL
)
_QUOTED_PAIR = re.compile(rb"\\([\"\\])")
_SECTION = re.compile(rb"(.+?)(?:\*(\d{1,3}))?(\*)?\Z", re.DOTALL)  # RFC 2231 3 and 4
_COMMENT = re.compile(rb"\([^()]*\)")
_PARAMETERS = 200  # of one field; real ones have a handful, a long file name in sections some dozens


class Section(NamedTuple):
    """One attribute as written (RFC 2231): its number, -1 without one; whether percent-encoded; and the value."""

    number: int
    extended: bool
    octets: bytes


@dataclass(slots=True)
class Parameters:
    """One field: the `value` before the first semicolon in lower case, and the sections of its parameters by their
    name in lower case. `complete` is False where some were left out.
    """

    value: str
    sections: dict[str, list[Section]] = field(default_factory=dict)
    complete: bool = True

    def octets(self, name: str) -> bytes | None:
        """The parameter as its octets, sections joined (RFC 2231 3), percent-encoding undone; None if absent."""
        found = self._sections(name)
        return _unlabelled(found)[1] if found else None

    def token(self, name: str) -> str | None:
        """The parameter as one ASCII word, such as a charset; None if absent or empty."""
        if name not in self.sections:
            return None
        words = _COMMENT.sub(b" ", self.octets(name) or b"").split()
        return words[0].strip(b"\"'").decode("ascii", "replace") or None if words else None

    def word(self, name: str) -> str:
        """The parameter as one word in lower case, such as format; "" if absent or empty."""
        return (self.token(name) or "").lower()

    def text(self, name: str, hints: Sequence[str] = ()) -> tuple[str | None, list[str]]:
        """The parameter for people, such as a file name, and what was wrong with it; None if absent or empty.

        By RFC 2231 where it says so; else encoded-words (RFC 2047 5 forbids them here, and most senders use them);
        else raw octets, UTF-8 or guessed.
        """
        found = self._sections(name)
        if not found:
            return None, []
        label, octets = _unlabelled(found)
        decoded = decode(octets, label, hints)
        wrong = [decoded.guessed] if decoded.guessed and (label or not is_utf8(octets)) else []
        if decoded.replaced:
            wrong.append(f"octets that are not in {label}")
        text, broken = decode_words(decoded.text, hints)
        line = one_line(text)
        if line != text.replace("\t", " "):  # a tab may stand where the field was folded
            wrong.append("control characters")
        return storable(line.strip()) or None, wrong + broken

    def _sections(self, name: str) -> list[Section]:
        """What makes up one parameter: `name*` before `name*0` and so on before `name`, the more telling first."""
        found = self.sections.get(name, [])
        whole = next((section for section in found if section.number < 0 and section.extended), None)
        if whole is not None:
            return [whole]
        numbered: dict[int, Section] = {}
        for section in found:
            numbered.setdefault(section.number, section)  # of two with one number the first counts
        plain = numbered.pop(-1, None)
        return [numbered[number] for number in sorted(numbered)] or ([plain] if plain else [])


def _unlabelled(sections: list[Section]) -> tuple[str | None, bytes]:
    """The charset that stands before the first section as charset'language' (RFC 2231 4), and all octets."""
    label, first = b"", sections[0].octets
    if sections[0].extended and first.count(b"'") >= 2:
        label, _, first = first.split(b"'", 2)
    sections = [sections[0]._replace(octets=first), *sections[1:]]
    octets = b"".join(unquote_to_bytes(each.octets) if each.extended else each.octets for each in sections)
    return label.decode("ascii", "replace") or None, octets


def parse(body: bytes) -> Parameters:
    """Read one field body, still folded or not. Never raises; what is no parameter is skipped."""
    value, semicolon, rest = body.partition(b";")
    if b"=" in value and (words := value.split(None, 1))[1:]:
        value, rest = words[0], words[1] + semicolon + rest  # no semicolon before the first parameter
    field = Parameters(b"".join(_COMMENT.sub(b" ", value).split()).decode("ascii", "replace").lower())
    for count, match in enumerate(_PARAMETER.finditer(b";" + rest)):
        if count >= _PARAMETERS:
            field.complete = False
            break
        section = _SECTION.match(match[1])
        if section is None:
            continue
        octets = _QUOTED_PAIR.sub(rb"\1", match[2]) if match[2] is not None else match[3].strip()
        octets = re.sub(rb"\r?\n(?=[ \t])", b"", octets)
        name = section[1].decode("ascii", "replace").lower()
        field.sections.setdefault(name, []).append(Section(int(section[2] or -1), bool(section[3]), octets))
    return field
