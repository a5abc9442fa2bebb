"""charset, decoding: every label found in mail, and a guess without one."""

import time
import unicodedata
from encodings.aliases import aliases

import pytest

from pipehandler.parse.charset import Decoded, codec, storable
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
        ("CHINESEBIG5", "big5hkscs"),
        ("CN-BIG5", "big5hkscs"),
        ("x-gb18030", "gb18030"),
        ("EUC-CN", "gb18030"),
        ("KSC5601", "cp949"),
        ("iso-2022-cn", "iso2022_cn"),
        ("x-tis-620", "tis_620"),
        ("CESU-8", "utf_8"),
        ("VISCII1.1-1", "viscii"),
        ("csVISCII", "viscii"),
        ("win-1251", "cp1251"),
        ("DOS-866", "cp866"),
        ("8859_1", "latin_1"),
        ("8859_15", "iso8859_15"),
        ("x-mac-ce", "mac_latin2"),
        ("x-mac-ukrainian", "mac_cyrillic"),
        ("ISO-8859-15:1998", "iso8859_15"),
        ("ks_c_5601-1989", "cp949"),
        ("_iso-2022-jp$ESC", "iso2022_jp"),
        ("MS-CYRL", "cp1251"),
    ],
)
def test_labels(label: str, name: str) -> None:
    """A label maps to the codec that it means in mail."""
    assert codec(label) == name


def test_viscii() -> None:
    """Each octet has one character: the 134 letters of RFC 1456 beside ASCII, of which six take the place of controls."""
    text = bytes(range(256)).decode("viscii")
    assert text.encode("viscii") == bytes(range(256))
    letters = "aăâeêioôơuưy"
    accents = ("", "\u0300", "\u0301", "\u0303", "\u0309", "\u0323")
    vietnamese = {unicodedata.normalize("NFC", letter + accent) for letter in letters for accent in accents} | {"đ"}
    vietnamese |= {letter.upper() for letter in vietnamese}
    assert set(text) - set(map(chr, range(128))) == {letter for letter in vietnamese if letter > "\x7f"}
    assert [octet for octet in range(128) if text[octet] != chr(octet)] == [0x02, 0x05, 0x06, 0x14, 0x19, 0x1E]
    assert (text[0x02], text[0x1E], text[0xBD], text[0xF0]) == ("Ẳ", "Ỵ", "ơ", "đ")


def test_names_that_python_knows() -> None:
    """All of Python's names for a trusted codec map to the same one."""
    names = [alias for alias, name in aliases.items() if codec(name)]
    assert len(names) > 250
    assert [name for name in names if codec(name) is None] == []


@pytest.mark.parametrize(
    "label",
    ["punycode", "idna", "rot13", "unicode_escape", "raw_unicode_escape", "base64", "zlib", "undefined", "mbcs", "",
     None, "../../etc", "utf\0", "x" * 1000],
)  # fmt: skip
def test_labels_that_are_none(label: str | None) -> None:
    """Codecs of Python that are not charsets of mail are never used."""
    assert codec(label) in (None, "utf_8" if label == "utf\0" else None)


def test_storable() -> None:
    """NUL and lone surrogates become U+FFFD, all else is unchanged."""
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
        ("viscii", "Kính gửi quý khách, đơn hàng của quý khách đã được giao"),
        ("viscii", "MỸ"),
        ("viscii", "plain\n"),
    ],
)
def test_charsets(label: str, text: str) -> None:
    """Encoded text is decoded exactly, without a guess."""
    decoded = decode(text.encode(label), label)
    assert (decoded.text, decoded.guessed, decoded.replaced) == (text, "", 0)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Grüße aus München, schöne Tage wünschen wir Ihnen allen für das neue Jahr", "cp1252"),
        ("Здравствуйте, сообщаем вам о состоянии вашего заказа", "koi8-r"),
        ("Здравствуйте, сообщаем вам о состоянии вашего заказа", "cp1251"),
        ("いつもご利用いただきありがとうございます。", "cp932"),
        ("ご注文ありがとうございました", "euc_jp"),
        ("お知らせ", "cp932"),
        ("© 2026 ACME ® Corp", "cp1252"),
        ("§ 5 Abs. 2", "cp1252"),
        ("Sąskaita pridėta prie šio laiško, prašome apmokėti", "cp1257"),
        ("Doğrulama kodunuz hazır, teşekkür ederiz.", "iso8859-9"),
        ("Siparişiniz kargoya verildi, teşekkürler.", "cp1254"),
        ("Þetta er íslenska, góðan daginn. Takk fyrir pöntunina.", "cp1252"),
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
    """Without a usable label the charset is detected, and a defect records the guess."""
    decoded = decode(text.encode(encoding), label)
    assert decoded.text == text
    assert decoded.guessed


