"""What a visit costs: requests and octets, as Chromium counts them on the wire."""

import gzip
from collections.abc import Callable
from importlib.resources import files

from harness import inbox_mail
from harness.inbox_site import Site
from harness.wire import Wire
from playwright.sync_api import BrowserContext, expect

KB = 1000


def test_an_inbox_and_a_message_are_small(site: Site, new_context: Callable[..., BrowserContext]) -> None:
    context = new_context()
    page = context.new_page()
    address = site.open(page)
    site.store(address, *(inbox_mail.plain(number) for number in range(9)), inbox_mail.code())
    # Another browser with the same cookie, and nothing in its cache.
    fresh = new_context(storage_state=context.storage_state()).new_page()
    wire = Wire(fresh.context.new_cdp_session(fresh))
    fresh.goto(f"{site.origin}/en/inbox")
    expect(fresh.locator("#link")).to_have_attribute("data-state", "live")
    expect(fresh.locator(".row")).to_have_count(10)
    assert all(url.startswith(site.origin) for url in wire.urls.values()), wire.urls
    assert len(wire.urls) <= 5, sorted(wire.urls.values())
    first = sum(wire.octets.values())
    fresh.locator(".row", has_text="verification").locator(".to").click()
    expect(fresh.frame_locator(".mail").get_by_text("481 729")).to_be_visible()
    assert all(url.startswith(site.origin) for url in wire.urls.values()), wire.urls
    assert first <= 35 * KB, wire.octets
    assert sum(wire.octets.values()) - first <= 15 * KB, wire.octets


def test_script_and_style_are_small() -> None:
    static = files("pipehandler.web") / "static"
    sizes = {
        name: len(gzip.compress((static / name).read_bytes(), 9)) for name in ("inbox.js", "page.css", "icons.svg")
    }
    assert sizes["inbox.js"] <= 10 * KB
    assert sizes["page.css"] <= 12 * KB
