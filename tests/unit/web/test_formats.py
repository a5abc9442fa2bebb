"""Times, spans and sizes in the language of the page."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from jinja2 import Environment

from pipehandler.web import formats
from pipehandler.web.languages import LANGUAGES

NOON = datetime(2026, 11, 27, 14, 3, tzinfo=timezone(timedelta(hours=2)))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("en", "Nov 27, 2026, 12:03\N{NARROW NO-BREAK SPACE}PM UTC"),
        ("de", "27.11.2026, 12:03 UTC"),
        ("ja", "2026/11/27 12:03 UTC"),
    ],
)
def test_a_time_is_shown_in_utc(code: str, text: str) -> None:
    assert formats.date_time(NOON, code) == text


@pytest.mark.parametrize(
    ("value", "code", "text"),
    [
        (timedelta(minutes=10), "en", "10 minutes"),
        (timedelta(minutes=1), "de", "1 Minute"),
        (90, "en", "90 seconds"),
        (3600, "fr", "1\N{NO-BREAK SPACE}heure"),
        (timedelta(hours=36), "ru", "36 часов"),
        (timedelta(days=5), "pl", "5 dni"),
        (timedelta(days=2), "ar", "يومان"),
        (0, "en", "0 seconds"),
    ],
)
def test_a_span_has_its_largest_whole_unit(value: timedelta | int, code: str, text: str) -> None:
    assert formats.span(value, code) == text


@pytest.mark.parametrize(
    ("octets", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (12_345, "12.3 kB"),
        (1_000_000, "1 MB"),
        (52_428_800, "52.4 MB"),
        (5_000_000_000_000_000, "5,000 TB"),
    ],
)
def test_a_size_has_one_decimal_place(octets: int, text: str) -> None:
    assert formats.size(octets, "en") == text


def test_numbers_are_grouped_as_the_language_does() -> None:
    assert formats.number(12_345, "en") == "12,345"
    assert formats.number(12_345, "de") == "12.345"
    assert formats.number(1_234_567, "hi") == "12,34,567"


@pytest.mark.parametrize("code", LANGUAGES)
def test_every_language_has_all_of_them_as_filters(code: str) -> None:
    environment = Environment(autoescape=True)
    formats.install(environment)
    template = environment.from_string("{{ t|date_time }}|{{ t|date }}|{{ s|span }}|{{ n|size }}|{{ n|number }}")
    parts = template.render(lang=code, t=datetime(2026, 11, 27, 12, 3, tzinfo=UTC), s=600, n=12_345).split("|")
    assert len(parts) == 5
    assert all(any(character.isdigit() for character in part) for part in parts)
    assert "10" in parts[2]
