"""One-time codes and confirmation links: 200 constructed mails in ten languages, and what must not be found."""

import time

import pytest
from harness.confirmation_mails import LANGUAGES, mails, mails_without

from pipehandler.parse.html_text import to_text
from pipehandler.web.codes import ConfirmationLink, OneTimeCode, find
from pipehandler.web.links import link, links_of_html, links_of_text
from pipehandler.web.sanitise import sanitise


def found_in_html(subject: str, html: str) -> str | None:
    """What the page offers for a mail: the code, or the URL of the link."""
    found = find(subject, to_text(html, links=False), links_of_html(sanitise(html, {}).blocked))
    if isinstance(found, ConfirmationLink):
        return found.link.url
    return found.code if found else None


def test_constructed_mails() -> None:
    """At least 95 % are found, and in at most 1 % of all something wrong is offered."""
    sent = [*mails(), *mails_without()]
    assert (len(list(mails())), len(LANGUAGES), len(sent)) == (200, 10, 250)
    results = [(mail, found_in_html(mail.subject, mail.html)) for mail in sent]
    missed = [mail.name for mail, found in results if mail.wanted and found != mail.wanted]
    wrong = [(mail.name, found) for mail, found in results if found and found != mail.wanted]
    assert len(missed) <= 0.05 * 200, missed
    assert len(wrong) <= 0.01 * len(sent), wrong


OTHER_LANGUAGES = {
    "hi": "आपका सत्यापन कोड 482913 है। यह 10 मिनट में समाप्त हो जाएगा।",
    "id": "Kode verifikasi Anda adalah 482913. Jangan berikan kode ini kepada siapa pun.",
    "it": "Il tuo codice di verifica è 482913. Scade tra 10 minuti.",
    "nl": "Je verificatiecode is 482913. Deel deze code met niemand.",
    "pl": "Twój kod weryfikacyjny to 482913. Kod jest ważny 10 minut.",
    "th": "รหัสยืนยันของคุณคือ 482913 รหัสจะหมดอายุใน 10 นาที",
    "tr": "Doğrulama kodunuz: 482913. Kodu kimseyle paylaşmayın.",
    "uk": "Ваш код підтвердження: 482913. Нікому його не повідомляйте.",
    "vi": "Mã xác minh của bạn là 482913. Mã có hiệu lực trong 10 phút.",
    "zh-Hant": "您的驗證碼是482913，請勿將驗證碼告訴他人。",
}


@pytest.mark.parametrize("text", OTHER_LANGUAGES.values(), ids=OTHER_LANGUAGES)
def test_the_other_languages(text: str) -> None:
    """Together with the constructed mails, all languages of the page."""
    assert find("Example", text, ()) == OneTimeCode("482913")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Verification code\n\n4 8 2 9 1 3\n", "482913"),
        ("Your code:\n٤٨٢٩١٣", "482913"),  # Arabic-Indic digits
        ("Your code: ４８２９１３", "482913"),
        ("Your code is 482\u00a0913", "482913"),
        ("Your code is 482\u2011913.", "482913"),
        ("Your verification code: AB-48291", "AB-48291"),
        ("Your PIN: 2026", "2026"),
        ("Code: 4829\nCode: 4829", "4829"),
        ("İstanbul: doğrulama kodunuz 482913", "482913"),  # a letter that case folding makes longer
    ],
)
def test_writings_of_a_code(text: str, code: str) -> None:
    """Grouping is removed, and digits of other scripts are read."""
    assert find("", text, ()) == OneTimeCode(code)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "482913",
        "Order number 482913. Enter the gate at 10:30.",
        "Your zip code: 94114",
        "Use promo code 482913 for your next ride.",
        "Error code: 404123",
        "The source code of 2024 is on https://example.org/code/482913",
        "Code of conduct, version 2026",
        "Your code is 482913. Your other code is 713355.",  # which one?
        "The code will be sent. Write to code-482913@example.org",
        "Code\n\n€ 1499",
        "code " * 5000,
        "Your code was used on 2026-11-27 at 10:30 from 192.0.2.17.",
    ],
)
def test_nothing_is_offered(text: str) -> None:
    """A number that is not clearly a code is not offered."""
    assert find("", text, ()) is None


@pytest.mark.parametrize(
    "candidate",
    [
        link("https://example.com/confirm", "https://evil.example/confirm?token=0123456789abcdef"),
        link("Confirm", "https://www.\u0430pple.com/confirm?token=0123456789abcdef"),
        link("Confirm", "mailto:confirm-0123456789abcdef0@example.com"),
        link("Unsubscribe", "https://example.com/confirm?token=0123456789abcdef"),
        link("Log in", "https://example.com/"),
    ],
    ids=lambda candidate: candidate.text,
)
def test_links_that_are_not_offered(candidate: object) -> None:
    """A link that deceives, or does something else, is not the confirmation link."""
    assert find("Please confirm your address", "Please confirm", [candidate]) is None  # type: ignore[list-item]


def test_a_plain_text() -> None:
    """Without HTML, the sentence before the URL says what it does."""
    text = "Hello,\n\nplease confirm your address:\n\nhttps://example.com/a/0123456789abcdef01\n\nBye"
    found = find("Welcome", text, links_of_text(text))
    assert isinstance(found, ConfirmationLink)
    assert found.link.url == "https://example.com/a/0123456789abcdef01"


def test_costly_text() -> None:
    """It runs in the process of the page, so the processor time of a hostile text is bounded."""
    texts = [
        "code 1234 " * 2000,
        "1234 " * 4000,
        "code" * 5000,
        "1" * 20000,
        "1 " * 10000,
        "A1-" * 7000,
        "code\n1234\n" * 2000,
    ]
    links = [link("confirm " * 60, f"https://example.com/confirm/{number:020}") for number in range(1000)]
    for text in texts:
        began = time.process_time()
        find("code " * 200, text, links)
        assert time.process_time() - began < 1, text[:20]
