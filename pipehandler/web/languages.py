"""The languages of the inbox page: which there are, which one a visitor gets, and their words.

The words are gettext catalogues (locale/LANG/LC_MESSAGES/inbox.po), read once when the program starts: nothing is compiled,
and a corrected catalogue is in use after a restart. `script/messages` keeps them complete; docs/contributing.md says how to
correct one.
"""

from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from io import BytesIO
from typing import NamedTuple

from babel.core import Locale
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from babel.support import Translations
from jinja2 import Environment, pass_context
from jinja2.runtime import Context

DEFAULT = "en"
"""The language of a visitor whose languages we do not have. The msgids are its sentences."""

DOMAIN = "inbox"
"""The name of the catalogues, as gettext calls it."""

LOCALE = files("pipehandler.web") / "locale"


@cache
def _locale(code: str) -> Locale:
    return Locale.parse(code, sep="-")


class Language(NamedTuple):
    """A language of the page. code: BCP 47, as in paths, `lang` and `hreflang`. name: in the language itself."""

    code: str
    name: str

    @property
    def locale(self) -> Locale:
        """The same for Babel, which knows its plural forms, dates and numbers."""
        return _locale(self.code)

    @property
    def direction(self) -> str:
        """`ltr` or `rtl`, as in the attribute `dir`."""
        return self.locale.text_direction

    @property
    def catalogue(self) -> Traversable:
        """The file with its words."""
        return LOCALE / str(self.locale) / "LC_MESSAGES" / f"{DOMAIN}.po"


LANGUAGES = {
    code: Language(code, name)
    for code, name in {
        "ar": "العربية",
        "de": "Deutsch",
        "en": "English",
        "es": "Español",
        "fr": "Français",
        "hi": "हिन्दी",
        "id": "Bahasa Indonesia",
        "it": "Italiano",
        "ja": "日本語",
        "ko": "한국어",
        "nl": "Nederlands",
        "pl": "Polski",
        "pt-BR": "Português (Brasil)",
        "ru": "Русский",
        "th": "ไทย",
        "tr": "Türkçe",
        "uk": "Українська",
        "vi": "Tiếng Việt",
        "zh-Hans": "简体中文",
        "zh-Hant": "繁體中文",
    }.items()
}
"""Each language by its code."""

_BY_PRIMARY = {code.partition("-")[0]: code for code in LANGUAGES if not code.startswith("zh")} | {"in": "id"}
"""The language for each primary subtag; `in` is the old tag of Indonesian, which Java still sends."""

_TRADITIONAL = {"hant", "tw", "hk", "mo"}
"""The script, and the regions that write it."""

_MAX_RANGES = 50
"""More languages than any visitor speaks: the field is the visitor's, so its cost is bounded."""


def negotiate(accept_language: str | None) -> str:
    """Return the code of the language that suits the field Accept-Language best (RFC 9110 12.5.4), or DEFAULT."""
    ranges = sorted(_ranges(accept_language or ""), key=lambda each: -each[1])  # stable: equal weights keep their order
    for tag, weight in ranges:
        if weight > 0 and (code := match(tag)):
            return code
    return DEFAULT


def match(tag: str) -> str | None:
    """Return the code of the language that a tag such as `pt-PT` or `zh_TW` asks for; None if we have none."""
    primary, *others = tag.lower().replace("_", "-").split("-")
    if primary == "zh":
        return "zh-Hant" if "hans" not in others and _TRADITIONAL.intersection(others) else "zh-Hans"
    return _BY_PRIMARY.get(primary)


def _ranges(field: str) -> Iterator[tuple[str, float]]:
    """Yield each tag of the field with its weight; one that cannot be read weighs nothing."""
    for each in field.split(",", _MAX_RANGES)[:_MAX_RANGES]:
        tag, _, parameter = each.partition(";")
        name, _, value = parameter.partition("=")
        try:
            weight = float(value) if name.strip().lower() == "q" else 1.0
        except ValueError:
            weight = 0.0
        yield tag.strip(), weight if 0 <= weight <= 1 else 0.0  # also NaN


def direction(code: str) -> str:
    """Return the direction in which a language is written: `ltr` or `rtl`."""
    return LANGUAGES[code].direction


def read_words(catalogue: Traversable) -> Translations:
    """Read a catalogue. Raises OSError if it cannot be read, ValueError if it is not a catalogue."""
    with catalogue.open("rb") as file:
        read = read_po(file, abort_invalid=True)
    compiled = BytesIO()
    write_mo(compiled, read)
    compiled.seek(0)
    return Translations(compiled, domain=DOMAIN)


@cache
def words(code: str) -> Translations:
    """Return the words of a language: its `gettext` and `ngettext` translate what `mark` marked."""
    return read_words(LANGUAGES[code].catalogue)


def mark(message: str) -> str:
    """Return the message as it is. The call marks it for `script/messages`, where its language is not known yet."""
    return message


def install(environment: Environment) -> None:
    """Let templates translate: `{{ _('…') }}`, `{{ ngettext(…) }}`, `{% trans %}`, into the language `lang` of their context.

    One environment serves all languages, so each template is compiled once. A translation is markup like the template itself;
    what is put into it by name is escaped.
    """

    @pass_context
    def gettext(context: Context, message: str) -> str:
        return str(words(context["lang"]).gettext(message))

    @pass_context
    def ngettext(context: Context, singular: str, plural: str, count: int) -> str:
        return str(words(context["lang"]).ngettext(singular, plural, count))

    @pass_context
    def pgettext(context: Context, meaning: str, message: str) -> str:
        return str(words(context["lang"]).pgettext(meaning, message))

    @pass_context
    def npgettext(context: Context, meaning: str, singular: str, plural: str, count: int) -> str:
        return str(words(context["lang"]).npgettext(meaning, singular, plural, count))

    environment.add_extension("jinja2.ext.i18n")
    environment.policies["ext.i18n.trimmed"] = True
    environment.install_gettext_callables(  # type: ignore[attr-defined] # the extension adds it
        gettext, ngettext, newstyle=True, pgettext=pgettext, npgettext=npgettext
    )
