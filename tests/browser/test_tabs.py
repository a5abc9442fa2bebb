"""Several tabs on one stream, lost streams, and a process that dies: every tab ends with every row once."""

import pytest
from harness import inbox_mail
from harness.inbox_site import Site
from harness.service import wait_until
from playwright.sync_api import BrowserContext, Page, expect


def _subjects(page: Page) -> list[str]:
    return page.locator(".row .subject").all_inner_texts()


def _shows(page: Page, numbers: range) -> None:
    """Wait until a tab shows these messages, the newest first, each once."""
    expect(page.locator(".row .subject")).to_have_text([f"Message {number}" for number in reversed(numbers)])


def test_the_tabs_of_a_browser_share_one_stream(site: Site, context: BrowserContext, page: Page) -> None:
    address = site.open(page)
    # Over HTTP/1.1 a browser has six connections to a host: a stream for each tab would leave none.
    tabs = [page, *(context.new_page() for _ in range(7))]
    for tab in tabs[1:]:
        tab.goto(f"{site.origin}/en/inbox")
    site.store(address, *(inbox_mail.plain(number) for number in range(1, 4)))
    for tab in tabs:
        _shows(tab, range(1, 4))
        expect(tab.locator("#link")).to_have_attribute("data-state", "live")
    assert site.web.counts()["open_streams"] == 1
    tabs.pop(0).close()  # the one that had the stream
    site.store(address, *(inbox_mail.plain(number) for number in range(4, 7)))
    for tab in tabs:
        _shows(tab, range(1, 7))
    assert site.web.counts()["open_streams"] == 1


def test_a_tab_that_was_suspended_misses_nothing(site: Site, context: BrowserContext, page: Page) -> None:
    address = site.open(page)
    other = context.new_page()
    other.goto(f"{site.origin}/en/inbox")
    site.store(address, inbox_mail.plain(1))
    _shows(other, range(1, 2))
    devtools = context.new_cdp_session(other)
    devtools.send("Page.setWebLifecycleState", {"state": "frozen"})  # as a phone suspends a tab
    site.store(address, inbox_mail.plain(2), inbox_mail.plain(3))
    _shows(page, range(1, 4))
    devtools.send("Page.setWebLifecycleState", {"state": "active"})
    site.store(address, inbox_mail.plain(4))
    _shows(page, range(1, 5))
    _shows(other, range(1, 5))


@pytest.mark.long
def test_a_page_outlives_the_process(site: Site, page: Page) -> None:
    address = site.open(page)
    expect(page.locator("#link")).to_have_attribute("data-state", "live")
    for number in range(1, 4):
        site.web.kill()
        site.store(address, inbox_mail.plain(number))
        site.web.start()
        wait_until(lambda number=number: len(_subjects(page)) == number, "the arrival")  # type: ignore[misc]
    _shows(page, range(1, 4))