def test_label_that_cannot_be() -> None:
    """UTF-8 under a wrong label is UTF-8; text that is only truncated keeps its label."""
    assert decode("Grüße".encode(), "iso-8859-1").text == "Grüße"
    assert decode("这封邮件的编码其实是另一种".encode(), "gb2312").text == "这封邮件的编码其实是另一种"
    cut = decode("Привет, мир".encode()[:-1], "utf-8")
    assert (cut.text, cut.guessed, cut.replaced) == ("Привет, ми\ufffd", "", 1)


@pytest.mark.parametrize(
    ("octets", "label", "text"),
    [
        # A truncated character, or a few octets that are not UTF-8
        ("Grüße aus Kö".encode()[:-1], "utf-8", "Grüße aus K\ufffd"),
        ("김영수".encode()[:-1], "utf-8", "김영\ufffd"),
        ("ok 🎉".encode()[:-1], "utf-8", "ok \ufffd"),
        ("ok 🎉".encode()[:-1] + b"\n", "utf-8", "ok \ufffd\n"),
        (b"\xc2\xa1Vale! \xa1no!", "utf-8", "¡Vale! \ufffdno!"),
        (b"caf\xe9", "utf-8", "café"),
        ("Grüße aus Köln".encode("latin-1"), "utf-8", "Grüße aus Köln"),
        ("Grüße aus Köln und Würzburg".encode() + b", Universit\xe4t", "latin-1", "Grüße aus Köln und Würzburg, Universit\ufffdt"),
        # Surrogates encoded one by one
        (b"\xed\xa0\xbd\xed\xb8\x80", "utf-8", "😀"),
        (b"\xc3\xa4 \xed\xa0\xbd", "utf-8", "ä \ufffd"),
        # UTF-8 under another label, and text that is valid UTF-8 by accident
        ("Łódź".encode(), "windows-1250", "Łódź"),
        ("Москва".encode(), "gb2312", "Москва"),
        ("Köln".encode(), "gb2312", "Köln"),
        ("Café".encode(), "big5", "Café"),
        ("谢谢".encode("gb2312"), "gb2312", "谢谢"),
        ("学习".encode("gb2312"), "gb2312", "学习"),
        ("창".encode("euc-kr"), "euc-kr", "창"),
        ("รถ".encode("tis-620"), "tis-620", "รถ"),
        (b"Ihr Code.", "utf-16", "Ihr Code."),
        ("Ваш код".encode(), "utf-16", "Ваш код"),
        (b"Your code", "cp500", "Your code"),
        # A label that is impossible, and one that only looks so
        ("您好，您的订单已经发货".encode("gb2312"), "iso-8859-1", "您好，您的订单已经发货"),
        ("Здравствуйте, ваш заказ".encode("cp1251"), "windows-1252", "Здравствуйте, ваш заказ"),
        ("Zażółć gęślą jaźń".encode("iso8859-2"), "iso-8859-2", "Zażółć gęślą jaźń"),
        ("─┼─┼─ 5 │".encode("koi8-r"), "koi8-r", "─┼─┼─ 5 │"),
        # UTF-16 without a label or mark
        ("Ваш код: 4821\n".encode("utf-16-be"), None, "Ваш код: 4821\n"),
        ("Ваш код: 4821\n".encode("utf-16-le"), "utf-16", "Ваш код: 4821\n"),
        ("Zażółć".encode("utf-16"), "iso-8859-2", "Zażółć"),
        (b"one\0two", None, "one\0two"),
    ],
)  # fmt: skip
def test_the_label_is_weighed(octets: bytes, label: str | None, text: str) -> None:
    """Which reading is the text, by the rule at the head of decoding.py."""
    assert decode(octets, label).text == text


