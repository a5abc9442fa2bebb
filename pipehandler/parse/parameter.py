"""Decode the parameters of Content-Type and Content-Disposition (RFC 2183 2, RFC 2231).

Their syntax is in mail/parameters.py.
"""

import re
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

from pipehandler.mail import parameters
from pipehandler.mail.parameters import COMMENT, ParameterField, Section

from .charset import codec, is_utf8, one_line, storable
from .decoding import decode
from .encoded_word import decode_words

_UNMARKED = re.compile(rb"([A-Za-z][\w-]{2,39})'[A-Za-z-]{0,20}'[^%]*%[0-9A-Fa-f]{2}")


class Parameters(ParameterField):
    """One field and its decoded parameters."""

    __slots__ = ()

    def octets(self, name: str) -> bytes | None:
        """Return the parameter's octets, sections joined (RFC 2231 3), percent-encoding undone; None if absent."""
        found = self._sections(name)
        return _unlabelled(found)[1] if found else None

    def token(self, name: str) -> str | None:
        """Return the parameter as one ASCII word, such as a charset; None if absent or empty."""
        if name not in self.sections:
            return None
        words = COMMENT.sub(b" ", self.octets(name) or b"").split()
        return words[0].strip(b"\"'").decode("ascii", "replace") or None if words else None

    def word(self, name: str) -> str:
        """Return the parameter as one word in lower case, such as format; "" if absent or empty."""
        return (self.token(name) or "").lower()

    def text(self, name: str, hints: Sequence[str] = ()) -> tuple[str | None, list[str]]:
        """Return a parameter for people, such as a file name, and what was wrong with it; None if absent or empty.

        RFC 2231 encoding is decoded if it is used; else encoded-words (RFC 2047 5 forbids them here, but most senders
        use them); else raw octets, as UTF-8 or in a guessed charset.
        """
        found = self._sections(name)
        if not found:
            return None, []
        wrong = []
        if (
            len(found) == 1
            and not found[0].extended
            and (value := _UNMARKED.match(found[0].octets))
            and codec(value[1].decode("ascii"))
        ):
            found = [found[0]._replace(extended=True)]
            wrong.append("RFC 2231 without the asterisk")
        label, octets = _unlabelled(found)
        decoded = decode(octets, label, hints)
        wrong += [decoded.guessed] if decoded.guessed and (label or not is_utf8(octets)) else []
        if decoded.replaced:
            wrong.append(f"octets that are not in {label}")
        text, broken = decode_words(decoded.text, hints)
        line = one_line(text)
        if line != text.replace("\t", " "):  # folding may leave a tab
            wrong.append("control characters")
        return storable(line.strip()) or None, wrong + broken

    def _sections(self, name: str) -> list[Section]:
        """Return the sections of one parameter in its best form: `name*`, else `name*0` and so on, else `name`."""
        found = self.sections.get(name, [])
        if len(found) > 1:  # an empty one does not hide another form
            found = [each for each in found if each.number >= 0 or _unlabelled([each])[1].strip()]
        whole = next((section for section in found if section.number < 0 and section.extended), None)
        if whole is not None:
            return [whole]
        numbered: dict[int, Section] = {}
        for section in found:
            numbered.setdefault(section.number, section)  # the first of a duplicate number counts
        plain = numbered.pop(-1, None)
        return [numbered[number] for number in sorted(numbered)] or ([plain] if plain else [])


def _unlabelled(sections: list[Section]) -> tuple[str | None, bytes]:
    """Return the charset at the start of the first section, as charset'language' (RFC 2231 4), and all octets."""
    label, first = b"", sections[0].octets
    if sections[0].extended and first.count(b"'") >= 2:
        label, _, first = first.split(b"'", 2)
    sections = [sections[0]._replace(octets=first), *sections[1:]]
    octets = b"".join(unquote_to_bytes(each.octets) if each.extended else each.octets for each in sections)
    return label.decode("ascii", "replace") or None, octets


def parse(body: bytes) -> Parameters:
    """Parse one field body, folded or not. Never raises; anything that is not a parameter is skipped."""
    return Parameters(*parameters.read(body))
