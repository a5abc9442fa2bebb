"""charset, decoding: every label that mail carries, and a guess where there is none."""

import time

import pytest

from pipehandler.parse.charset import codec, storable
from pipehandler.parse.decoding import decode


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("UTF-8", "utf_8"),
        ("utf8mb4", "utf_8"),
        ("unicode-1-1-utf-7", "utf_7"),
        ("ks_c_5601-1987", "cp949"),
        ("euc-kr", "cp949"),
        ("gb2312", "gb18030"),
        ("GBK", "gb18030"),
        ("hz-gb-2312", "hz"),
        ("x-sjis", "cp932"),
        ("Shift_JIS", "cp932"),
        ("windows-31j", "cp932"),
        ("ISO-2022-JP-MS", "iso2022_jp"),
        ("iso-2022-jp-2004", "iso2022_jp_2004"),
        ("big5", "big5hkscs"),
        ("iso-8859-8-i", "iso8859_8"),
        ("cp-850", "cp850"),
        ("x-windows-1251", "cp1251"),
        ("csKOI8R", "koi8_r"),
        ("macintosh", "mac_roman"),
        ("  'windows-1252' ", "cp1252"),
        ("charset=utf-8", "utf_8"),
        ("ANSI_X3.4-1968", "ascii"),
    ],
)
def test_labels(label: str, name: str) -> None:
    """A label leads to the codec that mail means by it."""
    assert codec(label) == name


@pytest.mark.parametrize(
    "label",
    ["punycode", "idna", "rot13", "unicode_escape", "raw_unicode_escape", "base64", "zlib", "undefined", "mbcs", "",
     None, "../../etc", "utf\0", "x" * 1000],
)  # fmt: skip
def test_labels_that_are_none(label: str | None) -> None:
    """What Python knows and mail does not mean is never used."""
    assert codec(label) in (None, "utf_8" if label == "utf\0" else None)


def test_storable() -> None:
    """NUL and lone surrogates become U+FFFD, all else stays."""
    assert storable("a\0b\ud800c\N{GRINNING FACE}") == "a\ufffdb\ufffdc\N{GRINNING FACE}"
    assert storable("plain") == "plain"


@pytest.mark.parametrize(
    ("label", "text"),
    [
        ("iso-2022-jp", "日本語のテスト"),
        ("iso-2022-kr", "한국어"),
        ("utf-7", "Grüße, 日本"),
        ("hz", "你好"),
        ("utf-16", "Zażółć"),
        ("utf-16-be", "Zażółć"),
        ("utf-32", "Zażółć"),
        ("koi8-u", "Привіт"),
        ("tis-620", "สวัสดี"),
        ("cp500", "EBCDIC"),
    ],
)
def test_charsets(label: str, text: str) -> None:
    """What was encoded comes back, and nothing is guessed."""
    decoded = decode(text.encode(label), label)
    assert (decoded.text, decoded.guessed, decoded.replaced) == (text, "", 0)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Grüße aus München, schöne Tage wünschen wir Ihnen allen für das neue Jahr", "cp1252"),
        ("Здравствуйте, сообщаем вам о состоянии вашего заказа", "koi8-r"),
        ("Здравствуйте, сообщаем вам о состоянии вашего заказа", "cp1251"),
        ("안녕하세요. 주문하신 상품이 발송되었습니다. 감사합니다.", "cp949"),
        ("お問い合わせいただきありがとうございます。", "cp932"),
        ("お問い合わせいただきありがとうございます。", "euc-jp"),
        ("您好，感谢您的来信，我们会尽快回复您。", "gb18030"),
        ("您好，感謝您的來信，我們會盡快回覆您。", "big5"),
        ("Naïve café — 日本語", "utf-8"),
        ("文字コードの指定がない", "iso-2022-jp"),
    ],
)
@pytest.mark.parametrize("label", [None, "us-ascii", "x-unknown"])
def test_guesses(text: str, encoding: str, label: str | None) -> None:
    """Without a label of use the charset is found, and the guess is told."""
    decoded = decode(text.encode(encoding), label)
    assert decoded.text == text
    assert decoded.guessed


def test_label_that_cannot_be() -> None:
    """UTF-8 under a careless label is UTF-8; what is only cut keeps its label."""
    assert decode("Grüße".encode(), "iso-8859-1").text == "Grüße"
    assert decode("这封邮件的编码其实是另一种".encode(), "gb2312").text == "这封邮件的编码其实是另一种"
    cut = decode("Привет, мир".encode()[:-1], "utf-8")
    assert (cut.text, cut.guessed, cut.replaced) == ("Привет, ми\ufffd", "", 1)


def test_hints() -> None:
    """A charset that the message names elsewhere is taken before a detector's guess."""
    assert decode("é".encode("cp1252"), None, ("iso-8859-1",)).text == "é"
    assert decode("é".encode("cp850"), None, ("cp850",)).text == "é"


def test_byte_order_mark() -> None:
    """A byte order mark is no text, and says more than no label."""
    assert decode(b"\xef\xbb\xbfabc", "utf-8").text == "abc"
    assert decode("añ".encode("utf-16")).text == "añ"


def test_meta() -> None:
    """HTML may say its own charset where the part does not."""
    html = '<meta charset="windows-1250"><p>Łódź</p>'
    assert decode(html.encode("cp1250"), None, (), html=True).text == html


@pytest.mark.parametrize(
    "octets",
    [b"\xe4" * 500_000, b"<meta " * 200_000 + b"\xff", b"\x1b$B\xff" * 200_000, b"+AAAA-" * 200_000, b"~{\xff" * 300_000,
     bytes(range(128, 256)) * 8_000],
)  # fmt: skip
@pytest.mark.parametrize("label", [None, "iso-2022-jp", "utf-7", "hz", "utf-16", "gb2312", "punycode"])
def test_decoding_is_linear(octets: bytes, label: str | None) -> None:
    """A megabyte of anything in any charset is decoded in less than a second."""
    begin = time.process_time()
    decode(octets, label, ("utf-8",), html=True)
    assert time.process_time() - begin < 1
