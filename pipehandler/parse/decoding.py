"""Octets to text: by their charset label, or by what they look like where it is missing or wrong."""

import codecs
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .charset import codec

_WIDE = frozenset({"utf_16", "utf_16_be", "utf_16_le", "utf_32", "utf_32_be", "utf_32_le"})
# Text in these is made of octets below 0x80, but is not ASCII: stateful 7-bit charsets, wide ones, EBCDIC.
_NOT_ASCII_NAMES = (
    "utf_7 hz iso2022_kr iso2022_jp iso2022_jp_1 iso2022_jp_2 iso2022_jp_2004 iso2022_jp_3 iso2022_jp_ext cp037 cp273 "
    "cp424 cp500 cp875 cp1026 cp1140"
)
_NOT_ASCII = _WIDE | frozenset(_NOT_ASCII_NAMES.split())
# Labels that are put on anything. Under them, octets that can be UTF-8 are UTF-8: hardly any other text can.
_CARELESS = frozenset({"ascii", "latin_1", "cp1252", "iso8859_15"})

_MARKS = (
    (codecs.BOM_UTF8, "utf_8"),
    (codecs.BOM_UTF32_LE, "utf_32"),
    (codecs.BOM_UTF32_BE, "utf_32"),
    (codecs.BOM_UTF16_LE, "utf_16"),
    (codecs.BOM_UTF16_BE, "utf_16"),
)
_ESCAPES = (  # what announces a charset by itself: RFC 1468, RFC 1557
    (re.compile(rb"\x1b(?:\$[@B]|\([JI]|\$\(D)"), "iso2022_jp"),
    (re.compile(rb"\x1b\$\)C"), "iso2022_kr"),
)
_META = re.compile(rb"<meta\b[^<>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
_META_OCTETS = 4_096  # the part of a document in which its <meta> is looked for
_HIGH = re.compile(rb"[\x80-\xff]")
_DETECTED_OCTETS = 4_096  # what the detector sees: its time grows with it, its certainty hardly
_CONFIDENCE = 0.05  # below it the detector's answer is worth less than windows-1252
# On a few words of a Western language the detector answers with one of these; windows-1252 is likelier.
_RARITIES = ("mac", "cp0", "cp4", "cp5", "cp7", "cp8", "hp", "iso8859_3", "iso8859_4", "iso8859_10", "iso8859_14",
             "iso8859_15", "iso8859_16")  # fmt: skip
_REWRITTEN_OCTETS = 1_000_000  # of ISO-2022-JP at most: they cost some 150 ns each


@dataclass(frozen=True, slots=True)
class Decoded:
    """Text (perhaps not storable), the name of the codec that gave it, and what had to be done for it.

    `guessed` says why the label was not followed, "" where it was. `replaced` counts the places that became U+FFFD.
    """

    text: str
    codec: str
    guessed: str = ""
    replaced: int = 0


def decode(octets: bytes, label: str | None = None, hints: Sequence[str] = (), html: bool = False) -> Decoded:
    """Decode `octets`, which are said to be in the charset `label`. Never raises.

    `hints` are labels to try where `label` is of no use, the likeliest first; with `html` the document's own
    <meta charset> is one. The label is not followed where it is unknown, where it cannot be (8-bit octets under
    us-ascii), or where the octets are UTF-8 under one of the labels that are put on anything.
    """
    name = codec(label)
    marked = _by_mark(octets, name, label)
    if marked is not None:
        return marked
    if octets.isascii() and name not in _NOT_ASCII:
        for pattern, announced in _ESCAPES:
            if b"\x1b" in octets and pattern.search(octets):
                return _labelled(octets, announced, f"{label or 'no charset'}: escape sequences of {announced}")
        return Decoded(octets.decode("ascii"), "ascii", f"unknown charset {label}" if label and name is None else "")
    if name in _CARELESS and (text := _strictly(octets, "utf_8")) is not None:
        return Decoded(text, "utf_8", f"{label}: octets are UTF-8")
    if name == "latin_1":
        # Everybody means windows-1252 by it: in ISO 8859-1 the octets 0x80-0x9F are control characters.
        return Decoded(_strictly(octets, "cp1252") or octets.decode("latin_1"), "cp1252")
    if name is None or name == "ascii":
        return _guess(octets, hints, html, (label if name else f"unknown charset {label}") if label else "no charset")
    decoded = _labelled(octets, name)
    if not decoded.replaced or (name == "utf_8" and _mostly_right(decoded)):
        return decoded
    other = _guess(octets, (), html, f"{label}: octets are not in it")
    return decoded if other.codec != "utf_8" and _mostly_right(decoded) else other


def is_utf8(octets: bytes) -> bool:
    """Whether `octets` are valid UTF-8 (RFC 3629)."""
    return _strictly(octets, "utf_8") is not None


def _by_mark(octets: bytes, name: str | None, label: str | None) -> Decoded | None:
    """By a byte order mark, where the label does not speak against it."""
    for mark, marked in _MARKS:
        if octets.startswith(mark) and (marked == "utf_8" or name in (None, "ascii", "utf_8") or name in _WIDE):
            text = _strictly(octets, marked)
            if text is not None:
                followed = name in (None, marked) or (name in _WIDE and marked in _WIDE)
                return Decoded(text.removeprefix("\ufeff"), marked, "" if followed else f"{label}: byte order mark")
    return None


def _strictly(octets: bytes, name: str) -> str | None:
    try:
        return octets.decode(name)
    except ValueError:  # UnicodeError is one
        return None


def _labelled(octets: bytes, name: str, guessed: str = "") -> Decoded:
    """Decode with the codec `name`, with replacement where the strict way fails."""
    text = _strictly(octets, name)
    if text is None and name == "iso2022_jp" and len(octets) <= _REWRITTEN_OCTETS:
        text = _strictly(octets, "iso2022_jp_ext") or _strictly(_shift_jis(octets), "cp932")
    if text is not None:
        return Decoded(text, name, guessed)
    text = octets.decode(name, "replace")
    return Decoded(text, name, guessed, max(1, text.count("\N{REPLACEMENT CHARACTER}")))


def _mostly_right(decoded: Decoded) -> bool:
    """Whether a text with replacements is still rather in its charset than in another: one cut character is no
    reason to doubt the label."""
    beyond_ascii = len(decoded.text) - len(decoded.text.encode("ascii", "ignore"))
    return decoded.codec in _WIDE or beyond_ascii > 4 * decoded.replaced


def _guess(octets: bytes, hints: Sequence[str], html: bool, reason: str) -> Decoded:
    text = _strictly(octets, "utf_8")
    if text is not None:
        return Decoded(text, "utf_8", f"{reason}: octets are UTF-8")
    broken = _labelled(octets, "utf_8", f"{reason}: octets are mostly UTF-8")
    if _mostly_right(broken):
        return broken
    if html and (meta := _META.search(octets, 0, _META_OCTETS)):
        hints = (meta[1].decode("ascii"), *hints)
    for hint in hints:
        name = codec(hint)
        if name is not None and name not in _NOT_ASCII and name not in ("ascii", "utf_8"):
            name = "cp1252" if name == "latin_1" else name
            text = _strictly(octets, name)
            if text is not None:
                return Decoded(text, name, f"{reason}: taken for {name}, which the message suggests")
    for name in (_detect(octets), "cp1252"):
        text = _strictly(octets, name) if name else None
        if text is not None and name is not None:
            return Decoded(text, name, f"{reason}: taken for {name}")
    return Decoded(octets.decode("latin_1"), "latin_1", f"{reason}: taken for latin_1")  # which takes anything


def _detect(octets: bytes) -> str | None:
    """What the octets look like, by chardet; only 8-bit octets and what is around them are shown to it."""
    import chardet  # 40 ms, for the few messages that need it

    sample, position = bytearray(), 0
    while len(sample) < _DETECTED_OCTETS and (high := _HIGH.search(octets, position)) is not None:
        start = max(position, high.start() - 100)
        position = high.end() + 200
        sample += octets[start:position] + b"\n"
    try:
        found = chardet.detect(bytes(sample))
    except MemoryError:
        raise  # the caller's limit
    except Exception:  # noqa: BLE001 # a guess may fail, in whatever way chardet does
        return None
    name = codec(found["encoding"])
    return name if name and found["confidence"] > _CONFIDENCE and not name.startswith(_RARITIES) else None


def _shift_jis(octets: bytes) -> bytes:
    """ISO-2022-JP (RFC 1468) rewritten as Shift_JIS, for the characters of NEC and IBM and the half-width katakana
    that only Microsoft's variant of it (CP50221) has."""
    out, mode = bytearray(), b""
    for index, run in enumerate(re.split(rb"\x1b(\$[@B]|\([BJI])", octets)):
        if index % 2:
            mode = run
        elif mode.startswith(b"$"):
            for lead, trail in zip(run[::2], run[1::2], strict=False):
                if 0x21 <= lead <= 0x7E and 0x21 <= trail <= 0x7E:
                    row = (lead - 0x21) // 2
                    out.append(row + (0x81 if row < 31 else 0xC1))
                    out.append(trail + (0x7E if lead % 2 == 0 else 0x1F + (trail >= 0x60)))
                else:
                    out += bytes((lead, trail))
            out += run[len(run) // 2 * 2 :]
        elif mode == b"(I":
            out += bytes(octet | 0x80 if 0x21 <= octet <= 0x5F else octet for octet in run)
        else:
            out += run
    return bytes(out)
