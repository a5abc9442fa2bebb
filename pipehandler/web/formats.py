"""Times, spans and sizes as text in the language of a page, for where no script formats them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from babel.dates import format_date, format_datetime
from babel.numbers import format_decimal
from babel.units import format_unit
from jinja2 import Environment, pass_context
from jinja2.runtime import Context

from .languages import LANGUAGES

_STEP = 1000
_UNITS = ("byte", "kilobyte", "megabyte", "gigabyte", "terabyte")


def date_time(value: datetime, code: str) -> str:
    """Return a time in UTC, named so: "27 Nov 2026, 14:03 UTC". The browser shows the visitor's own time where it can."""
    return f"{format_datetime(value.astimezone(UTC), _time_format(code), locale=LANGUAGES[code].locale)} UTC"


def _time_format(code: str) -> str:
    """The medium date and the short time of a language, joined as the language joins them."""
    locale = LANGUAGES[code].locale
    joined: str = str(locale.datetime_formats["medium"])
    return joined.format(locale.time_formats["short"].pattern, locale.date_formats["medium"].pattern)


def date(value: datetime, code: str) -> str:
    """Return the day in full: "27 November 2026"."""
    return format_date(value, "long", locale=LANGUAGES[code].locale)


def span(value: timedelta | int, code: str) -> str:
    """Return a span of time in its largest whole unit: "10 minutes", "36 hours". A number means seconds."""
    seconds = int(value.total_seconds() if isinstance(value, timedelta) else value)
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds and seconds % length == 0:
            return format_unit(seconds // length, f"duration-{unit}", locale=LANGUAGES[code].locale)
    return format_unit(seconds, "duration-second", locale=LANGUAGES[code].locale)


def size(octets: int, code: str) -> str:
    """Return a size with at most one decimal place: "12.3 kB"; octets as a word in its plural form: "1 byte", "370 bytes"."""
    locale, value = LANGUAGES[code].locale, float(octets)
    for unit in _UNITS:
        if value < _STEP or unit == _UNITS[-1]:
            break
        value /= _STEP
    shown = round(value, 1 if unit != "byte" else 0)
    # The short form of a byte has no plural in English.
    length: Literal["long", "short"] = "long" if unit == "byte" else "short"
    return format_unit(shown, f"digital-{unit}", length=length, format="#,##0.#", locale=locale)


def number(value: int, code: str) -> str:
    """Return a whole number, grouped as the language groups it: "12,345"."""
    return format_decimal(value, locale=LANGUAGES[code].locale)


def install(environment: Environment) -> None:
    """Give templates the filters `date_time`, `date`, `span`, `size` and `number`, in the language `lang` of their context."""
    filters: dict[str, Callable[[Any, str], str]] = {
        "date_time": date_time,
        "date": date,
        "span": span,
        "size": size,
        "number": number,
    }
    environment.filters |= {name: _in_language(function) for name, function in filters.items()}


def _in_language(function: Callable[[Any, str], str]) -> Callable[[Context, Any], str]:
    @pass_context
    def filtered(context: Context, value: Any) -> str:
        return function(value, context["lang"])

    return filtered
