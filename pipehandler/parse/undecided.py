"""Decode octets that are not simply ASCII or UTF-8 and labelled as such: the rule of decoding.py in full."""

import codecs
import re
from collections.abc import Iterator, Sequence

from . import stateful, utf_16
from .charset import EBCDIC, SEVEN_BIT, STATEFUL, VISCII, WIDE, Decoded, Hints, codec, is_utf8, strictly
from .detection import is_kana, ranked
from .plausibility import ODD, oddness
from .utf_8 import is_cut, without_surrogates

_MARKS = (
    (codecs.BOM_UTF8, "utf_8"),
    (codecs.BOM_UTF32_LE, "utf_32"),
    (codecs.BOM_UTF32_BE, "utf_32"),
    (codecs.BOM_UTF16_LE, "utf_16"),
    (codecs.BOM_UTF16_BE, "utf_16"),
)
# In these charsets a few characters may be valid UTF-8 by accident, even in common words: U+8C22 in GB 2312 is.
_ACCIDENTAL = frozenset({
    "cp949", "johab", "gb18030", "big5hkscs", "cp950", "cp932", "shift_jis", "shift_jis_2004", "shift_jisx0213",
    "euc_jp", "euc_jis_2004", "euc_jisx0213", "cp874", "tis_620", "iso8859_11",
})  # fmt: skip
_ACCIDENTS = 3  # characters: more cannot be an accident
_EAST_ASIAN = _ACCIDENTAL - {"cp874", "tis_620", "iso8859_11"}
_FEW = 4  # characters: no name has more, and many have one that is rare in everyday text
_BESIDE_LETTERS = re.compile(r"[A-Za-z][^\x00-\x7f]|[^\x00-\x7f][a-z]")
_WORD_WITH_ASCII = re.compile(rb"[A-Za-z][\x80-\xff]|[\x80-\xff][a-z]")
_META = re.compile(rb"<meta\b[^<>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
# Whole lines that have an octet above 0x7F.
_EIGHT_BIT_LINES = re.compile(rb"(?:^[\x00-\x09\x0b-\x7f]*+[\x80-\xff][^\n]*+\n?)+", re.MULTILINE)
_MIXED_OCTETS = 1_000_000  # that are decoded line by line, at a microsecond or two for each
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f\x1b")) + b"\x7f"
_BEGINNING = 4_096  # octets that are searched for a <meta>
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
# The charsets that are often meant by the label of another: of the same script, for another system.
_NEIGHBOURS: dict[str, tuple[str, ...]] = {
    "iso8859_2": ("cp1250",), "cp1250": ("iso8859_2",), "iso8859_4": ("cp1257",), "iso8859_5": ("cp1251", "koi8_r"),
    "iso8859_6": ("cp1256",), "iso8859_7": ("cp1253",), "cp1253": ("iso8859_7",), "iso8859_8": ("cp1255",),
    "iso8859_13": ("cp1257",), "iso8859_15": ("cp1252",), "koi8_r": ("koi8_u", "cp1251"), "cp1251": ("koi8_r",),
    "cp932": ("euc_jp",), "shift_jis": ("euc_jp",), "euc_jp": ("cp932",),
}  # fmt: skip
_SOUND = 0.02  # of oddness: everyday text in the right charset hardly has more
_HALF_WIDTH = re.compile("[\uff61-\uff9f\\x00-\\x7f]*")
# Printable characters of the Windows charset are a superset of those of the standard one, and mail names the latter.
_WINDOWS = {"latin_1": "cp1252", "iso8859_9": "cp1254", "tis_620": "cp874", "iso8859_11": "cp874"}
# Under the label of a stateful charset, 8-bit octets are probably in the same language.
_RELATIVES = {
    "iso2022_kr": ("cp949",), "iso2022_cn": ("gb18030",), "hz": ("gb18030",), "iso2022_jp": ("cp932", "euc_jp"),
}  # fmt: skip


def decode(octets: bytes, name: str | None, label: str | None, hints: Sequence[str], html: bool) -> Decoded:
    """Decode `octets`. `name` is the codec of `label`; otherwise as decoding.decode, which calls this."""
    if octets.isascii() and name not in SEVEN_BIT:
        return _ascii(octets, name, label)
    return _by_mark(octets, name, label) or _Undecided(octets, name, label, hints, html).decide()


def _ascii(octets: bytes, name: str | None, label: str | None) -> Decoded:
    """Decode octets below 0x80 as ASCII, or as a 7-bit charset in disguise.

    Their label is a superset of ASCII, EBCDIC (whose letters are all above 0x80), or missing.
    """
    if (hidden := stateful.announced(octets)) and (text := stateful.read(octets, hidden)) is not None:
        return Decoded(text, hidden, f"{label or 'no charset'}: escape sequences of {hidden}")
    if utf_16.has_zeros(octets) and (wide := utf_16.read(octets, "utf_16")) is not None:
        return Decoded(wide, "utf_16", f"{label or 'no charset'}: octets are UTF-16")
    if name == VISCII:
        return Decoded(octets.decode(VISCII), VISCII)
    useless = bool(label) and (name is None or name in EBCDIC)
    return Decoded(octets.decode("ascii"), "ascii", f"unknown charset {label}" if useless else "")


def _by_mark(octets: bytes, name: str | None, label: str | None) -> Decoded | None:
    """Decode by a byte order mark, unless the label or the resulting text contradicts it."""
    for mark, marked in _MARKS:
        if octets.startswith(mark):
            text = strictly(octets, marked)
            expected = marked == "utf_8" or name in (None, "ascii", "utf_8") or name in WIDE
            if text is not None and (expected or ("\0" not in text and oddness(text) <= ODD)):
                followed = name in (None, marked) or (name in WIDE and marked in WIDE)
                return Decoded(text.removeprefix("\ufeff"), marked, "" if followed else f"{label}: byte order mark")
    return None


class _Undecided:
    """The decoding of octets that are not ASCII and may not match their label."""

    def __init__(self, octets: bytes, name: str | None, label: str | None, hints: Sequence[str], html: bool) -> None:
        self.octets, self.name, self.label = octets, name, label
        self.bound = hints if isinstance(hints, Hints) else None
        # The codec of the label, if it is for 8-bit text other than UTF-8.
        self.eight_bit = None if name in (None, "ascii", "utf_8") or name in SEVEN_BIT else name
        self.reason = (label if name else f"unknown charset {label}") if label else "no charset"
        likely = [codec(hint) for hint in hints]
        if html and name in (None, "ascii") and (meta := _META.search(octets, 0, _BEGINNING)):
            likely.insert(0, codec(meta[1].decode("ascii")))
        likely += _RELATIVES.get(name or "", ())
        useless = {None, "ascii", "utf_8", *SEVEN_BIT, *EBCDIC}
        self.hints = [_meant(hint) for hint in likely if hint is not None and hint not in useless]
        self.readings: dict[str, tuple[str, float]] = {}

    def decide(self) -> Decoded:
        """Return the text by the first rule that applies."""
        for rule in (self._seven_bit, self._utf_8, self._by_label, self._by_detector):
            decoded = rule()
            if decoded is not None:
                return decoded
        return self._replaced(self.name or "latin_1")

    def _seven_bit(self) -> Decoded | None:
        """Decode a stateful or wide charset, labelled or in disguise."""
        octets, name = self.octets, self.name
        if name in WIDE:
            return self._wide(name)
        if utf_16.has_zeros(octets) and (wide := utf_16.read(octets, "utf_16")) is not None:
            return Decoded(wide, "utf_16", f"{self.reason}: octets are UTF-16")
        if name in STATEFUL and (text := stateful.read(octets, name)) is not None:
            return Decoded(text, name, "" if octets.isascii() else f"{self.label}: some lines are UTF-8")
        if (hidden := stateful.announced(octets)) and (text := stateful.read(octets, hidden)) is not None:
            return Decoded(text, hidden, f"{self.reason}: escape sequences of {hidden}")
        if octets.isascii():
            return (self._replaced(name) if b"\x1b" in octets else self._ascii()) if name in STATEFUL else None
        return self._with_other_lines(hidden) if hidden else None

    def _with_other_lines(self, name: str) -> Decoded | None:
        """Decode lines in the stateful charset `name` that stand beside lines in some 8-bit charset, such as a footer."""
        others = b"".join(_EIGHT_BIT_LINES.findall(self.octets)) if len(self.octets) <= _MIXED_OCTETS else b""
        if not 0 < len(others) < len(self.octets) or not (self.bound is None or self.bound.may_detect()):
            return None
        footer = decode(others, None, None, [*self.hints, *_RELATIVES.get(name, ())], False)
        if footer.codec in SEVEN_BIT:
            return None
        texts, position = list[str | None](), 0
        for found in _EIGHT_BIT_LINES.finditer(self.octets):
            texts.append(stateful.read(self.octets[position : found.start()], name))
            texts.append(found[0].decode(footer.codec, "replace"))
            position = found.end()
        texts.append(stateful.read(self.octets[position:], name))
        if any(text is None for text in texts):
            return None
        text = "".join(filter(None, texts))
        return Decoded(text, name, f"{self.reason}: some lines are {footer.codec}", text.count(_REPLACEMENT))

    def _wide(self, name: str) -> Decoded | None:
        """Decode by a label of UTF-16 or UTF-32.

        Without a zero octet, such text has no ASCII character, not even a line end. Octets without zeros that are valid
        UTF-8 and have no control characters are therefore 8-bit text with a wrong label.
        """
        zeros = b"\0" in self.octets
        if zeros or not is_utf8(self.octets) or len(self.octets.translate(None, _CONTROLS)) < len(self.octets):
            text = utf_16.read(self.octets, name)
            if text is not None or zeros:
                return Decoded(text, name) if text is not None else self._replaced(name)
        return self._ascii() if self.octets.isascii() else None

    def _ascii(self) -> Decoded:
        return Decoded(self.octets.decode("ascii"), "ascii", f"{self.label}: octets are ASCII")

    def _utf_8(self) -> Decoded | None:
        octets, text = self.octets, strictly(self.octets, "utf_8")
        guessed, lone = "" if self.name == "utf_8" else f"{self.reason}: octets are UTF-8", 0
        if text is None and b"\xed" in octets:
            octets = without_surrogates(octets)
            text = strictly(octets, "utf_8")
            lone = octets.count(_REPLACEMENT.encode()) - self.octets.count(_REPLACEMENT.encode())
            guessed = f"{self.reason}: surrogates are encoded one by one"
        if text is None:
            # With few characters the label wins, if its reading is plausible.
            followed = self.eight_bit is not None and self._is_plausible(self.eight_bit)
            return None if followed else self._nearly_utf_8(octets)
        rival = self.eight_bit or (next(iter(self.hints), None) if self.name != "utf_8" else None)
        other = strictly(octets, rival) if rival else None
        if rival and other is not None and self._is_accident(text, other, rival):
            return Decoded(other, rival, "" if rival == self.name else f"{self.reason}: taken for {rival}")
        return Decoded(text, "utf_8", guessed, lone)

    def _is_accident(self, text: str, other: str, rival: str) -> bool:
        """Whether the octets are valid UTF-8 only by chance. `other` is their reading in the charset `rival`."""
        if rival not in _ACCIDENTAL:
            return False
        odd, other_odd = oddness(text), oddness(other)
        if odd != other_odd:
            return odd > ODD and odd > other_odd
        short = _beyond_ascii(text) <= _ACCIDENTS
        return short and not odd and not _WORD_WITH_ASCII.search(self.octets)

    def _nearly_utf_8(self, octets: bytes) -> Decoded | None:
        """Decode UTF-8 that has some invalid octets: one character cut in two does not discredit the others."""
        text = octets.decode("utf_8", "replace")
        bad = text.count(_REPLACEMENT) - octets.count(_REPLACEMENT.encode())
        good = _beyond_ascii(text) - bad
        cut = bad == 1 and is_cut(octets)
        odd = oddness(text.replace(_REPLACEMENT, ""))
        if self.name == "utf_8":
            holds = cut if not good else good * (1 - odd) >= bad
        else:
            enough = good >= (1 if cut else 4 * bad) or self.eight_bit is not None
            holds = odd <= ODD and good >= bad and (enough or not self._is_plausible("cp1252"))
        if not holds:
            return None
        return Decoded(text, "utf_8", "" if self.name == "utf_8" else f"{self.reason}: octets are mostly UTF-8", bad)

    def _is_plausible(self, name: str) -> bool:
        reading = self._reading(name)
        return reading is not None and reading[1] <= ODD

    def _reading(self, name: str) -> tuple[str, float] | None:
        """Return the octets decoded with `name`, and the oddness of that; None if they are not valid. Cached."""
        if name not in self.readings:
            text = strictly(self.octets, name)
            if text is None and name == "euc_jp":
                text = stateful.read_euc_jp(self.octets)
            if text is None:
                return None
            same = [odd for other, odd in self.readings.values() if other == text]  # ISO 8859-1 and windows-1252
            self.readings[name] = text, same[0] if same else oddness(text)
        return self.readings[name]

    def _by_label(self) -> Decoded | None:
        if self.eight_bit is None:
            return None
        # In mail, "ISO 8859-1" means windows-1252: in the former, the octets 0x80-0x9F are control characters.
        name = _meant(self.eight_bit)
        reading = self._reading(name) or self._reading(self.eight_bit)
        if neighbour := self._neighbour(name, reading):
            return Decoded(
                neighbour[1], neighbour[0], f"{self.label}: its reading is not plausible; taken for {neighbour[0]}"
            )
        if reading is None:
            broken = self._replaced(name)
            most = 4 if self.eight_bit in _EAST_ASIAN else 2  # there an octet that is not valid may shift others
            few = broken.replaced * most < _beyond_ascii(broken.text)
            return broken if few and oddness(broken.text) <= 0.25 else None
        text, odd = reading
        if odd > ODD and not self._is_name(text) and (likelier := next(self._ranked(), None)):
            other, other_text = likelier
            if oddness(other_text) < odd / 4 and other_text != text:
                return Decoded(other_text, other, f"{self.label}: its reading is not plausible; taken for {other}")
        return Decoded(text, name)

    def _neighbour(self, name: str, reading: tuple[str, float] | None) -> tuple[str, str] | None:
        """Return the charset that is often meant by the label `name`, with the text, if that is the plausible one."""
        text, odd = reading or ("", 0.0)
        if name not in _NEIGHBOURS or (reading and not odd and not _is_half_width(text)):  # as EUC-JP looks
            return None
        others = ((other, *found) for other in _NEIGHBOURS[name] if (found := self._reading(other)))
        best = min(others, key=lambda other: other[2], default=None)
        if best is None or best[2] > min(odd / 2, _SOUND) or (reading and not odd and not is_kana(best[1])):
            return None
        return best[:2]

    def _is_name(self, text: str) -> bool:
        """Whether an East Asian label gives a few characters without adjacent letters, as in a name.

        A rare character among them proves nothing then: names are full of them. Octets in another charset would be
        more, or adjacent to letters.
        """
        return (
            self.eight_bit in _EAST_ASIAN
            and _beyond_ascii(text) <= _FEW
            and not _BESIDE_LETTERS.search(text)
            and all(map(str.isprintable, filter(lambda character: character > "\x7f", text)))
        )

    def _ranked(self) -> Iterator[tuple[str, str]]:
        return ranked(self.octets, self.hints, self.bound is None or self.bound.may_detect())

    def _by_detector(self) -> Decoded | None:
        for name, text in self._ranked():
            suggested = ", which the message suggests" if name in self.hints else ""
            return Decoded(text, name, f"{self.reason}: taken for {name}{suggested}")
        return None

    def _replaced(self, name: str) -> Decoded:
        """Decode with the codec `name`, with U+FFFD for invalid octets."""
        text = self.octets.decode("gb2312" if name == "iso2022_cn" else name, "replace")
        guessed = "" if name == self.name else f"{self.reason}: taken for {name}"
        return Decoded(text, name, guessed, text.count(_REPLACEMENT))


def _is_half_width(text: str) -> bool:
    return not text.isascii() and _HALF_WIDTH.fullmatch(text) is not None


def _meant(name: str) -> str:
    """Return the charset of Windows that mail means by a standard one, whose octets 0x80-0x9F are control characters."""
    return _WINDOWS.get(name, name)


def _beyond_ascii(text: str) -> int:
    return len(text) - len(text.encode("ascii", "ignore"))
