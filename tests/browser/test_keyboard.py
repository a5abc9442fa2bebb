"""The whole life of an inbox without a mouse, and the keys of the list."""

import re

from harness import inbox_mail
from harness.inbox_site import Site
from playwright.sync_api import Locator, Page, expect


def _tab_to(page: Page, target: Locator) -> None:
    """Press Tab until the element has the focus, which is seen."""
    for _ in range(60):
        page.keyboard.press("Tab")
        if target.evaluate("(element) => element === document.activeElement"):
            return
    raise AssertionError(f"Tab does not lead to {target}")


def test_an_inbox_by_keyboard_alone(site: Site, page: Page) -> None:
    page.goto(f"{site.origin}/en/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    _tab_to(page, page.locator("#name"))
    page.keyboard.type("keys")
    page.keyboard.press("Enter")
    expect(page.locator("#address")).to_have_text("keys@example.com")
    site.store("keys@example.com", inbox_mail.plain(1), inbox_mail.plain(2))
    expect(page.locator(".row")).to_have_count(2)
    _tab_to(page, page.locator("#extend"))
    page.keyboard.press("Enter")
    expect(page.locator("#status")).to_have_text("The inbox lasts longer now.")
    _tab_to(page, page.locator(".row").nth(0).locator("input"))
    page.keyboard.press("Space")
    _tab_to(page, page.get_by_role("button", name="Delete the selected messages"))
    page.keyboard.press("Enter")
    _tab_to(page, page.get_by_role("dialog").get_by_role("button", name="Delete"))
    page.keyboard.press("Enter")
    expect(page.locator(".row .subject")).to_have_text(["Message 1"])
    _tab_to(page, page.locator(".row .to"))
    page.keyboard.press("Enter")
    expect(page.locator("div.text")).to_contain_text("This is text 1.")
    _tab_to(page, page.get_by_role("link", name="Headers"))
    page.keyboard.press("Enter")
    expect(page.locator(".fields")).to_contain_text("Message-ID")
    page.goto(f"{site.origin}/en/inbox")
    _tab_to(page, page.get_by_role("button", name="Delete everything"))
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    page.keyboard.press("Enter")
    _tab_to(page, page.get_by_role("dialog").get_by_role("button", name="Delete everything"))
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{site.origin}/en/")


def test_single_keys_move_open_and_return(site: Site, page: Page) -> None:
    address = site.open(page)
    site.store(address, *(inbox_mail.plain(number) for number in (1, 2, 3)))
    expect(page.locator(".row")).to_have_count(3)
    for key in ("j", "j", "k"):
        page.keyboard.press(key)
    assert page.evaluate("document.activeElement.querySelector('.subject').textContent") == "Message 3"
    page.keyboard.press("o")
    expect(page.get_by_role("heading", level=1)).to_have_text("Message 3")
    page.keyboard.press("j")
    expect(page.get_by_role("heading", level=1)).to_have_text("Message 2")
    page.keyboard.press("k")
    expect(page.get_by_role("heading", level=1)).to_have_text("Message 3")
    page.keyboard.press("u")
    expect(page).to_have_url(re.compile(r"/en/inbox\?inbox=\d+$"))
    page.get_by_role("searchbox").press("j")
    expect(page.get_by_role("searchbox")).to_have_value("j")


def test_single_keys_can_be_turned_off(site: Site, page: Page) -> None:
    address = site.open(page)
    site.store(address, inbox_mail.plain(1))
    expect(page.locator(".row")).to_have_count(1)
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keyboard shortcuts")
    expect(dialog).to_be_visible()
    page.get_by_label("Use these shortcuts").uncheck()
    page.keyboard.press("?")
    expect(dialog).to_be_hidden()
    page.reload()
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement === document.body")
    page.keyboard.press("?")
    page.get_by_label("Use these shortcuts").check()
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    assert page.evaluate("document.activeElement.className") == "to"