@pytest.mark.parametrize(
    ("names", "charset", "label"),
    [
        ("刘淼 徐璐 王喆 陈堃 朱镕基 孙晟 卫翀 沈翊 韩烨 何晗 苏轼 范玮琪 和珅", "gb18030", "gb2312"),
        ("陳堃 黃淯 蔡旻 游錫堃 鄭旻 廖婕 張瑀 李珺", "big5hkscs", "big5"),
        ("髙橋 渡邉 濵田 櫻井 薔薇", "cp932", "shift_jis"),
        ("똠 뷁 믜 쌰 펲시", "cp949", "euc-kr"),
        ("😀龥", "gb18030", "gb18030"),
    ],
)
def test_a_name_with_a_rare_character_keeps_its_label(names: str, charset: str, label: str) -> None:
    """Names contain ideographs that everyday text does not: a few of them are not a reason to doubt the label."""
    for name in names.split():
        for text in (name, f"{name} Ltd", f"[{name}]"):
            assert decode(text.encode(charset), label).text == text


def test_few_octets_beside_letters_may_contradict_an_east_asian_label() -> None:
    """Characters inside lower-case words are accented letters, whatever the label."""
    for word in ("Grüße", "Müller", "François"):
        assert decode(word.encode("cp1252"), "gb2312").text == word


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (b"\xad\xa1 \xad\xea\xa5\xc6\xa5\xb9\xa5\xc8", "① ㈱テスト"),
        (b"\xfc\xe2\xb6\xb6\xc0\xe8\xc0\xb8 \x8e\xb1\x8e\xb2 (ok)", "髙橋先生 ｱｲ (ok)"),
    ],
)
def test_euc_jp_of_microsoft(octets: bytes, text: str) -> None:
    """EUC-JP with the characters of NEC and IBM, which Python's codec lacks."""
    assert decode(octets, "euc-jp") == Decoded(text, "euc_jp")


def test_an_accident_needs_a_reason() -> None:
    """Octets that are valid UTF-8 and GB 2312 are UTF-8 unless the label or the rest of the message indicates
    otherwise."""
    octets = "谢谢".encode("gb2312")
    assert decode(octets).text == octets.decode()
    assert decode(octets, None, ("gb2312",)).text == "谢谢"
    assert decode(octets, "utf-8", ("gb2312",)).text == octets.decode()


@pytest.mark.parametrize(
    ("above", "stateful", "below", "charset"),
    [
        ("ご案内です。\n次の行\n", "iso2022_jp", "配信停止はこちら\n", "cp932"),
        ("ご案内です。\n次の行\n", "iso2022_jp", "配信停止はこちらをクリックしてください", "euc_jp"),
        ("ご案内です。\n", "iso2022_jp", "-- \nUniversität Köln, für Sie\n", "cp1252"),
        ("고객님의 인증 번호는 4821 입니다.\n둘째 줄입니다.\n", "iso2022_kr", "목록에서 탈퇴하려면\n", "cp949"),
        ("您好，感谢您的订阅。\n", "hz", "退订请点击这里\n", "gb18030"),
    ],
)
@pytest.mark.parametrize("labelled", [True, False])
def test_lines_in_another_charset_below_a_stateful_one(
    above: str, stateful: str, below: str, charset: str, labelled: bool
) -> None:
    """A footer in whatever charset costs the text above it nothing, nor is it lost."""
    octets = above.encode(stateful) + below.encode(charset)
    decoded = decode(octets, stateful if labelled else None)
    assert (decoded.text, decoded.codec, decoded.replaced) == (above + below, stateful, 0)
    assert decoded.guessed
    again = octets.rstrip(b"\n") + b"\n" + octets  # the text goes on below the footer
    assert decode(again, stateful).text == above + below.rstrip("\n") + "\n" + above + below


