"""What senders chose, as a page shows it in one line."""

import pytest
from harness.page import templates

from pipehandler.web.names import ascii_domain, imitates, straight, visible

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
    ("address", "ascii_form", "imitating"),
    [
        ("ann@example.org", "", False),
        ("ann@xn--80ak6aa92e.com", "", True),
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
def test_domains(address: str | None, ascii_form: str, imitating: bool) -> None:
    """The domain of a sender in both forms, and whether it imitates another."""
    assert (ascii_domain(address), imitates(address)) == (ascii_form, imitating)


def test_templates() -> None:
    """They have all of it."""
    environment = templates().environment
    text = "{{ 'a\u202eb' | straight }} {{ 'a\u202eb' | visible }} {{ 'a@é.fr' | ascii_domain }}"
    assert environment.from_string(text).render() == "ab a\\u202eb xn--9ca.fr"
    assert environment.from_string("{{ 'a@b\u0430.com' is imitation }}").render() == "True"
