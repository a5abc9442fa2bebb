"""The static pages: complete in each language, known to search engines, and written for a CDN."""

import re
from datetime import date
from functools import cache
from urllib.parse import urlsplit
from xml.etree import ElementTree

import pytest
from harness.page import SETTINGS, environment, sample, templates
from harness.page_text import PageText
from markupsafe import Markup

from pipehandler.web import languages, static_pages
from pipehandler.web.articles import Article
from pipehandler.web.languages import LANGUAGES
from pipehandler.web.static_pages import NAMES, StaticPage, render, site_pages

ORIGIN = "https://inbox.example.com"
ARTICLES = (
    Article("hello", "en", "Hello", "A sentence.", date(2026, 11, 27), Markup("<p>Text</p>")),
    Article("hello", "ar", "Hello", "A sentence.", None, Markup("<p>Text</p>")),
    Article("nur-hier", "de", "Nur hier", "Ein Satz.", None, Markup("<p>Text</p>")),
)


@cache
def rendered(articles: tuple[Article, ...] = (), indexed: bool = True) -> dict[str, StaticPage]:
    return render(environment(), sample, ORIGIN, articles, indexed)


def test_there_is_each_page_in_each_language() -> None:
    pages = rendered()
    assert set(pages) == {"/robots.txt", "/sitemap.xml", *(f"/{code}/{name}" for code in LANGUAGES for name in NAMES)}
    assert all(path == page.path for path, page in pages.items())


