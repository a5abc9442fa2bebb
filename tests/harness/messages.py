"""The sentences of the inbox page as they stand in its source, and the catalogues of this checkout."""

from copy import deepcopy
from functools import cache
from io import BytesIO
from pathlib import Path

from babel.messages.catalog import Catalog, Message
from babel.messages.extract import DEFAULT_KEYWORDS, extract_from_dir
from babel.messages.pofile import read_po, write_po

from pipehandler.web.languages import DEFAULT, LANGUAGES

WEB = Path(__file__).parents[2] / "pipehandler" / "web"

_METHODS = [("**.py", "python"), ("templates/**.html", "jinja2.ext:babel_extract")]
_OPTIONS = {"templates/**.html": {"trimmed": "true", "silent": "false"}}
_KEYWORDS = DEFAULT_KEYWORDS | {"mark": None}

_HEADER = """\
# The words of the inbox page in {name}.
# Address: {address}
#"""

ADDRESS = {
    "ar": "neutral, second person singular masculine where it cannot be avoided; verbal nouns on buttons.",
    "de": "formal (Sie); infinitives on buttons.",
    "en": "you; imperatives on buttons.",
    "es": "informal (tú), neutral between Spain and Latin America; infinitives on buttons.",
    "fr": "formal (vous); infinitives on buttons.",
    "hi": "polite (आप); polite infinitives and imperatives (करें) on buttons.",
    "id": "neutral (Anda); imperatives on buttons.",
    "it": "informal (tu); infinitive-like nouns or imperatives (tu) on buttons.",
    "ja": "polite (です・ます); noun forms on buttons.",
    "ko": "polite (합쇼체 for statements, 하세요 for requests); noun forms on buttons.",
    "nl": "informal (je); infinitives on buttons.",
    "pl": "informal (ty), without gendered past tense; imperatives on buttons.",
    "pt-BR": "informal (você); infinitives on buttons.",
    "ru": "formal (вы, lower case); infinitives on buttons.",
    "th": "polite and neutral (คุณ), without ครับ/ค่ะ; bare verbs on buttons.",
    "tr": "formal (siz); imperatives of the second person singular on buttons.",
    "uk": "formal (ви, lower case); infinitives on buttons.",
    "vi": "neutral (bạn); bare verbs on buttons.",
    "zh-Hans": "neutral (你); mainland terms.",
    "zh-Hant": "neutral (你); Taiwan terms.",
}
"""How each language speaks to the visitor; the header of its catalogue says so to translators."""


@cache
def extracted() -> Catalog:
    """Return every sentence that a template or a module of the page translates."""
    catalogue = Catalog(charset="utf-8")
    for file, line, message, comments, context in extract_from_dir(
        WEB, _METHODS, _OPTIONS, _KEYWORDS, comment_tags=("Translators:",), strip_comment_tags=True
    ):
        catalogue.add(message, None, [(file, line)], auto_comments=comments, context=context)
    return catalogue


def catalogue_file(code: str) -> Path:
    """The catalogue of a language in this checkout, which need not be the installed one."""
    return WEB / "locale" / str(LANGUAGES[code].locale) / "LC_MESSAGES" / "inbox.po"


def read_catalogue(code: str) -> Catalog:
    """Read the catalogue of a language; one that is not there is empty."""
    file = catalogue_file(code)
    if not file.exists():
        return Catalog(locale=str(LANGUAGES[code].locale))
    with file.open("rb") as opened:
        return read_po(opened, locale=str(LANGUAGES[code].locale), abort_invalid=True)


def updated(code: str, catalogue: Catalog, template: Catalog) -> Catalog:
    """Return a catalogue with exactly the sentences of the template, and the translations that it has."""
    # A catalogue takes the messages themselves: without a copy a translation would stand in all languages.
    catalogue.update(deepcopy(template), no_fuzzy_matching=True, update_creation_date=False)
    catalogue.obsolete.clear()
    catalogue.header_comment = _HEADER.format(name=LANGUAGES[code].locale.english_name, address=ADDRESS[code])
    if code == DEFAULT:
        for message in catalogue:
            if message.id:
                message.string = message.id
    return catalogue


def written(catalogue: Catalog) -> bytes:
    """Return a catalogue as the octets of its file: without line numbers, which would change with every edit."""
    file = BytesIO()
    write_po(file, catalogue, width=120, include_lineno=False, ignore_obsolete=True)
    lines = file.getvalue().splitlines(keepends=True)
    return b"".join(line for line in lines if not line.startswith(_LEFT_OUT))


_LEFT_OUT = tuple(
    f'"{name}:'.encode()
    for name in (
        "Generated-By",
        "Language-Team",
        "Last-Translator",
        "PO-Revision-Date",
        "POT-Creation-Date",
        "Project-Id-Version",
        "Report-Msgid-Bugs-To",
    )
)
"""Fields of the header that Git knows better."""


def strings(message: Message) -> tuple[str, ...]:
    """The translations of a sentence: one, or one for each plural form."""
    return forms(message.string)


def forms(text: object) -> tuple[str, ...]:
    """A text or its plural forms, as Babel has them: str, or a sequence of them; None is an empty text."""
    return tuple(map(str, text)) if isinstance(text, tuple | list) else (str(text or ""),)


def translated(message: Message) -> bool:
    """Whether every form of a sentence has a translation that a person has approved."""
    return all(strings(message)) and not message.fuzzy
