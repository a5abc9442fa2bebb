"""The articles of the blog: Markdown files, `LANG/SLUG.md` in a folder, those of the package or the operator's own.

An article begins with its data as TOML between two lines `+++`; title and description are required, date is not:

    +++
    title = "Why a disposable address"
    description = "One sentence for search engines and link previews."
    date = 2026-11-27
    +++

The same SLUG in several languages is the same article. HTML in the text is shown as text.
"""

import re
import tomllib
from datetime import date
from importlib.resources.abc import Traversable
from typing import Any, NamedTuple

from markdown_it import MarkdownIt
from markupsafe import Markup

from .languages import LANGUAGES

_SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_DATA = re.compile(r"\+\+\+\n(.*?\n)\+\+\+\n(.*)", re.DOTALL)
_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")


class ArticleError(Exception):
    """An article cannot be used; the text names its file, what is wrong and what is expected."""


class Article(NamedTuple):
    """An article in one language. body: HTML."""

    slug: str
    language: str
    title: str
    description: str
    date: date | None
    body: Markup


def read_articles(folder: Traversable) -> list[Article]:
    """Read the articles of a folder, the newest first. Raises ArticleError for the first that cannot be used."""
    found = [
        _article(file, language.name, file.name.removesuffix(".md"))
        for language in folder.iterdir()
        if language.is_dir() and not language.name.startswith(".")
        for file in language.iterdir()
        if file.name.endswith(".md")
    ]
    found.sort(key=lambda each: (each.language, each.slug))
    return sorted(found, key=lambda each: each.date or date.min, reverse=True)


def _article(file: Traversable, language: str, slug: str) -> Article:
    if language not in LANGUAGES:
        raise ArticleError(f"{file}: {language!r} is not a language of the page; expected one of {' '.join(LANGUAGES)}")
    if not _SLUG.fullmatch(slug):
        raise ArticleError(f"{file}: {slug!r} cannot be a path; use a-z, 0-9 and single hyphens, such as my-article.md")
    try:
        text = file.read_bytes().decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise ArticleError(f"{file}: not UTF-8 at octet {error.start}") from error
    parts = _DATA.fullmatch(text.removeprefix("\ufeff"))
    if not parts:
        raise ArticleError(f"{file}: it must begin with its title and description between two lines +++")
    try:
        data = tomllib.loads(parts[1])
    except tomllib.TOMLDecodeError as error:
        raise ArticleError(f"{file}: between the lines +++: {error}") from error
    title, description = (_text(file, data, key) for key in ("title", "description"))
    written = data.get("date")
    if written is not None and type(written) is not date:
        raise ArticleError(f"{file}: date is {written!r}; expected a date without quotes, such as 2026-11-27")
    if unknown := data.keys() - {"title", "description", "date"}:
        raise ArticleError(f"{file}: unknown key {min(unknown)!r}; expected title, description, date")
    body = Markup(_MARKDOWN.render(parts[2]))  # noqa: S704 # the renderer escapes HTML, and refuses javascript: links
    return Article(slug, language, title, description, written, body)


def _text(file: Traversable, data: dict[str, Any], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ArticleError(f'{file}: {key} is {value!r}; expected a text, such as {key} = "Some words"')
    return value.strip()
