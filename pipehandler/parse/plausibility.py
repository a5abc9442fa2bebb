"""Measure how odd decoded text looks: whether a person could have written it, in any language.

Octets decoded with the wrong charset give valid characters but not words: symbols inside words, adjacent letters of two
alphabets, capitals after small letters, characters that hardly any text has. This needs no dictionary.
"""

import re
import unicodedata
from bisect import bisect_right
from functools import cache, lru_cache

ODD = 0.15  # the share of misplaced characters that everyday text in the right charset does not reach

_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
_SAMPLE = 200  # characters beyond ASCII that are examined
_RUN = 5  # adjacent accented letters: no language in Latin script has so many

# The start of each Unicode block and the kind of its letters. "rare" characters do not occur in everyday mail.
_BLOCKS: tuple[tuple[int, str], ...] = (
    (0x0000, "latin"), (0x0180, "rare"), (0x0192, "latin"), (0x0193, "rare"), (0x01A0, "latin"), (0x01A2, "rare"),
    (0x01AF, "latin"), (0x01B1, "rare"), (0x01CD, "latin"), (0x01DD, "rare"), (0x0218, "latin"), (0x021C, "rare"),
    (0x0259, "latin"), (0x025A, "rare"), (0x02B9, "mark"), (0x02DE, "rare"), (0x0300, "mark"), (0x0370, "rare"),
    (0x0384, "greek"), (0x03CF, "rare"), (0x0401, "cyrillic"), (0x0450, "rare"), (0x0451, "cyrillic"),
    (0x045D, "rare"), (0x045E, "cyrillic"), (0x0460, "rare"), (0x0490, "cyrillic"), (0x0500, "rare"),
    (0x0531, "armenian"), (0x0590, "hebrew"), (0x0600, "arabic"), (0x0700, "rare"), (0x0900, "indic"),
    (0x0E00, "thai"), (0x0E80, "lao"), (0x0F00, "tibetan"), (0x1000, "burmese"), (0x10A0, "georgian"),
    (0x1100, "rare"), (0x1200, "ethiopic"), (0x1380, "rare"), (0x1780, "khmer"), (0x1800, "mongolian"), (0x18B0, "rare"),
    (0x1E00, "latin"), (0x1F00, "greek"), (0x2000, "symbol"), (0x2C00, "rare"), (0x3000, "cjk"), (0xA000, "rare"),
    (0xAC00, "cjk"), (0xD800, "rare"), (0xF900, "cjk"), (0xFB00, "latin"), (0xFB1D, "hebrew"), (0xFB50, "arabic"),
    (0xFE00, "mark"), (0xFE10, "cjk"), (0xFE70, "arabic"), (0xFEFF, "mark"), (0xFF00, "cjk"), (0xFF61, "half-width"),
    (0xFFA0, "cjk"), (0xFFF0, "rare"), (0xFFFD, "mark"), (0xFFFE, "rare"), (0x1F000, "symbol"), (0x20000, "rare"),
)  # fmt: skip
_STARTS = [start for start, _ in _BLOCKS]
# Frequent characters take two octets, the first from 0xA1 up to this one: GB 2312 and JIS X 0208 level 1, Big5 level 1,
# the syllables of KS X 1001.
_FREQUENT = (("gb2312", b"\xd7"), ("euc_jp", b"\xcf"), ("big5", b"\xc6"), ("euc_kr", b"\xc8"))
# Scripts written without blanks around words in another alphabet.
_UNSPACED = frozenset({"cjk", "thai", "lao", "khmer", "burmese"})


def oddness(text: str) -> float:
    """Return the share of misplaced characters among those beyond ASCII, from 0 to 1. Only the beginning counts."""
    seen = odd = 0
    for found in _BEYOND_ASCII.finditer(text):
        start, end = found.start(), min(found.end(), found.start() + _SAMPLE)
        before = text[start - 1] if start else " "
        count = _count_in_short if end - start < 8 else _count
        odd += count(before + text[start : end + 1])
        seen += end - start
        if seen >= _SAMPLE:
            break
    return odd / seen if seen else 0.0


def _count(run: str) -> int:
    """Count the misplaced characters beyond ASCII in `run`. Its first and perhaps its last are only context."""
    kinds = [_kind(character) for character in run]
    return sum(_is_odd(run, kinds, place) for place in range(1, len(run)) if not run[place].isascii())


_count_in_short = lru_cache(4_096)(_count)  # most languages have few combinations


def _is_odd(text: str, kinds: list[str], place: int) -> bool:
    kind, character = kinds[place], text[place]
    before = kinds[place - 1]
    after = kinds[place + 1] if place + 1 < len(kinds) else ""
    if kind == "rare":
        return True
    if kind == "symbol":  # "Windows™" and "©2026" are everyday text; a symbol inside a word is odd
        if before in _LETTERS and after in _LETTERS:
            apostrophe = character == "\N{ACUTE ACCENT}" and text[place - 1].isascii() and text[place + 1].isascii()
            return not apostrophe
        return character < "\u0100" and any(
            "\x9f" < text[at] < "\u0100" and kinds[at] == "symbol" and text[at] != character
            for at in (place - 1, place + 1)
            if at < len(text)
        )
    if not before and character < "\u2000" and unicodedata.combining(character):
        return True  # an accent without a letter
    if kind not in _LETTERS:
        return False
    if before == after == "symbol" and not text[place - 1].isascii() and not text[place + 1].isascii():
        return True
    if kind in _UNSPACED:
        return before == after == "latin" and text[place + 1].islower()
    if before in _LETTERS and before != kind and (kind == "half-width" or before not in _UNSPACED):
        return True
    if kind == "half-width":
        return after in _LETTERS and after != kind
    if (
        kind == "latin"
        and place + 1 >= _RUN
        and all(kinds[at] == "latin" and not text[at].isascii() for at in range(place + 1 - _RUN, place))
    ):
        return True
    return before == kind and character.isupper() and text[place - 1].islower()


_LETTERS = frozenset(kind for _, kind in _BLOCKS) - {"rare", "symbol", "mark"}


@cache
def _kind(character: str) -> str:
    """Return the alphabet of a letter, or "rare", "symbol", "mark", or "" for a character between words."""
    category = unicodedata.category(character)
    if category in ("Cc", "Cn", "Co", "Cs"):
        return "" if character in "\t\n\r\f" else "rare"
    if character.isascii():
        return "latin" if character.isalpha() else ""
    kind = _BLOCKS[bisect_right(_STARTS, ord(character)) - 1][1]
    if kind == "rare":
        return "rare"
    if category[0] in "PZ" or category == "Cf":
        return ""
    if category[0] in "SN" and kind != "cjk":
        return "symbol"
    if kind == "cjk" and (category == "Lo" or category[0] == "S"):
        return kind if _is_frequent(character) else "rare"
    return "symbol" if kind == "symbol" and category[0] != "L" else "latin" if kind == "symbol" else kind


def _is_frequent(character: str) -> bool:
    """Whether an ideograph or a syllable is in the first level of a national standard, or in a row before that."""
    if character == "\N{HANGUL FILLER}":
        return False
    return any(
        len(pair := character.encode(codec, "ignore")) == 2 and b"\xa1" <= pair[:1] <= last for codec, last in _FREQUENT
    )
