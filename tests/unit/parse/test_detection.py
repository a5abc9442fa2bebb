"""detection: the most likely charset of octets without a label."""

import pytest
from harness.everyday_text import TEXTS, USUAL

from pipehandler.parse.charset import EBCDIC, Hints, codec
from pipehandler.parse.decoding import decode
from pipehandler.parse.detection import ranked, sample

PAIRS = [
    (language, label)
    for language, labels in USUAL.items()
    for label in labels
    if not label.startswith(("iso-2022", "hz")) and label != "windows-1258"
]


@pytest.mark.parametrize(("language", "label"), PAIRS)
def test_a_text_is_found(language: str, label: str) -> None:
    """All sentences of a language in a charset that it is written in."""
    name = codec(label)
    assert name is not None
    text = "\n".join(TEXTS[language]).translate(str.maketrans("șțȘȚ", "şţŞŢ"))  # the comma below is newer than these
    octets = text.encode("cp1252" if name == "latin_1" else name)
    assert next(ranked(octets))[1] == text


def test_no_guess_is_ebcdic() -> None:
    """Mail is a superset of ASCII (RFC 5322 2.3)."""
    for octets in ("© one ® two <a@b.example>".encode("cp1252"), "Grüße".encode("cp500"), bytes(range(128, 256))):
        assert not EBCDIC & {name for name, _ in ranked(octets)}


def test_hints_count_most_where_little_is_known() -> None:
    """Three characters are too few for detection; for a long text a hint does not change the result."""
    assert next(ranked("電子報".encode("big5"), ["big5hkscs"]))[1] == "電子報"
    text = "\n".join(TEXTS["Russian"])
    assert next(ranked(text.encode("koi8-r"), ["cp1252"]))[1] == text


@pytest.mark.parametrize("codec_name", ["big5", "gb18030", "cp932", "cp949"])
def test_no_character_is_cut(codec_name: str) -> None:
    """The detector gets whole lines, and the beginning of an endless one: no character is split."""
    character = {"big5": "您", "gb18030": "您", "cp932": "商", "cp949": "감"}[codec_name]
    text = "plain\n" * 3_000 + (character * 41 + "\n") * 400
    assert set(sample(text.encode(codec_name)).decode(codec_name)) == {character, "\n"}
    assert sample((character * 9_000).encode(codec_name)).decode(codec_name) == character * 4_096


def test_guesses_are_bounded() -> None:
    """One message cannot make the detector run for thousands of words; the rest is taken as windows-1252."""
    hints = Hints()
    octets = "Здравствуйте".encode("cp1251")
    texts = [decode(octets, None, hints).text for _ in range(Hints.detections + 1)]
    assert texts == ["Здравствуйте"] * Hints.detections + [octets.decode("cp1252")]
