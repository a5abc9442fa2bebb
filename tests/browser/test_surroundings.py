"""What is around the page: notifications, paper, the manifest, and proxies that do not let a stream pass."""

import re
from collections.abc import Callable
from typing import Any

from harness import inbox_mail
from harness.inbox_site import Site
from harness.service import wait_until
from playwright.sync_api import BrowserContext, Page, Route, expect

_RECORDED = """
window.shown = [];
window.Notification = class extends Notification {
  constructor(title, options) { super(title, options); window.shown.push([title, options.body]); }
};
"""
_AWAY = """(away) => {
  Object.defineProperty(document, 'hidden', { configurable: true, get: () => away });
  document.dispatchEvent(new Event('visibilitychange'));
}"""


def test_notifications_while_no_tab_is_looked_at(site: Site, new_context: Callable[..., BrowserContext]) -> None:
    """They are asked for by a button, name sender and subject, and are silent while a tab of the inbox is looked at."""
    context = new_context(permissions=["notifications"])
    context.add_init_script(_RECORDED)
    page = context.new_page()
    address = site.open(page)
    other = context.new_page()
    other.goto(f"{site.origin}/en/inbox")
    expect(other.locator("#link")).to_have_attribute("data-state", "live")
    page.get_by_role("button", name="Notify me").click()
    expect(page.get_by_role("button", name="Notifications are on")).to_have_attribute("aria-pressed", "true")
    page.evaluate(_AWAY, True)
    site.store(address, inbox_mail.plain(1))  # the other tab is looked at
    expect(page.locator(".row")).to_have_count(1)
    expect(other.locator(".row")).to_have_count(1)
    other.evaluate(_AWAY, True)
    site.store(address, inbox_mail.plain(2))
    wait_until(lambda: page.evaluate("window.shown"), "the notification")
    assert page.evaluate("window.shown") == [["Ann Example", "Message 2"]]
    assert other.evaluate("window.shown") == []
    page.evaluate(_AWAY, False)
    page.get_by_role("button", name="Notifications are on").click()
    expect(page.get_by_role("button", name="Notify me")).to_have_attribute("aria-pressed", "false")


def test_a_burst_rings_three_times(site: Site, new_context: Callable[..., BrowserContext]) -> None:
    """The title counts what else arrives."""
    context = new_context(permissions=["notifications"])
    context.add_init_script(_RECORDED)
    page = context.new_page()
    page.clock.install()
    address = site.open(page)
    page.get_by_role("button", name="Notify me").click()
    page.clock.pause_at(page.evaluate("Date.now() + 1000"))
    page.evaluate(_AWAY, True)
    site.store(address, *(inbox_mail.plain(number) for number in range(7)))
    expect(page.locator(".row")).to_have_count(7)
    page.clock.run_for(1000)
    assert page.evaluate("window.shown") == [["Ann Example", f"Message {number}"] for number in range(3)]
    expect(page).to_have_title(re.compile(r"^\(7\) "))


def test_a_browser_that_keeps_no_cookies(site: Site, context: BrowserContext, page: Page) -> None:
    """It is told before it asks for an address, and afterwards where the script does not know."""
    context.new_cdp_session(page).send("Emulation.setDocumentCookieDisabled", {"disabled": True})
    page.goto(f"{site.origin}/en/")
    expect(page.locator("#no-cookies")).to_contain_text("Your browser keeps no cookies of this site.")

    def lose(route: Route) -> None:
        answer = route.fetch(max_redirects=0, headers=route.request.headers | {"sec-fetch-site": "same-origin"})
        context.clear_cookies()
        route.fulfill(response=answer, headers={k: v for k, v in answer.headers.items() if k != "set-cookie"})

    other = context.new_page()
    other.route("**/en/inbox", lose)
    other.goto(f"{site.origin}/en/")
    expect(other.locator("#no-cookies")).to_be_hidden()
    other.locator(".take button").click()
    expect(other.get_by_role("alert")).to_contain_text("Your browser keeps no cookies of this site.")


def test_a_script_that_does_not_come(site: Site, context: BrowserContext, page: Page) -> None:
    """Where an extension or the network keeps it away, the page becomes the one without a script after a moment."""
    site.open(page)
    for with_script, without in ((".for-script", ".timer .without-script"), ("#link", "a.without-script")):
        expect(page.locator(with_script)).to_be_visible()
        expect(page.locator(without)).to_be_hidden()
    context.route("**/inbox*.js", lambda route: route.abort())
    page.goto(f"{site.origin}/en/inbox")
    expect(page.get_by_text("Ends on")).to_be_hidden()
    page.evaluate("document.getAnimations().forEach((each) => each.finish())")
    expect(page.get_by_text("Ends on")).to_be_visible()
    expect(page.get_by_role("link", name="Check for mail")).to_be_visible()
    expect(page.locator(".needs-script").locator("visible=true")).to_have_count(0)


def test_a_lost_connection_leaves_the_page_where_it_is(site: Site, context: BrowserContext, page: Page) -> None:
    site.open(page)
    expect(page.locator("#link")).to_have_attribute("data-state", "live")
    page.evaluate("window.sameDocument = true")
    context.set_offline(True)
    page.locator("#extend").click()
    expect(page.locator("#status")).to_have_text("Nothing is lost. Please try again in a few seconds.")
    context.set_offline(False)
    page.locator("#extend").click()
    expect(page.locator("#status")).to_have_text("The inbox lasts longer now.")
    assert page.evaluate("window.sameDocument")