@pytest.mark.parametrize(
    ("text", "charset", "label"),
    [
        ("Twój kod: świeżo, źle, Śląsk, ąę", "cp1250", "iso-8859-2"),
        ("Twój kod: świeżo, źle, Śląsk, ąę", "iso-8859-2", "windows-1250"),
        ("Děkujeme, těšíme se, žluťoučký", "cp1250", "iso-8859-2"),
        ("Dziękujemy „teraz” – zł", "cp1250", "iso-8859-2"),
        ("Άννα, ο κωδικός “σας” – €", "cp1253", "iso-8859-7"),
        ("שלום “לך” – ₪", "cp1255", "iso-8859-8"),
        ("رمز التحقق الخاص بك", "cp1256", "iso-8859-6"),
        ("Jūsų „kodas“ – ačiū", "cp1257", "iso-8859-13"),
        ("It’s “now” – ok", "cp1252", "iso-8859-15"),
        ("Türkçe “ğış” – €", "cp1254", "iso-8859-9"),
        ("“สวัสดี”", "cp874", "tis-620"),
        ("Ваш код подтверждения: 4821", "cp1251", "koi8-r"),
        ("Ваш код подтверждения: 4821", "koi8-r", "windows-1251"),
        ("Ваш код подтверждения: 4821", "cp1251", "iso-8859-5"),
        ("Ваш код підтвердження: їжак", "koi8-u", "koi8-r"),
        ("確認コードは4821です。", "euc-jp", "shift_jis"),
        ("ご注文ありがとうございます。", "euc-jp", "shift_jis"),
        ("確認コードは4821です。", "cp932", "euc-jp"),
    ],
)
def test_labels_of_a_neighbour(text: str, charset: str, label: str) -> None:
    """The charsets of one script are taken for one another: the odd reading is not the right one."""
    assert decode(text.encode(charset), label).text == text
    for right in (label, charset):
        plain = text.encode(right, "ignore")
        assert decode(plain, right).text == plain.decode(right)


@pytest.mark.parametrize(
    ("octets", "label", "text"),
    [
        (b"Gr\xfc\xdfe \x81", "windows-1252", "Grüße \ufffd"),
        ("κωδικός ".encode("cp1253") + b"\x81", "windows-1253", "κωδικός \ufffd"),
        ("ﾌﾘｺﾐ ｶｸﾆﾝ".encode("cp932"), "shift_jis", "ﾌﾘｺﾐ ｶｸﾆﾝ"),
    ],
)
def test_labels_that_hold(octets: bytes, label: str, text: str) -> None:
    """One octet that means nothing, or half-width katakana, do not discredit the label."""
    assert decode(octets, label).text == text


def test_hints() -> None:
    """A charset that the message names elsewhere takes precedence over a detector's guess."""
    assert decode("é".encode("cp1252"), None, ("iso-8859-1",)).text == "é"
    assert decode("é".encode("cp850"), None, ("cp850",)).text == "é"


def test_byte_order_mark() -> None:
    """A byte order mark is not text, and is better evidence than no label."""
    assert decode(b"\xef\xbb\xbfabc", "utf-8").text == "abc"
    assert decode("añ".encode("utf-16")).text == "añ"


def test_meta() -> None:
    """HTML may declare its charset if the part does not."""
    html = '<meta charset="windows-1250"><p>Łódź</p>'
    assert decode(html.encode("cp1250"), None, (), html=True).text == html


RUBBISH = {
    "high": b"\xe4", "meta": b"<meta \xff", "escape": b"\x1b$B\xff", "utf-7": b"+AAAA-", "hz": b"~{\xff", "hz open": b"~{ab",
    "all": bytes(range(128, 256)), "surrogates": b"\xed\xa0\x80", "cut": b"\xf0\x9f", "lines": b"\x1b$)C\x0e\n\xc3\xa4\n",
    "zeros": b"a\0", "half": "ｱa".encode("cp932"), "words": "Grüße ".encode(), "latin": "Grüße ".encode("cp1252"),
    "han": "您好".encode("gb2312"), "blank": b" \xe4 ",
}  # fmt: skip


@pytest.mark.parametrize("kind", RUBBISH)
@pytest.mark.parametrize(
    "label", [None, "utf-8", "iso-2022-jp", "iso-2022-kr", "utf-7", "hz", "utf-16", "gb2312", "koi8-r", "punycode"]
)
def test_decoding_is_linear(kind: str, label: str | None) -> None:
    """Eight times as many octets of anything, in any charset, take no more than some eight times as long."""
    small = RUBBISH[kind] * (40_000 // len(RUBBISH[kind]))
    decode(small, label, ("utf-8",), html=True)  # chardet is loaded, its models as well
    seconds = []
    for octets in (small, small * 8):
        begin = time.process_time()
        decode(octets, label, ("utf-8",), html=True)
        seconds.append(time.process_time() - begin)
    assert seconds[1] < 24 * max(seconds[0], 0.005)
