"""Text is decoded exactly, whatever charset and transfer encoding it was written in, and wherever it occurs."""

import base64
import quopri
import string

from harness.everyday_text import TEXTS, USUAL
from hypothesis import given, settings
from hypothesis import strategies as st

from pipehandler.parse.charset import codec
from pipehandler.parse.decoding import decode
from pipehandler.parse.encoded_word import decode_words
from pipehandler.parse.message import parse

ALL_BITS_USED = string.ascii_uppercase[::4] + string.ascii_lowercase[2::4] + "048"
UTF = ("utf-8", "utf-16", "utf-16be", "utf-16le", "utf-7", "utf-32")


@st.composite
def written(draw: st.DrawFn) -> tuple[str, bytes, str]:
    """Some words of a language in one of its charsets, as octets: (text, octets, label)."""
    language = draw(st.sampled_from(sorted(TEXTS)))
    label = draw(st.sampled_from((*USUAL[language], *UTF)))
    words = sorted({word for sentence in TEXTS[language] for word in sentence.split()})
    text = " ".join(draw(st.lists(st.sampled_from(words), min_size=1, max_size=12)))
    name = {"big5": "big5", "gb2312": "gb2312", "utf-16": "utf-16"}.get(label, codec(label) or "")
    octets = text.encode("cp1252" if name == "latin_1" else name, "ignore")
    return octets.decode("cp1252" if name == "latin_1" else name), octets, label


def transferred(octets: bytes, encoding: str) -> bytes:
    """The octets in a transfer encoding, each line in CRLF-free form."""
    if encoding == "base64":
        return base64.encodebytes(octets)
    return quopri.encodestring(octets) if encoding == "quoted-printable" else octets


@given(written(), st.sampled_from(["base64", "quoted-printable", "8bit"]), st.sampled_from(["plain", "html"]))
@settings(max_examples=400)
def test_bodies_come_back(example: tuple[str, bytes, str], encoding: str, kind: str) -> None:
    """A body under the right label, without a defect."""
    text, octets, label = example
    raw = f"Content-Type: text/{kind}; charset={label}\nContent-Transfer-Encoding: {encoding}\n\n".encode()
    parsed = parse(raw + transferred(octets, encoding))
    assert ((parsed.html if kind == "html" else parsed.text) or "").rstrip("\n") == text
    assert [defect.code for defect in parsed.defects if defect.code.startswith("charset")] == []


@given(written(), st.sampled_from("bBqQ"), st.data())
@settings(max_examples=400)
def test_encoded_words_come_back(example: tuple[str, bytes, str], encoding: str, data: st.DataObject) -> None:
    """A subject in encoded-words that were split anywhere, even inside a character or a group of base64."""
    text, octets, label = example
    encoded = base64.b64encode(octets).decode() if encoding in "bB" else "".join(f"={octet:02X}" for octet in octets)
    places = sorted(data.draw(st.sets(st.integers(1, max(1, len(encoded) - 1)), max_size=4)))
    if encoding in "bB" and not encoded.endswith("="):
        # A word without padding that ends with one of these may as well be a whole one.
        places = [place for place in places if place % 4 == 0 or encoded[place - 1] not in ALL_BITS_USED]
    pieces = [encoded[start:end] for start, end in zip([0, *places], [*places, len(encoded)], strict=True)]
    body = "\r\n ".join(f"=?{label}?{encoding}?{piece}?=" for piece in pieces if piece)
    decoded, wrong = decode_words(body)
    assert (decoded, wrong) == (" ".join(text.split()), [])


@given(written(), st.sampled_from([None, "us-ascii", "utf-8", "iso-8859-2", "koi8-r", "gb2312", "shift_jis", "x-none"]))
@settings(max_examples=400)
def test_utf_8_beats_every_label(example: tuple[str, bytes, str], label: str | None) -> None:
    """Text in UTF-8 is decoded under any label, if it is longer than a word."""
    text, _, _ = example
    text += " – Straße, дом, 電子報, 안녕하세요"
    assert decode(text.encode(), label).text == text


@given(st.binary(max_size=400), st.sampled_from([None, *UTF, "gb2312", "iso-2022-kr", "hz", "koi8-r", "iso-2022-cn", "cp500"]),
       st.lists(st.sampled_from(["big5", "utf-8", "koi8-r", "none", "iso-2022-jp"]), max_size=2), st.booleans())  # fmt: skip
@settings(max_examples=600)
def test_any_octets_become_text(octets: bytes, label: str | None, hints: list[str], html: bool) -> None:
    """Decoding is total and deterministic."""
    assert decode(octets, label, hints, html) == decode(octets, label, hints, html)
