"""The catalogues of the inbox page are complete, and say what the page says."""

import re
from collections import Counter

import pytest
from babel.messages.catalog import Catalog, Message
from babel.messages.plurals import get_plural
from harness.messages import (
    ADDRESS,
    WEB,
    catalogue_file,
    extracted,
    forms,
    read_catalogue,
    strings,
    translated,
    updated,
    written,
)

from pipehandler.web.languages import LANGUAGES, read_words, words

every_language = pytest.mark.parametrize("code", LANGUAGES)

_NAMED = re.compile(r"%\((\w+)\)[sd]|%%|%")
_TAGS = re.compile(r"</?\w[^>]*>")
_WORD = re.compile(r"[^\W\d_]{2,}")
_SCRIPTS = {
    "ar": "\u0600-\u06ff",
    "hi": "\u0900-\u097f",
    "ja": "\u3040-\u30ff\u4e00-\u9fff",
    "ko": "\uac00-\ud7a3",
    "ru": "\u0400-\u04ff",
    "th": "\u0e00-\u0e7f",
    "uk": "\u0400-\u04ff",
    "zh-Hans": "\u4e00-\u9fff",
    "zh-Hant": "\u4e00-\u9fff",
}
_MANY_WORDS = 4
"""From so many words on, a sentence that is the same in English was not translated."""


def _messages(code: str) -> list[Message]:
    return [message for message in read_catalogue(code) if message.id]


def _english(message: Message) -> tuple[str, ...]:
    return forms(message.id)


def _keys(messages: list[Message]) -> set[tuple[object, str | None]]:
    return {(message.id, message.context) for message in messages}


def test_there_is_a_catalogue_for_each_language_and_no_other() -> None:
    assert {path.name for path in (WEB / "locale").iterdir()} == {str(each.locale) for each in LANGUAGES.values()}
    assert ADDRESS.keys() == LANGUAGES.keys()


def test_the_page_has_sentences() -> None:
    assert len(extracted()) > 100


def test_a_new_sentence_is_not_translated_by_the_english_catalogue() -> None:
    template = Catalog(charset="utf-8")
    template.add("A sentence.")
    assert updated("en", Catalog(locale="en"), template)["A sentence."].string == "A sentence."
    assert not updated("es", Catalog(locale="es"), template)["A sentence."].string


@every_language
def test_every_sentence_is_translated_and_none_is_left_over(code: str) -> None:
    assert _keys(_messages(code)) == _keys([message for message in extracted() if message.id])
    assert [message.id for message in _messages(code) if not translated(message)] == []
    assert list(read_catalogue(code).obsolete) == []


@every_language
def test_the_file_is_as_the_script_writes_it(code: str) -> None:
    assert written(updated(code, read_catalogue(code), extracted())) == catalogue_file(code).read_bytes()


@every_language
def test_the_plural_forms_are_those_of_babel(code: str) -> None:
    plural = get_plural(str(LANGUAGES[code].locale))
    joined = catalogue_file(code).read_text("utf-8").replace('"\n"', "")
    assert re.findall(r"Plural-Forms: (.*?)\\n", joined) == [plural.plural_forms]
    counts = {len(strings(message)) for message in _messages(code) if isinstance(message.id, tuple)}
    assert counts <= {plural.num_plurals}


@every_language
def test_each_form_can_be_used_for_its_numbers(code: str) -> None:
    """The words that the program uses give every number a form, and the number itself where the others have it."""
    loaded = read_words(catalogue_file(code))
    for message in _messages(code):
        if isinstance(message.id, tuple):
            numbers = (*range(201), 1_000_000)
            one, many = _english(message)
            found = {
                loaded.npgettext(message.context, one, many, number)
                if message.context
                else loaded.ngettext(one, many, number)
                for number in numbers
            }
            assert found == set(strings(message))


@every_language
def test_placeholders_and_markup_are_the_same(code: str) -> None:
    for message in _messages(code):
        allowed = [Counter(_NAMED.findall(each)) for each in _english(message)]
        for string in strings(message):
            assert set(_NAMED.findall(string)) <= set(allowed[-1]), string
            # A form that stands for one number alone may name it in words.
            assert Counter(_NAMED.findall(string)) in allowed or isinstance(message.id, tuple), string
            assert Counter(_TAGS.findall(string)) == Counter(_TAGS.findall(_english(message)[-1])), string
            assert "%" not in re.sub(r"%\(\w+\)[sd]|%%", "", string), string
            assert "<" not in _TAGS.sub("", string), string


@every_language
def test_babel_finds_nothing_to_complain_about(code: str) -> None:
    catalogue = read_catalogue(code)
    assert [(message.id, [str(error) for error in errors]) for message, errors in catalogue.check()] == []


@every_language
def test_blanks_and_line_ends_are_clean(code: str) -> None:
    for message in _messages(code):
        for string in strings(message):
            assert string == string.strip(), string
            assert "  " not in string, string
            assert "\n" not in string, string


@every_language
def test_no_sentence_was_left_in_english(code: str) -> None:
    if code == "en":
        assert all(strings(message) == _english(message) for message in _messages(code))
        return
    for message in _messages(code):
        for string in strings(message):
            words_of_it = _WORD.findall(_TAGS.sub("", _NAMED.sub("", string)))
            assert string not in _english(message) or len(words_of_it) < _MANY_WORDS, string
            if code in _SCRIPTS and len(_WORD.findall(_english(message)[-1])) >= _MANY_WORDS:
                assert re.search(f"[{_SCRIPTS[code]}]", string), string


@pytest.mark.parametrize("code", ["es", "fr", "it", "pt-BR"])
def test_only_whole_millions_have_a_preposition(code: str) -> None:
    """5 archivos, 1 000 000 de archivos: the forms are those of their numbers."""
    loaded = read_words(catalogue_file(code))
    of_millions = re.compile(r"%\(num\)s (?:de|di|d’)\b|%\(num\)s d’")
    for message in _messages(code):
        if isinstance(message.id, tuple):
            for number, expected in ((1, False), (2, False), (5, False), (21, False), (1_000_000, True)):
                one, many = _english(message)
                form = loaded.ngettext(one, many, number)
                assert bool(of_millions.search(form)) is expected, (number, form)


def test_visitors_are_addressed_in_one_way_in_chinese() -> None:
    assert [
        string
        for code in ("zh-Hans", "zh-Hant")
        for each in _messages(code)
        for string in strings(each)
        if "您" in string
    ] == []


def test_the_two_chinese_scripts_are_not_mixed() -> None:
    simplified, traditional = "们这来为个时没请开关载删览显邮", "們這來為個時沒請開關載刪覽顯郵"
    for code, foreign in (("zh-Hans", traditional), ("zh-Hant", simplified)):
        for message in _messages(code):
            for string in strings(message):
                assert not set(string) & set(foreign), string


@every_language
def test_how_visitors_are_addressed_is_written_down(code: str) -> None:
    assert f"# Address: {ADDRESS[code]}" in catalogue_file(code).read_text("utf-8")


@every_language
def test_the_program_reads_what_it_is_shipped_with(code: str) -> None:
    assert words(code).gettext("Help") == next(
        message.string for message in _messages(code) if message.id == "Help" and message.context is None
    )
