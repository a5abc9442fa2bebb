"""plausibility: text that a person wrote is never implausible, text read in a wrong charset mostly is."""

import pytest
from harness.everyday_text import TEXTS

from pipehandler.parse.plausibility import oddness


@pytest.mark.parametrize("language", TEXTS)
def test_everyday_text_is_not_odd(language: str) -> None:
    """In no language is a character out of place."""
    assert oddness("\n".join(TEXTS[language])) == 0


@pytest.mark.parametrize(
    "text",
    ["", "plain", "Windows™ and Müller® ©2026", "5 € – “quoted” … ½ × ²", "Ελληνικά, English", "用QQ号", "PDF파일", "ไฟล์PDF",
     "1️⃣ ✅ 🎉👋🏽", "naïve façade", "ÆØÅ", "Ænima", "ｱﾝｹｰﾄ", "résumé créée", "Ё-моё", "№ 5", "─────", "don’t it´s", "→ →",
     "\N{REPLACEMENT CHARACTER}"],
)  # fmt: skip
def test_marks_and_mixtures_are_not_odd(text: str) -> None:
    """Symbols, emoji, loan words and product names are ordinary text."""
    assert oddness(text) == 0


@pytest.mark.parametrize(
    ("text", "written", "read"),
    [
        ("Twój kod, dzień dobry z Łodzi", "utf-8", "iso8859-2"),
        ("Ваш код подтверждения", "utf-8", "koi8-r"),
        ("Ваш код подтверждения", "utf-8", "cp1251"),
        ("Doğrulama teşekkürler", "utf-8", "iso8859-9"),
        ("schöne Grüße", "utf-8", "gb18030"),
        ("您好，您的订单已经发货", "gb2312", "cp1252"),
        ("고객님의 인증 번호", "euc-kr", "cp1252"),
        ("ありがとう", "euc-jp", "cp1252"),
        ("Ваш код подтверждения", "cp1251", "cp1252"),
    ],
)
def test_mojibake_is_odd(text: str, written: str, read: str) -> None:
    """A reading in a wrong charset is detected."""
    assert oddness(text.encode(written).decode(read, "ignore")) > 0.15
