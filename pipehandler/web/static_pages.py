"""The pages that are the same for every visitor: about, help, privacy, terms, contact, the articles, and what search engines
read. They are rendered once, when the program starts, or by `pipehandler web export` into a folder for a CDN.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape, quoteattr

from jinja2 import Environment

from pipehandler.settings.config import Web

from .articles import Article, read_articles
from .languages import DEFAULT, LANGUAGES
from .render import Templates

NAMES = ("about", "help", "privacy", "terms", "contact")
"""The pages that each installation has, in the order of their links. Their paths are /LANG/NAME."""

BLOG = "blog"
"""The list of articles is /LANG/blog, an article /LANG/blog/SLUG."""

HTML = "text/html; charset=utf-8"

ARTICLES = files("pipehandler.web") / "articles"
"""The articles of the package, for sites that have none of their own."""


class StaticPage(NamedTuple):
    """A rendered page. path: from the root of the site, such as /de/about. etag: strong, with its quotes (RFC 9110 8.8.3)."""

    path: str
    media_type: str
    body: bytes
    etag: str

    @classmethod
    def of(cls, path: str, media_type: str, text: str) -> "StaticPage":
        """Make a page of its text."""
        body = text.encode("utf-8")
        return cls(path, media_type, body, f'"{hashlib.sha256(body).hexdigest()[:20]}"')

    @property
    def file(self) -> str:
        """Where the page lies in an export, for servers that look for PATH.html: de/about.html."""
        name = self.path.removeprefix("/")
        return name if self.media_type != HTML else f"{name}.html"

    def is_unchanged(self, if_none_match: str | None) -> bool:
        """Whether the field If-None-Match of a request names this page, so that the answer is 304 (RFC 9110 13.1.2)."""
        tags = [each.strip().removeprefix("W/") for each in (if_none_match or "").split(",")]
        return "*" in tags or self.etag in tags


class _Group(NamedTuple):
    """One page in all its languages. tail: what follows /LANG/ in its paths."""

    tail: str
    template: str
    languages: tuple[str, ...]


def origin_of(settings: Web) -> str:
    """Return the scheme and host of links that leave the page, such as those in the sitemap; "" where it has no name."""
    return f"https://{settings.hosts[0]}" if settings.hosts else ""


def site_pages(settings: Web, templates: Templates) -> dict[str, StaticPage]:
    """Render the static pages of a site as it is configured, by their paths. Raises ArticleError."""
    articles = read_articles(Path(settings.articles) if settings.articles else ARTICLES)
    return render(templates.environment, templates.common, origin_of(settings), articles, settings.public)


def render(
    environment: Environment,
    common: Callable[[str], Mapping[str, object]],
    origin: str,
    articles: Iterable[Article] = (),
    indexed: bool = True,
) -> dict[str, StaticPage]:
    """Render every static page, and return them by their paths.

    common: the context that all pages share, for a language. origin: scheme and host of the site, for search engines, which
    want whole URLs; "" if the site has no name, so that they cannot list it. indexed: whether they may.
    """
    indexed = indexed and bool(origin)
    by_language: defaultdict[str, dict[str, Article]] = defaultdict(dict)
    for article in articles:
        by_language[article.language][article.slug] = article
    groups = [_Group(name, f"static/{name}.html", tuple(LANGUAGES)) for name in NAMES]
    if by_language:
        groups.append(_Group(BLOG, "static/blog.html", _ordered(by_language)))
    for slug in dict.fromkeys(slug for written in by_language.values() for slug in written):
        having = _ordered(code for code, written in by_language.items() if slug in written)
        groups.append(_Group(f"{BLOG}/{slug}", "static/article.html", having))

    pages = [robots(origin, indexed)]
    if indexed:
        pages.append(sitemap(origin, [("", tuple(LANGUAGES)), *((each.tail, each.languages) for each in groups)]))
    for code in LANGUAGES:
        context = {**common(code), "articles": list(by_language[code].values()), "static_names": NAMES}
        for group in groups:
            if code in group.languages:
                own = {
                    "alternates": alternates(origin, group.tail, group.languages),
                    "article": by_language[code].get(group.tail.removeprefix(f"{BLOG}/")),
                    "tail": group.tail,
                    "indexed": indexed,
                }
                text = environment.get_template(group.template).render(context | own)
                pages.append(StaticPage.of(f"/{code}/{group.tail}", HTML, text))
    return {page.path: page for page in pages}


def _ordered(codes: Iterable[str]) -> tuple[str, ...]:
    """Return the languages in the order of LANGUAGES."""
    found = set(codes)
    return tuple(code for code in LANGUAGES if code in found)


def alternates(origin: str, tail: str, codes: Iterable[str] = LANGUAGES) -> dict[str, str]:
    """Return the URL of a page in each language, for `<link rel="alternate" hreflang>`; `x-default` is for all others.

    tail: what follows /LANG/ in its paths; empty for the first page.
    """
    urls = {code: f"{origin}/{code}/{tail}" for code in codes}
    default = urls.get(DEFAULT) or next(iter(urls.values()))
    return urls | {"x-default": default if tail else f"{origin}/"}


def sitemap(origin: str, groups: Iterable[tuple[str, tuple[str, ...]]]) -> StaticPage:
    """Return the sitemap (sitemaps.org 0.9): each page with its other languages, as search engines want them."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9" xmlns:xhtml="http://www.w3.org/1999/xhtml">',
    ]
    for tail, codes in groups:
        urls = alternates(origin, tail, codes)
        links = [
            f'<xhtml:link rel="alternate" hreflang={quoteattr(code)} href={quoteattr(url)}/>'
            for code, url in urls.items()
        ]
        lines += [f"<url><loc>{escape(urls[code])}</loc>{''.join(links)}</url>" for code in codes]
    return StaticPage.of("/sitemap.xml", "application/xml; charset=utf-8", "\n".join([*lines, "</urlset>", ""]))


def robots(origin: str, indexed: bool) -> StaticPage:
    """Return robots.txt (RFC 9309). Inbox pages say noindex themselves, which a crawler must be able to read."""
    rules = (
        ["User-agent: *", "Allow: /", f"Sitemap: {origin}/sitemap.xml"] if indexed else ["User-agent: *", "Disallow: /"]
    )
    return StaticPage.of("/robots.txt", "text/plain; charset=utf-8", "\n".join([*rules, ""]))
