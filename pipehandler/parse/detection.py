"""Detect the charset of octets whose label is missing or wrong.

chardet compares the octets with language models. Its result is weighted: on a few words a rare charset scores as well
as a common one, and a charset that the same message uses elsewhere is likelier than another.
"""

import re
from collections.abc import Iterator, Sequence

from .charset import codec, strictly
from .plausibility import oddness

# Supersets of ASCII that occur in mail. With more candidates chardet is slower and no better.
_CANDIDATES = (
    "big5hkscs", "cp932", "cp949", "gb18030", "euc_jis_2004", "cp874", "cp1250", "cp1251", "cp1252", "cp1253", "cp1254",
    "cp1255", "cp1256", "cp1257", "cp1258", "koi8-r", "koi8-u", "iso8859-1", "iso8859-2", "iso8859-5", "iso8859-6",
    "iso8859-7", "iso8859-8", "iso8859-9", "iso8859-13", "iso8859-15", "mac-cyrillic", "mac-roman", "cp850", "cp852",
    "cp866",
)  # fmt: skip
# Prior weights of charsets. The more octets there are, the less they count.
_PRIORS = {
    "cp1252": 1.5, "iso8859_15": 0.5, "mac_roman": 0.4, "mac_cyrillic": 0.4, "cp850": 0.4, "cp852": 0.4,
    "cp866": 0.6, "cp1258": 0.5, "iso8859_9": 0.8, "iso8859_13": 0.9,
}  # fmt: skip
_HINT = 12.0  # the prior weight of a charset that the message uses elsewhere
_FEW = 16  # octets above 0x7F; with fewer the detector is unreliable
_LETTERS = 1.5  # octets above 0x7F with which a prior counts in full; with more, the detector knows better
_LEAST = 0.02  # the confidence assumed for a charset that chardet does not report
_SAMPLE = 8_192  # octets given to the detector: more take longer and add little certainty
_JAPANESE = ("cp932", "euc_jis_2004")
# Full-width: half-width katakana are one octet, as letters elsewhere.
_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fc]")
_SURE = 0.5  # the confidence in kana
_LOW = bytes(range(128))
_IN_WORD = re.compile(rb"[\x80-\xff][A-Za-z\x80-\xff]|[A-Za-z][\x80-\xff]")
_HIGH = re.compile(rb"[\x80-\xff]")


def ranked(octets: bytes, hints: Sequence[str] = (), detect: bool = True) -> Iterator[tuple[str, str]]:
    """Yield readings of `octets`, which are not valid UTF-8, as (codec, text), likeliest first.

    `hints` are codecs that are likely for other reasons; without `detect` only they and windows-1252 are tried. A codec
    in which the octets are not valid is left out; an odd reading ranks lower.
    """
    shown = sample(octets)
    scores = dict.fromkeys(("cp1252", *hints), _LEAST)
    for name, confidence in _confidences(shown) if detect else ():
        scores[name] = max(confidence, scores.get(name, 0.0))
    for name in _JAPANESE:
        if (kana := _kana(shown, name)) > scores.get(name, 0.0):
            scores[name] = kana
    high = max(1, len(shown.translate(None, _LOW)))
    hinted = _HINT ** min(2.0, _FEW / high)
    weighed = {
        name: score * (hinted if name in hints else _PRIORS.get(name, 1.0) ** min(1.0, _LETTERS / high))
        for name, score in scores.items()
    }
    if _has_symbols_alone(shown):
        weighed["cp1252"] *= _HINT
    readings = []
    for name in sorted(weighed, key=lambda name: -weighed[name])[:8]:
        text = strictly(octets, name)
        if text is not None:
            readings.append((weighed[name] * (1 - oddness(text)) ** 2, name, text))
    for _, name, text in sorted(readings, key=lambda reading: -reading[0]):
        yield name, text


def _has_symbols_alone(octets: bytes) -> bool:
    """Whether all octets above 0x7F stand alone, as in "© 2026", and windows-1252 reads no letter in them.

    In another charset each would be a word of one letter among words in ASCII.
    """
    if _IN_WORD.search(octets):
        return False
    text = strictly(octets, "cp1252")
    return text is not None and not any(each.isalpha() for each in text if each > "\x7f")


def _kana(octets: bytes, name: str) -> float:
    """Return how sure it is that `octets` are Japanese in the charset `name`, because most characters are kana.

    In other charsets the octets of kana are not words, and chardet finds nothing in short text that has few kanji.
    """
    text = strictly(octets, name) or ""
    return min(_SURE, len(_KANA.findall(text)) * 0.1) if is_kana(text) else 0.0


def is_kana(text: str) -> bool:
    """Whether at least half of the characters beyond ASCII are full-width kana."""
    return len(_KANA.findall(text)) * 2 >= len(text) - len(text.encode("ascii", "ignore"))


def sample(octets: bytes) -> bytes:
    """Return the first lines that have 8-bit octets, whole: a cut inside a character would shift the rest."""
    if len(octets) <= _SAMPLE:
        return octets
    lines, size, position = [], 0, 0
    while size < _SAMPLE and (high := _HIGH.search(octets, position)) is not None:
        start = octets.rfind(b"\n", position, high.start()) + 1 or position
        end = octets.find(b"\n", high.end())
        position = len(octets) if end < 0 else end + 1
        lines.append(octets[start : min(position, start + _SAMPLE)])
        size += len(lines[-1])
    return b"".join(lines)


def _confidences(octets: bytes) -> list[tuple[str, float]]:
    import chardet  # takes 40 ms, and few messages need it

    try:
        found = chardet.detect_all(octets, ignore_threshold=True, include_encodings=_CANDIDATES)
    except MemoryError:
        raise  # the caller's limit
    except Exception:  # noqa: BLE001 # a guess may fail, in whatever way chardet does
        return []
    names = ((codec(entry["encoding"]), entry["confidence"]) for entry in found)
    return [("cp1252" if name == "latin_1" else name, confidence) for name, confidence in names if name]
