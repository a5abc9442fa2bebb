"""Encoded-words in field bodies (RFC 2047), in time linear in their length."""

import binascii
import re
from collections.abc import Sequence

from .charset import codec
from .decoding import decode

_OPENING = re.compile(r"=\?([^?\s]{1,60})\?([bBqQ])\?")
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/]+")


def decode_words(body: str, hints: Sequence[str] = ()) -> tuple[str, list[str]]:
    """`body` with its encoded-words decoded, and a list of what was wrong with them. Never raises.

    Space between two encoded-words is dropped (RFC 2047 6.2). Words of one charset that stand side by side are
    decoded as one, since many senders split them inside a character (against RFC 2047 5). Words are decoded wherever
    they stand, also inside other text and in quotes, where RFC 2047 5 forbids them and senders put them.
    """
    if "=?" not in body:
        return body, []
    pieces: list[str] = []
    wrong: list[str] = []
    label, octets = "", bytearray()  # the words that wait for a neighbour

    def settle() -> None:
        nonlocal octets
        if octets:
            decoded = decode(bytes(octets), label, hints)
            pieces.append(decoded.text)
            if decoded.guessed or decoded.replaced:
                wrong.append(decoded.guessed or f"octets that are not in {label}")
            octets = bytearray()

    position = 0
    while (opening := _OPENING.search(body, position)) is not None:
        end = body.find("?=", opening.end())
        if end < 0:
            break
        between = body[position : opening.start()]
        charset = opening[1].partition("*")[0]  # RFC 2231 5: a language may follow
        if between.strip(" \t\r\n") or not (pieces or octets):
            settle()
            pieces.append(between)
        if charset.lower() != label.lower():
            if codec(charset) != codec(label):
                settle()
            label = charset
        octets += _octets(body[opening.end() : end], opening[2], wrong)
        position = end + 2
    settle()
    if "=?" in body[position:]:
        wrong.append("encoded-word without end")
    pieces.append(body[position:])
    return "".join(pieces), wrong


def _octets(text: str, encoding: str, wrong: list[str]) -> bytes:
    if encoding in "qQ":  # RFC 2047 4.2
        return binascii.a2b_qp(text.encode("utf-8", "surrogatepass"), header=True)
    alphabet = _NOT_BASE64.sub("", text)
    rest = len(alphabet) % 4
    if rest == 1 or len(alphabet) != len(text.rstrip("=")):
        wrong.append("base64 is broken")
    alphabet = alphabet[:-1] if rest == 1 else alphabet
    return binascii.a2b_base64(alphabet + "=" * (-len(alphabet) % 4))