def _link(page: Page, subject: str) -> str | None:
    """The path of a message in the list."""
    return page.locator(".row", has_text=subject).locator(".to").get_attribute("href")


def test_a_message_on_paper(site: Site, context: BrowserContext, page: Page) -> None:
    """Its page has the message and nothing else, runs no script, and is as good as the message in the frame."""
    address = site.open(page)
    site.store(address, inbox_mail.newsletter(), inbox_mail.files(), inbox_mail.hostile())
    page.locator(".row", has_text="Five walks").locator(".to").click()
    with context.expect_page() as opened:
        page.get_by_role("link", name="Print").click()
    paper = opened.value
    expect(paper.get_by_role("heading", level=1).first).to_have_text("Five walks for the last warm weekend")
    expect(paper.get_by_text("Fieldnotes <letter@fieldnotes.example>")).to_be_visible()
    expect(paper.get_by_alt_text("Fieldnotes")).to_be_visible()  # the image that came with the mail
    assert paper.locator("script, form, iframe, link").count() == 0
    assert paper.pdf().startswith(b"%PDF")
    paper.goto(f"{site.origin}{_link(page, 'Proofs')}/print")
    expect(paper.get_by_text("cover.png, proof of the inner pages, second version.pdf")).to_contain_text(
        "invoicefdp.exe"
    )
    paper.goto(f"{site.origin}{_link(page, 'locked')}/print?images=1")
    assert paper.locator("script, form, svg, link, base").count() == 0
    expect(paper.get_by_role("heading", level=1).first).to_contain_text("Your account is locked")
    long = "W" * 300
    site.store(address, f"Subject: {long}\nContent-Type: text/html\n\n<p>{long}</p>".encode())
    page.goto(f"{site.origin}/en/inbox")
    paper.goto(f"{site.origin}{_link(page, 'WWWW')}/print")
    assert paper.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_page_can_be_installed(site: Site, context: BrowserContext, page: Page) -> None:
    """Chromium takes the manifest of each direction of writing without a complaint, with its icons."""
    page.goto(f"{site.origin}/en/")
    devtools = context.new_cdp_session(page)
    manifest: Any = devtools.send("Page.getAppManifest")
    assert (manifest["errors"], manifest["url"]) == ([], f"{site.origin}/en/manifest.webmanifest")
    complaints = devtools.send("Page.getInstallabilityErrors")["installabilityErrors"]
    assert {each["errorId"] for each in complaints} <= {"in-incognito"}
    page.goto(f"{site.origin}/ar/")
    manifest = devtools.send("Page.getAppManifest")
    assert manifest["errors"] == []
    assert '"dir": "rtl"' in manifest["data"]
    assert '"start_url": "/ar/inbox"' in manifest["data"]


def test_a_proxy_that_collects_the_stream(site: Site, context: BrowserContext, page: Page) -> None:
    """It answers nothing for a long time: the page asks by itself, without an error."""
    context.route("**/events?*", lambda route: None)  # it stays unanswered
    page.clock.install()
    with page.expect_request("**/events?*"):  # the clock that the page sets with it is the one to be put forward
        address = site.open(page)
    page.clock.fast_forward(11_000)
    expect(page.locator("#link")).to_have_attribute("data-state", "polling")
    site.store(address, inbox_mail.plain(1))
    page.clock.fast_forward(11_000)
    expect(page.locator(".row .subject")).to_have_text(["Message 1"])
    expect(page.locator("#status")).to_have_text("1 new message")
    expect(page.get_by_role("alert")).to_have_count(0)


def test_a_proxy_that_cuts_the_stream(site: Site, context: BrowserContext, page: Page) -> None:
    """It ends each stream after a moment: the page says nothing of it at first, then asks by itself, and misses nothing."""

    def cut(route: Route) -> None:
        route.fulfill(content_type="text/event-stream", body="retry: 50\n\nevent: beat\ndata: {}\n\n")

    context.route("**/events?*", cut)
    page.clock.install()
    address = site.open(page)
    page.evaluate(
        "window.states = []; new MutationObserver(() => states.push(document.querySelector('#link').dataset.state))"
        ".observe(document.querySelector('#link'), { attributes: true })"
    )
    expect(page.locator("#link")).to_have_attribute("data-state", "polling")
    assert "waiting" not in page.evaluate("window.states")
    context.unroute("**/events?*")
    site.store(address, inbox_mail.plain(1))
    page.clock.fast_forward(11_000)
    expect(page.locator(".row .subject")).to_have_text(["Message 1"])


def test_two_inboxes_in_two_tabs(site: Site, context: BrowserContext, page: Page) -> None:
    """Each tab stays with its own: what arrives, what its buttons do, and what a click opens."""
    first = site.open(page)
    other = context.new_page()
    second = site.open(other)
    site.store(first, inbox_mail.plain(1))
    site.store(second, inbox_mail.plain(2))
    expect(page.locator(".row .subject")).to_have_text(["Message 1"])
    expect(other.locator(".row .subject")).to_have_text(["Message 2"])
    page.reload()
    expect(page.locator("#address")).to_have_text(first)
    page.locator(".row .to").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Message 1")
    page.go_back()
    expect(page.locator("#address")).to_have_text(first)
    page.get_by_role("button", name="Delete everything").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete everything").click()
    expect(page.locator("#status")).to_have_text("The inbox and its mail have been deleted.")
    page.go_back()
    expect(page.locator("#status")).to_have_text("This inbox is no longer open to you.")
    site.store(second, inbox_mail.plain(3))
    expect(other.locator(".row .subject")).to_have_text(["Message 3", "Message 2"])
