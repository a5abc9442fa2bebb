"""The rules of axe-core on every page, in both schemes, both directions, narrow and wide; and what axe cannot see."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from harness import inbox_mail
from harness.inbox_site import Site
from playwright.sync_api import BrowserContext, Page, expect

_AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text()
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
_COLOURS = {"type": "rule", "values": ["color-contrast"]}  # of all rules, the one that another scheme can break
_RUN = """async (rules) => (await axe.run(document, { runOnly: rules, iframes: false, preload: false, resultTypes: ["violations"] })).violations
  .map((each) => [each.id, each.nodes.map((node) => node.target.join(" ") + " " + node.failureSummary)])"""


def _violations(page: Page) -> list[Any]:
    """What axe finds, and whether the page scrolls sideways; in light and dark, at 320 and 1280 px."""
    page.evaluate(_AXE)  # by the driver, not by the page: its policy stays as it is
    found: list[Any] = []
    for width, height in ((1280, 900), (320, 640)):
        page.set_viewport_size({"width": width, "height": height})
        if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            found.append((page.url, width, "scrolls sideways"))
        page.emulate_media(color_scheme="light", reduced_motion="reduce")
        found += [(page.url, width, each) for each in page.evaluate(_RUN, _RULES)]
        page.emulate_media(color_scheme="dark", reduced_motion="reduce")
        found += [(page.url, width, "dark", each) for each in page.evaluate(_RUN, _COLOURS)]
    return found


@pytest.mark.parametrize("lang", ["en", "ar"])
def test_no_page_violates_a_rule(site: Site, new_context: Callable[..., BrowserContext], lang: str) -> None:
    page = new_context(reduced_motion="reduce").new_page()
    found = []

    def look(path: str, seen: str) -> None:
        if path:
            page.goto(f"{site.origin}/{lang}/{path}")
        expect(page.locator(seen).first).to_be_visible()
        found.extend(_violations(page))

    address = site.open(page, lang=lang)
    look("", "#empty")
    site.store(address, inbox_mail.files(), inbox_mail.newsletter(), inbox_mail.code())
    site.store_unreadable(address)
    look("inbox", ".row")
    links = [link.get_attribute("href") for link in page.locator(".row .to").all()]
    for link, seen in zip(links, ("article .problem", ".found-code", ".mail", ".attachments"), strict=True):
        look(str(link).removeprefix(f"/{lang}/"), seen)
    look(f"{str(links[1]).removeprefix(f'/{lang}/')}/headers", ".fields")
    site.store(address, inbox_mail.endless())
    look("inbox", ".row")
    endless = str(page.locator(".row", has_text="Donau").locator(".to").get_attribute("href")).removeprefix(f"/{lang}/")
    look(endless, ".further")
    assert page.locator("article header").bounding_box()["height"] < 1200  # type: ignore[index]
    look(f"{endless}/headers", ".fields")
    look("key", ".qr")
    look("", "#own-title")
    look("open", "#open-form")
    look("nothing/here", ".big")
    look("help", ".prose")
    look("", ".prose")
    page.goto(f"{site.origin}/{lang}/")
    look("", ".yours")
    site.database.execute("UPDATE pipehandler.address SET expires_at = now() WHERE address = %s", address)
    look("inbox", "#ended")
    assert found == []


def test_forced_colours_and_reduced_motion(site: Site, new_context: Callable[..., BrowserContext]) -> None:
    page = new_context(forced_colors="active", reduced_motion="reduce").new_page()
    address = site.open(page)
    site.store(address, inbox_mail.plain(1))
    row = page.locator(".row")
    expect(row).to_have_count(1)
    assert page.evaluate("document.getAnimations().length") == 0
    assert page.evaluate("document.querySelectorAll('[style]').length") == 0  # nothing slides
    widths = "(selector) => getComputedStyle(document.querySelector(selector)).borderTopWidth"
    assert {page.evaluate(widths, each) for each in (".card", ".rows", ".button.primary", ".initial")} == {"1px"}


def test_the_clock_warns_once_and_is_silent_otherwise(site: Site, page: Page) -> None:
    address = site.open(page)
    expect(page.locator(".clock")).to_have_attribute("aria-live", "off")
    assert page.locator("#status").get_attribute("role") == "status"
    assert page.locator(".rows[aria-live], .list[aria-live]").count() == 0
    site.database.execute(
        "UPDATE pipehandler.address SET expires_at = now() + interval '50 seconds' WHERE address = %s", address
    )
    expect(page.locator("#status")).to_have_text("This inbox ends in a minute.")
    expect(page.locator("#timer")).to_have_class("timer soon")
