"""Which language a visitor gets."""

import pytest
from jinja2 import DictLoader, Environment, StrictUndefined

from pipehandler.web import languages
from pipehandler.web.languages import LANGUAGES, direction, match, negotiate


@pytest.mark.parametrize(
    ("field", "code"),
    [
        (None, "en"),
        ("", "en"),
        ("*", "en"),
        ("de", "de"),
        ("de-AT", "de"),
        ("fr-CA,fr;q=0.9,en;q=0.8", "fr"),
        ("en;q=0.3, uk;q=0.9", "uk"),
        ("sv, da;q=0.9, nl;q=0.1", "nl"),  # we have neither of the first two
        ("sv", "en"),
        ("pt", "pt-BR"),
        ("pt-PT", "pt-BR"),
        ("in-ID", "id"),
        ("zh", "zh-Hans"),
        ("zh-CN", "zh-Hans"),
        ("zh-SG", "zh-Hans"),
        ("zh-TW", "zh-Hant"),
        ("zh-HK", "zh-Hant"),
        ("zh-Hant", "zh-Hant"),
        ("zh-Hans-HK", "zh-Hans"),
        ("ZH-hant-mo", "zh-Hant"),
        ("de;q=0, fr;q=0.1", "fr"),
        ("de;q=0", "en"),
        ("de ; Q=0.2 , it ; q=0.3", "it"),
        ("de;q=nan, ko;q=0.1", "ko"),
        ("de;q=7, ko;q=0.1", "ko"),
        ("de;q=-1, ko;q=0.1", "ko"),
        ("de;q=x, ko;q=0.1", "ko"),
        (",;=,q=1,-,;;;", "en"),
        ("ja;level=1", "ja"),
        ("\N{CYRILLIC SMALL LETTER DE}e", "en"),
        ("x," * 100_000 + "de", "en"),
    ],
)
def test_the_language_is_negotiated(field: str | None, code: str) -> None:
    assert negotiate(field) == code


@pytest.mark.parametrize("code", LANGUAGES)
def test_each_language_is_found_by_its_own_tag(code: str) -> None:
    assert match(code) == match(code.upper()) == match(code.replace("-", "_")) == negotiate(code) == code


def test_only_arabic_is_written_from_right_to_left() -> None:
    assert [code for code in LANGUAGES if direction(code) == "rtl"] == ["ar"]


def test_there_are_twenty_languages_and_each_is_named_in_itself() -> None:
    assert " ".join(LANGUAGES) == "ar de en es fr hi id it ja ko nl pl pt-BR ru th tr uk vi zh-Hans zh-Hant"
    names = {language.name.partition(" (")[0].casefold() for language in LANGUAGES.values()}
    expected = {
        str(language.locale.get_language_name(str(language.locale).partition("_")[0])).casefold()
        for language in LANGUAGES.values()
        if not language.code.startswith("zh")
    }
    assert names - expected == {"bahasa indonesia", "简体中文", "繁體中文"}  # Babel: Indonesia, 中文
    assert expected - names == {"indonesia"}


def test_one_environment_speaks_the_language_of_the_context() -> None:
    source = "{{ _('Help') }} {% trans %}\n  Help\n{% endtrans %} {{ gettext('Help') }}"
    environment = Environment(loader=DictLoader({"page": source}), autoescape=True, undefined=StrictUndefined)
    languages.install(environment)
    template = environment.get_template("page")
    assert template.render(lang="en") == "Help Help Help"
    assert template.render(lang="de") == "Hilfe Hilfe Hilfe"
    assert template.render(lang="ja") == "ヘルプ ヘルプ ヘルプ"


def test_what_is_put_into_a_sentence_is_escaped() -> None:
    source = "{{ _('This site runs on %(software)s, free software that everyone may read, use and change.', software=name) }}"
    environment = Environment(loader=DictLoader({"page": source}), autoescape=True, undefined=StrictUndefined)
    languages.install(environment)
    text = environment.get_template("page").render(lang="fr", name="<script>")
    assert "&lt;script&gt;" in text
    assert "<script>" not in text