@pytest.mark.parametrize("code", LANGUAGES)
def test_a_page_is_in_its_language(code: str) -> None:
    for name in NAMES:
        page = PageText(rendered()[f"/{code}/{name}"].body.decode())
        assert page.elements[0] == ("html", {**page.elements[0][1], "lang": code, "dir": languages.direction(code)})
        headings = [tag for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
        assert headings.count("h1") == 1
        assert headings[0] == "h1"
        assert headings == sorted(headings), "no level is left out"


def test_articles_are_only_in_the_languages_that_they_are_written_in() -> None:
    pages = rendered(ARTICLES)
    assert {path for path in pages if "/blog" in path} == {
        *("/ar/blog", "/de/blog", "/en/blog", "/ar/blog/hello", "/en/blog/hello", "/de/blog/nur-hier")
    }
    text = pages["/en/blog/hello"].body.decode()
    assert "<p>Text</p>" in text
    assert '<time datetime="2026-11-27">November 27, 2026</time>' in text
    assert "Nur hier" in pages["/de/blog"].body.decode()
    assert "Nur hier" not in pages["/en/blog"].body.decode()


def test_the_operator_is_named_and_escaped() -> None:
    page = rendered()["/en/contact"].body.decode()
    assert "Example &amp; Sons" in page
    assert 'href="mailto:hello@example.com"' in page


def test_an_operator_without_contact_details_is_admitted() -> None:
    settings = SETTINGS._replace(operator="", contact="", postal_address="")
    page = site_pages(settings, templates(settings))["/en/contact"].body.decode()
    assert "has not published any contact details" in page
    assert "mailto:" not in page


def test_search_engines_learn_the_other_languages() -> None:
    assert static_pages.alternates(ORIGIN, "about") == {
        **{code: f"{ORIGIN}/{code}/about" for code in LANGUAGES},
        "x-default": f"{ORIGIN}/en/about",
    }
    assert static_pages.alternates(ORIGIN, "")["x-default"] == f"{ORIGIN}/"
    assert static_pages.alternates(ORIGIN, "blog/a", ["de", "fr"])["x-default"] == f"{ORIGIN}/de/blog/a"


def test_the_sitemap_has_each_page_with_all_its_languages() -> None:
    pages = rendered(ARTICLES)
    names = {"s": "http://www.sitemaps.org/schemas/sitemap/0.9", "x": "http://www.w3.org/1999/xhtml"}
    found = {}
    for entry in ElementTree.fromstring(pages["/sitemap.xml"].body).findall("s:url", names):
        links = {link.attrib["hreflang"]: link.attrib["href"] for link in entry.findall("x:link", names)}
        found[entry.findtext("s:loc", "", names)] = links
    html = {path for path, page in pages.items() if page.media_type == static_pages.HTML}
    assert {urlsplit(url).path for url in found} == html | {f"/{code}/" for code in LANGUAGES}
    for url, links in found.items():
        assert url in links.values()
        for code, other in links.items():
            assert code == "x-default" or found[other] == links, "the set is the same on each page of it"


def test_a_site_that_is_not_public_is_not_indexed() -> None:
    pages = rendered(indexed=False)
    assert pages["/robots.txt"].body == b"User-agent: *\nDisallow: /\n"
    assert "/sitemap.xml" not in pages
    assert (
        rendered()["/robots.txt"].body == b"User-agent: *\nAllow: /\nSitemap: https://inbox.example.com/sitemap.xml\n"
    )


@pytest.mark.parametrize("public", [True, False])
def test_a_site_without_a_name_has_no_sitemap_and_its_menu_works(public: bool) -> None:
    pages = site_pages(SETTINGS._replace(hosts=(), public=public), templates())
    assert pages["/robots.txt"].body == b"User-agent: *\nDisallow: /\n"
    assert "/sitemap.xml" not in pages
    links = [dict(each)["href"] for tag, each in PageText(pages["/ja/help"].body.decode()).elements if tag == "a"]
    assert {f"/{code}/help" for code in LANGUAGES} <= set(links)


def test_the_menu_of_languages_leads_to_the_same_page() -> None:
    pages = rendered(ARTICLES)
    for path, page in pages.items():
        if page.media_type == static_pages.HTML:
            code, _, tail = path[1:].partition("/")
            elements = PageText(page.body.decode()).elements
            menu = {str(each["hreflang"]): each["href"] for tag, each in elements if tag == "a" and "hreflang" in each}
            assert menu == {other: f"/{other}/{tail}" for other in LANGUAGES if f"/{other}/{tail}" in pages}
            links = {each["hreflang"]: each["href"] for tag, each in elements if tag == "link" and "hreflang" in each}
            assert links == static_pages.alternates(ORIGIN, tail, menu)
            assert code in menu


def test_every_link_of_a_page_leads_to_a_page() -> None:
    """The rest is the server's: the first page, the form for abuse, the files of the design."""
    pages = site_pages(SETTINGS, templates())
    served = {f"/{code}/{tail}" for code in LANGUAGES for tail in ("", "abuse", "manifest.webmanifest")}
    for path, page in pages.items():
        if page.media_type == static_pages.HTML:
            for tag, each in PageText(page.body.decode()).elements:
                link = each.get("href") or each.get("src") or ""
                if link.startswith("/") and not link.startswith("/static/"):
                    assert link in pages or link in served, (path, tag, link)


def test_the_articles_are_reached_from_a_page() -> None:
    page = site_pages(SETTINGS, templates())["/de/about"].body.decode()
    assert 'href="/de/blog"' in page
    assert 'href="/de/blog"' not in rendered()["/de/about"].body.decode()


def test_the_tag_of_a_page_changes_with_its_text_alone() -> None:
    first, second = rendered(), render(environment(), sample, ORIGIN)
    assert {page.etag for page in first.values()} == {page.etag for page in second.values()}
    assert len({page.etag for page in first.values()}) == len(first)
    assert StaticPage.of("/a", "text/plain", "a").etag != StaticPage.of("/a", "text/plain", "b").etag


@pytest.mark.parametrize(
    ("field", "unchanged"),
    [
        (None, False),
        ("", False),
        ("*", True),
        ("TAG", True),
        ("W/TAG", True),
        ('"other", TAG', True),
        ('"other"', False),
        ("tag", False),
    ],
)
def test_a_browser_that_has_the_page_gets_it_not_again(field: str | None, unchanged: bool) -> None:
    page = StaticPage.of("/en/about", static_pages.HTML, "text")
    assert re.fullmatch('"[0-9a-f]{20}"', page.etag)
    assert page.is_unchanged(field and field.replace("TAG", page.etag)) is unchanged
