"""Encoded-words in field bodies (RFC 2047), in time linear in their length."""

import binascii
import re
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter

from .charset import codec, one_line
from .decoding import decode

_OPENING = re.compile(r"=\?([^?\s]{0,60})\?([bBqQ])\?")
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/]+")
_BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
# Letters that can end base64, by the number of letters beyond the last four.
_LAST = {2: frozenset(_BASE64[::16]), 3: frozenset(_BASE64[::4])}


_Word = tuple[str, str]  # its encoding in lower case, and its encoded text
_ENCODING = itemgetter(0)


def decode_words(body: str, hints: Sequence[str] = ()) -> tuple[str, list[str]]:
    """`body` with its encoded-words decoded, and a list of what was wrong with them. Never raises.

    Space between two encoded-words is dropped (RFC 2047 6.2). Words of one charset that stand side by side are
    decoded as one, since many senders split them inside a character, a group of base64 or an escape (against RFC
    2047 5). Words are decoded wherever they stand, also inside other text and in quotes, where RFC 2047 5 forbids them
    and senders put them. What comes out of a word has no effect on the display but its text (RFC 2047 5, end).
    """
    if "=?" not in body:
        return body, []
    pieces: list[str] = []
    wrong: list[str] = []
    label = ""
    words: list[_Word] = []  # that wait for a neighbour

    def settle() -> None:
        if words:
            decoded = decode(_octets(words, label, wrong), label, hints)
            if decoded.guessed or decoded.replaced:
                wrong.append(decoded.guessed or f"octets that are not in {label}")
            text = one_line(decoded.text)
            if text != decoded.text:
                wrong.append("control characters")
            pieces.append(text)
            words.clear()

    position = 0
    while (opening := _OPENING.search(body, position)) is not None:
        end = body.find("?=", opening.end())
        if end < 0:
            break
        between = body[position : opening.start()]
        charset = opening[1].partition("*")[0]  # RFC 2231 5: a language may follow
        if between.strip(" \t\r\n") or not (pieces or words):
            settle()
            pieces.append(between)
        if charset.lower() != label.lower():
            if codec(charset) != codec(label):
                settle()
            label = charset
        words.append((opening[2].lower(), body[opening.end() : end]))
        position = end + 2
    settle()
    if "=?" in body[position:]:
        wrong.append("encoded-word without end")
    pieces.append(body[position:])
    return "".join(pieces), wrong


def _octets(words: Sequence[_Word], label: str, wrong: list[str]) -> bytes:
    """What words side by side encode."""
    octets = bytearray()
    for encoding, group in groupby(words, key=_ENCODING):
        texts = [text for _, text in group]
        if encoding == "q":  # RFC 2047 4.2; an escape may be cut in two
            octets += binascii.a2b_qp("".join(texts).encode("utf-8", "surrogatepass"), header=True)
        else:
            octets += _base64(texts, label, wrong)
    return bytes(octets)


def _base64(texts: Sequence[str], label: str, wrong: list[str]) -> bytes:
    """Each text is base64 of its own, perhaps without padding; or they are one base64 that was cut anywhere."""
    if len(texts) == 1:
        return _group(texts[0], wrong)
    apart, together = _groups(texts, join=False), _groups(texts, join=True)
    if together != apart:
        # Who pads one word pads all of them.
        padded = texts[-1].endswith("=") or not _can_end(_NOT_BASE64.sub("", apart[-1]))
        first, second = (together, apart) if padded else (apart, together)
        octets = b"".join(_group(text, []) for text in first)
        if _is_sound(octets, label) or not _is_sound(b"".join(_group(text, []) for text in second), label):
            second = first
        return b"".join(_group(text, wrong) for text in second)
    return b"".join(_group(text, wrong) for text in apart)


def _can_end(letters: str) -> bool:
    """Whether base64 can end after these letters: the bits that are left over are zero."""
    rest = len(letters) % 4
    return rest == 0 or letters[-1] in _LAST.get(rest, ())


def _is_sound(octets: bytes, label: str) -> bool:
    decoded = decode(octets, label)
    return not decoded.guessed and not decoded.replaced


def _groups(texts: Sequence[str], join: bool) -> list[str]:
    """Texts that are decoded each for itself. Where one ends inside a group of four letters and cannot end there, it
    goes on in the next; where it could end there, that is up to `join`."""
    groups: list[str] = []
    waiting: list[str] = []
    rest = 0
    for text in texts:
        waiting.append(text)
        letters = _NOT_BASE64.sub("", text)
        rest = (rest + len(letters)) % 4
        if rest == 0 or text.endswith("=") or (not join and letters[-1:] in _LAST.get(rest, ())):
            groups.append("".join(waiting))
            waiting, rest = [], 0
    return [*groups, "".join(waiting)] if waiting else groups


def _group(text: str, wrong: list[str]) -> bytes:
    letters = _NOT_BASE64.sub("", text)
    rest = len(letters) % 4
    if rest == 1 or len(letters) != len(text.rstrip("=")):
        wrong.append("base64 is broken")
    letters = letters[:-1] if rest == 1 else letters
    return binascii.a2b_base64(letters + "=" * (-len(letters) % 4))
