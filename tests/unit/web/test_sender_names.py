"""What senders chose, as a page shows it in one line."""

import pytest
from harness.page import templates

from pipehandler.web.names import (
    author,
    cut_within,
    imitates,
    initial,
    names_another,
    other_domain,
    shortened,
    straight,
    visible,
)

TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
MARKS = "\u061c\u200e\u200f"


def test_directions() -> None:
    """Nothing turns what follows; marks, which names of two scripts need, stay; a source shows what turns."""
    for each in TURNING:
        assert straight(f"a{each}b") == "ab"
        assert visible(f"a{each}b") == f"a\\u{ord(each):04x}b"
    for each in MARKS:
        assert straight(f"a{each}b") == visible(f"a{each}b") == f"a{each}b"
    assert straight(None) == visible(None) == ""


@pytest.mark.parametrize(
    ("address", "other", "imitating"),
    [
        ("ann@example.org", "", False),
        ("ann@xn--80ak6aa92e.com", "\u0430\u0440\u0440\u04cf\u0435.com", True),
        ("ann@XN--KSE-QLA.example.", "käse.example", False),
        ("ann@EXAMPLE.org", "", False),
        ("ann@\u0430\u0440\u0440\u04cf\u0435.com", "xn--80ak6aa92e.com", True),
        ("ann@b\u0430nk.example", "xn--bnk-6cd.example", True),
        ("ann@b\u202e\u0430nk.example", "xn--bnk-6cd.example", True),
        ("ann@käse.example", "xn--kse-qla.example", False),
        ("ann@почта.рф", "xn--80a1acny.xn--p1ai", False),
        ("no address", "", False),
        ("", "", False),
        (None, "", False),
    ],
)
def test_domains(address: str | None, other: str, imitating: bool) -> None:
    """The domain of a sender in both forms, and whether it imitates another."""
    assert (other_domain(address), imitates(address)) == (other, imitating)


def test_templates() -> None:
    """They have all of it."""
    environment = templates().environment
    text = "{{ 'a\u202eb' | straight }} {{ 'a\u202eb' | visible }} {{ 'a@é.fr' | other_domain }}"
    assert environment.from_string(text).render() == "ab a\\u202eb xn--9ca.fr"
    assert environment.from_string("{{ 'a@b\u0430.com' is imitation }}").render() == "True"
    mailbox = {"name": "bank.com", "address": "a@evil.example"}
    assert environment.from_string("{{ mailbox is naming_another }}").render(mailbox=mailbox) == "True"


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("paypal.com", "x@evil.example"),
        ("service@paypal.com", "x@evil.example"),
        ("PayPal.Com Service", "x@evil.example"),
        ("https://paypal.com/", "x@paypal.com.evil.example"),
        ("service@p\u200baypal.com", "x@evil.example"),
        ("service＠paypal．com", "x@evil.example"),
        ("Bank (bank.рф)", "x@evil.example"),
        ("x@evil.example <service@paypal.com>", "x@evil.example"),
    ],
)
def test_a_name_of_another_site(name: str, address: str) -> None:
    """A name that is the name of a site or an address of one is noticed, and one line shows the address behind it."""
    assert names_another(name, address)
    assert author(name, address) == address


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("Ann Example", "ann@example.org"),
        ("example.org", "news@example.org"),
        ("ann@example.org", "ann@EXAMPLE.org"),
        ("Booking.com", "noreply@mailer.booking.com"),
        ("shop.example.org", "mail@example.org"),
        ("käse.example", "a@xn--kse-qla.example"),
        ("Node.js Weekly", "news@weekly.example"),
        ("J.R. Smith, M.D.", "x@example.org"),
        ("Ann v2.0", "x@example.org"),
    ],
)
def test_a_name_of_its_own_site_or_of_none(name: str, address: str) -> None:
    """A name that belongs to the address, or names no site, is shown."""
    assert not names_another(name, address)
    assert author(name, address) == name


def test_what_one_line_shows_of_an_author() -> None:
    """The address where nothing can be read in the name; the first letter or digit stands for it."""
    for unreadable in (None, "", "  ", "\u200b\u2060", "\u3164", "\u202e"):
        assert author(unreadable, "x@example.org") == "x@example.org"
        assert straight(unreadable) == ""
    assert author("paypal.com", "") == "paypal.com"
    assert author(None, None) == ""
    assert [initial(each) for each in ("ann", "(x)", "ßa", "🎉 sale", "", "...")] == ["A", "X", "S", "S", "?", "?"]


def test_long_values() -> None:
    """A text keeps its beginning, an address and the name of a file their ends too."""
    assert shortened("a b", 3) == "a b"
    assert shortened("a bcd", 3) == "a…"
    assert cut_within("abc@example.org", 15) == "abc@example.org"
    cut = cut_within(f"service@paypal.com.{'x' * 5000}.evil.example")
    assert (len(cut), cut[:19], cut[-13:]) == (199, "service@paypal.com.", ".evil.example")
