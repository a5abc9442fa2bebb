"""Every language at 320 px, which is also 1280 px at 400 %: no page is wider than the window, and nothing is cut."""

from collections.abc import Callable

from harness import inbox_mail
from harness.inbox_site import Site
from playwright.sync_api import BrowserContext, Page, expect

from pipehandler.web.languages import LANGUAGES

_BROKEN = """[...document.querySelectorAll(".actions .button span")].filter((each) => each.checkVisibility()).flatMap((each) =>
  [...each.textContent.matchAll(/[\\p{L}\\p{M}]+/gu)].map(({ 0: word, index }) => {
    const range = document.createRange();
    range.setStart(each.firstChild, index);
    range.setEnd(each.firstChild, index + word.length);
    return [word, new Set([...range.getClientRects()].map(({ top }) => Math.round(top))).size];
  })).filter(([word, lines]) => lines > 1 && !/[\\p{Script=Han}\\p{Script=Hiragana}\\p{Script=Katakana}\\p{Script=Thai}]/u.test(word))"""

_CUT = """[...document.querySelectorAll(".button, .tabs a, .facts, h1, h2, summary")].filter((each) =>
  each.checkVisibility() && each.scrollWidth > each.clientWidth + 1 && getComputedStyle(each).display !== "inline"
  && getComputedStyle(each).overflow !== "visible").map((each) => each.textContent.trim())"""


def test_all_languages_fit_a_narrow_window(site: Site, new_context: Callable[..., BrowserContext]) -> None:
    page = new_context(viewport={"width": 320, "height": 700}, reduced_motion="reduce").new_page()
    address = site.open(page)
    site.store(address, inbox_mail.files(), inbox_mail.code())
    expect(page.locator(".row")).to_have_count(2)
    message = str(page.locator(".row .to").first.get_attribute("href")).removeprefix("/en/")
    found: list[object] = []
    for code, language in LANGUAGES.items():
        for path in ("", "inbox", message):
            page.goto(f"{site.origin}/{code}/{path}", wait_until="domcontentloaded")
            assert page.locator("html").get_attribute("dir") == language.direction
            wide = page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth")
            cut = page.evaluate(_CUT)
            found += [(code, path, wide, cut)] if wide or cut else []
            top = page.locator(".top").bounding_box()["height"]  # type: ignore[index]
            found += [(code, path, "the line above is broken", top)] if top > 80 else []
    assert found == []


def test_all_languages_on_a_phone(site: Site, new_context: Callable[..., BrowserContext]) -> None:
    """No button of the inbox breaks within a word, and none leaves the card."""
    page = new_context(viewport={"width": 390, "height": 844}).new_page()
    site.open(page)
    found: list[object] = []
    for code in LANGUAGES:
        page.goto(f"{site.origin}/{code}/inbox", wait_until="domcontentloaded")
        broken = page.evaluate(_BROKEN)
        outside = page.evaluate(
            """() => { const card = document.querySelector(".card").getBoundingClientRect();
              return [...document.querySelectorAll(".actions .button")].filter((each) => each.checkVisibility()).map((each) => each.getBoundingClientRect())
                .some(({ left, right }) => left < card.left || right > card.right); }"""
        )
        found += [(code, broken, outside)] if broken or outside else []
    assert found == []


def test_a_name_in_another_script_stays_beside_its_term(site: Site, page: Page) -> None:
    """Operator and address begin at one edge, whatever their own direction."""
    page.goto(f"{site.origin}/ar/contact")
    edges = page.evaluate(
        "[...document.querySelectorAll('dd > *')].map((each) => Math.round(each.getBoundingClientRect().right))"
    )
    assert len(edges) == 2
    assert len(set(edges)) == 1
