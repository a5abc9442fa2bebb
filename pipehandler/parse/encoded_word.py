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
# Letters that can end base64, by the number of letters in the last, incomplete group.
_LAST = {2: frozenset(_BASE64[::16]), 3: frozenset(_BASE64[::4])}


_Word = tuple[str, str]  # the encoding in lower case, and the encoded text
_ENCODING = itemgetter(0)


def decode_words(body: str, hints: Sequence[str] = ()) -> tuple[str, list[str]]:
    """Return `body` with its encoded-words decoded, and a list of what was wrong with them. Never raises.

    White space between two encoded-words is dropped (RFC 2047 6.2). Adjacent words of one charset are decoded as one,
    because many senders split them inside a character, a base64 group or an escape (against RFC 2047 5). Words are
    decoded anywhere, even within other text and in quotes, where RFC 2047 5 forbids them but senders put them. Decoded
    text has no control characters (RFC 2047 5, end).
    """
    if "=?" not in body:
        return body, []
    pieces: list[str] = []
    wrong: list[str] = []
    label = ""
    words: list[_Word] = []  # pending: the next word may join them

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
    """Return the octets that adjacent words encode."""
    octets = bytearray()
    for encoding, group in groupby(words, key=_ENCODING):
        texts = [text for _, text in group]
        if encoding == "q":  # RFC 2047 4.2; an escape may be split between words
            octets += binascii.a2b_qp("".join(texts).encode("utf-8", "surrogatepass"), header=True)
        else:
            octets += _base64(texts, label, wrong)
    return bytes(octets)


def _base64(texts: Sequence[str], label: str, wrong: list[str]) -> bytes:
    """Decode base64 texts: either each is complete, perhaps without padding, or they are one text split anywhere."""
    if len(texts) == 1:
        return _group(texts[0], wrong)
    apart, together = _groups(texts, join=False), _groups(texts, join=True)
    if together != apart:
        # A sender that pads one word pads all of them.
        padded = texts[-1].endswith("=") or not _can_end(_NOT_BASE64.sub("", apart[-1]))
        first, second = (together, apart) if padded else (apart, together)
        octets = b"".join(_group(text, []) for text in first)
        if _is_sound(octets, label) or not _is_sound(b"".join(_group(text, []) for text in second), label):
            second = first
        return b"".join(_group(text, wrong) for text in second)
    return b"".join(_group(text, wrong) for text in apart)


def _can_end(letters: str) -> bool:
    """Whether base64 can end after these letters: the unused bits are zero."""
    rest = len(letters) % 4
    return rest == 0 or letters[-1] in _LAST.get(rest, ())


def _is_sound(octets: bytes, label: str) -> bool:
    decoded = decode(octets, label)
    return not decoded.guessed and not decoded.replaced


def _groups(texts: Sequence[str], join: bool) -> list[str]:
    """Join texts that must be decoded together.

    A text that stops inside a group of four letters, where base64 cannot end, continues in the next. Where it could
    end, `join` decides.
    """
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
