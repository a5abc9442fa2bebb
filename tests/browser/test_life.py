"""An inbox from its first to its last minute, as a visitor with a script sees it."""

import re
from datetime import UTC, datetime, timedelta

from harness import inbox_mail
from harness.inbox_site import Site
from harness.service import wait_until
from playwright.sync_api import BrowserContext, Page, Route, expect

_SHIFTS = """
new PerformanceObserver((list) => list.getEntries().forEach((each) =>
  (window.shifted ??= []).push([each.value, ...each.sources.map((source) => source.node?.outerHTML?.slice(0, 80))])))
  .observe({ type: "layout-shift", buffered: false })
"""

_HELD = """
const add = EventSource.prototype.addEventListener;
EventSource.prototype.addEventListener = function (kind, listener) {
  add.call(this, kind, (event) => (window.held && kind === "mail" ? held.push(() => listener(event)) : listener(event)));
};
"""
"""While window.held is an array, mail waits in it."""


def test_mail_appears_as_it_arrives(site: Site, page: Page) -> None:
    address = site.open(page, "arrival")
    assert address == "arrival@example.com"
    expect(page.locator("#link")).to_have_attribute("data-state", "live")
    expect(page.get_by_role("heading", name="Waiting for mail")).to_be_visible()
    page.locator("#extend").focus()
    page.evaluate(_SHIFTS)
    page.evaluate("window.sameDocument = true")
    for number in (1, 2, 3):
        site.send(inbox_mail.plain(number), address)
        row = page.locator(".row", has_text=f"Message {number}")
        expect(row).to_be_visible()
        expect(page.locator("#status")).to_have_text("1 new message")
        wait_until(
            lambda: page.evaluate("!document.querySelector('#rows').style.transform"),
            "the end of the slide",
        )
    assert page.locator(".row .subject").all_inner_texts() == ["Message 3", "Message 2", "Message 1"]
    assert page.evaluate("window.sameDocument")
    assert page.evaluate("document.activeElement.id") == "extend"
    expect(page.locator(".row").first).to_contain_text("New")
    site.store(address, *(inbox_mail.plain(number) for number in range(4, 14)))
    expect(page.locator(".row")).to_have_count(13)
    wait_until(lambda: page.evaluate("!document.querySelector('.bottom').style.transform"), "its end")
    assert page.evaluate("document.body.offsetHeight > innerHeight")
    assert page.evaluate("window.shifted ?? []") == []


def test_mail_that_arrives_while_the_list_slides_moves_nothing_at_once(site: Site, page: Page) -> None:
    """Ten rows, each within the slide of the one before, and two of them in one frame: no frame shows a jump."""
    page.add_init_script(_HELD)
    address = site.open(page)
    site.store(address, *(inbox_mail.plain(number) for number in range(3)))
    expect(page.locator(".row")).to_have_count(3)
    wait_until(lambda: page.evaluate("!document.querySelector('.bottom').style.transform"), "the end of the slide")
    page.evaluate("window.held = []")
    site.store(address, *(inbox_mail.plain(number) for number in range(10, 20)))
    wait_until(lambda: page.evaluate("held.length === 10"), "ten events")
    page.evaluate(_SHIFTS)
    sliding = page.evaluate(
        """async () => {
          let sliding = 0;
          for (const [number, take] of held.entries()) {
            sliding += document.querySelector("#rows").style.transform !== "";
            await take();
            if (number) await new Promise((resolve) => setTimeout(resolve, 40));
          }
          return sliding;
        }"""
    )
    assert sliding >= 5
    expect(page.locator(".row")).to_have_count(13)
    wait_until(lambda: page.evaluate("!document.querySelector('.bottom').style.transform"), "the end of the slide")
    assert page.evaluate("window.shifted ?? []") == []


def test_a_notice_is_shown_once(site: Site, page: Page) -> None:
    """What is said of a request is not said again when the page is loaded again."""
    site.open(page)
    expect(page.locator("#status")).to_have_text("Your address is ready.")
    page.reload()
    expect(page.locator("#link")).to_have_attribute("data-state", "live")
    expect(page.locator("#status")).to_have_text("")


def test_the_title_counts_what_arrives_while_nobody_looks(site: Site, page: Page) -> None:
    address = site.open(page)
    title = page.title()
    page.evaluate("Object.defineProperty(document, 'hidden', { get: () => window.away ?? false })")
    page.evaluate("window.away = true; document.dispatchEvent(new Event('visibilitychange'))")
    site.store(address, inbox_mail.plain(1), inbox_mail.plain(2))
    wait_until(lambda: page.title().startswith("(2) "), "the count in the title")
    page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    assert page.title() == title


def test_a_code_is_copied_and_a_message_is_read(site: Site, context: BrowserContext, page: Page) -> None:
    context.grant_permissions(["clipboard-read", "clipboard-write"], origin=site.origin)
    address = site.open(page)
    page.get_by_role("button", name="Copy address").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == address
    site.store(address, inbox_mail.code())
    page.locator(".row .to").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Your verification code")
    expect(page.locator("#code")).to_have_text("481729")
    page.get_by_role("button", name="Copy code").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == "481729"
    expect(page.locator(".trust")).to_contain_text("Sender confirmed")
    expect(page.frame_locator(".mail").get_by_text("481 729")).to_be_visible()
    site.store(address, inbox_mail.plain(2))
    expect(page.locator(".row", has_text="Message 2")).to_be_visible()  # also beside a message
    page.goto(f"{site.origin}/en/inbox")
    expect(page.locator(".row", has_text="Your verification code").locator(".fresh")).to_be_hidden()
    expect(page.locator(".row", has_text="Message 2").locator(".fresh")).to_be_visible()


def test_images_wait_for_a_click_and_links_show_their_hosts(site: Site, page: Page) -> None:
    address = site.open(page)
    site.store(address, inbox_mail.newsletter(), inbox_mail.hostile())
    page.locator(".row", has_text="Five walks").locator(".to").click()
    expect(page.locator(".blocked")).to_contain_text("4 remote images are blocked")
    expect(page.frame_locator(".mail").get_by_alt_text("Fieldnotes")).to_be_visible()
    page.get_by_role("link", name="Show images").click()
    expect(page.locator(".blocked")).to_contain_text("Remote images are shown")
    assert (
        page.locator(".mail").get_attribute("src")
        == page.url.split("?")[0].removeprefix(site.origin) + "/html?images=1"
    )
    page.get_by_label("As on a phone").check()
    assert page.locator(".mail").bounding_box()["width"] < 400  # type: ignore[index]
    page.locator(".row", has_text="locked").locator(".to").click()
    links = page.locator(".links li")
    expect(links.nth(0)).to_contain_text("leads to harbour.example.attacker.example")
    expect(links.nth(0)).to_contain_text("Its text names another site")
    expect(links.nth(1)).to_contain_text("xn--")
    expect(links.nth(1)).to_contain_text("Its name imitates or mixes letters")
    expect(page.locator(".trust")).to_contain_text("Sender may be forged")
    expect(page.get_by_role("heading", level=1)).to_have_text("<img src=x onerror=alert(2)> Your account is locked")


def test_time_is_added_without_a_new_page(site: Site, page: Page) -> None:
    site.open(page)
    expect(page.locator(".clock")).to_have_text(re.compile(r"^(10:00|9:5\d)$"))
    page.evaluate("window.sameDocument = true")
    page.locator("#extend").click()
    expect(page.locator(".clock")).to_have_text(re.compile(r"^(20:00|19:[345]\d)$"))
    expect(page.locator("#status")).to_have_text("The inbox lasts longer now.")
    assert page.evaluate("window.sameDocument")


def test_search_paging_and_selection(site: Site, page: Page) -> None:
    address = site.open(page)
    site.store(address, *(inbox_mail.plain(number, f"Letter {number}") for number in range(52)))
    page.goto(f"{site.origin}/en/inbox")
    expect(page.locator(".row")).to_have_count(50)
    page.get_by_role("link", name="Older messages").click()
    assert page.locator(".row .subject").all_inner_texts() == ["Letter 1", "Letter 0"]
    site.store(address, inbox_mail.plain(60))
    expect(page.locator("#news")).to_contain_text("New messages (1)")  # an older page does not change
    page.get_by_role("searchbox").fill("letter 17")
    page.get_by_role("searchbox").press("Enter")
    expect(page.locator(".row .subject")).to_have_text(["Letter 17"])
    expect(page.locator(".found")).to_contain_text("letter 17")
    expect(page.locator("#remove")).to_be_hidden()
    page.goto(f"{site.origin}/en/inbox")
    page.locator(".row .mark").first.click()
    expect(page.get_by_role("button", name="Delete the selected messages")).to_be_in_viewport()
    page.get_by_role("button", name="Select all").click()
    expect(page.locator(".row :checked")).to_have_count(50)
    page.get_by_role("button", name="Select all").click()
    expect(page.locator("#remove")).to_be_hidden()
    page.go_back()
    page.locator(".row .mark").click()
    page.get_by_role("button", name="Delete the selected messages").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator("#status")).to_have_text("Deleted.")
    expect(page.locator(".row", has_text="Letter 17")).to_have_count(0)


def test_what_is_deleted_elsewhere_leaves_the_list(site: Site, context: BrowserContext, page: Page) -> None:
    address = site.open(page)
    site.database.execute(
        "UPDATE pipehandler.web_inbox w SET max_messages = 2 FROM pipehandler.address a"
        " WHERE a.lease = w.lease AND a.address = %s",
        address,
    )
    page.reload()
    expect(page.locator("#full")).to_be_hidden()
    site.store(address, inbox_mail.plain(1), inbox_mail.plain(2))
    expect(page.locator(".row")).to_have_count(2)
    expect(page.locator("#full")).to_be_visible()
    reader, other = context.new_page(), context.new_page()
    for tab in (reader, other):
        tab.goto(f"{site.origin}/en/inbox")
        tab.locator(".row", has_text="Message 1").locator(".to").click()
        expect(tab.get_by_role("heading", level=1)).to_have_text("Message 1")
    other.get_by_role("button", name="Delete this message").click()
    other.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(other.locator("#status")).to_have_text("Deleted.")
    expect(page.locator(".row .subject")).to_have_text(["Message 2"])
    expect(page.locator("#full")).to_be_hidden()
    # Nor is it read on elsewhere.
    expect(reader.locator("#status")).to_have_text("This message is not here any more.")
    expect(reader.locator(".row .subject")).to_have_text(["Message 2"])


def test_an_inbox_ends_comes_back_and_is_deleted(site: Site, context: BrowserContext, page: Page) -> None:
    address = site.open(page)
    site.store(address, inbox_mail.plain(1))
    expect(page.locator(".row")).to_have_count(1)
    site.database.execute("UPDATE pipehandler.address SET expires_at = now() WHERE address = %s", address)
    expect(page.get_by_role("heading", name="This inbox has ended")).to_be_visible()
    expect(page.locator("#panes")).to_be_hidden()
    page.get_by_role("button", name="Bring it back for 10 minutes").click()
    expect(page.locator("#status")).to_have_text("The inbox lasts longer now.")  # not that of the page before
    expect(page.locator(".row .subject")).to_have_text(["Message 1"])
    other = context.new_page()
    other.goto(f"{site.origin}/en/inbox")
    expect(other.locator(".row")).to_have_count(1)
    page.get_by_role("button", name="Delete everything").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete everything").click()
    expect(page.locator("#status")).to_have_text("The inbox and its mail have been deleted.")
    expect(other.get_by_role("heading", name="This inbox is no longer open to you")).to_be_visible()
    expect(other.locator(".row")).to_have_count(0)


def test_an_inbox_that_has_lasted_as_long_as_it_may(site: Site, page: Page) -> None:
    """The page offers nothing that is refused then."""
    address = site.open(page)
    expect(page.locator("#link")).to_have_attribute("data-state", "live")
    site.database.execute(
        "UPDATE pipehandler.address SET created_at = now() - interval '1 day', expires_at = now() WHERE address = %s",
        address,
    )
    expect(page.get_by_role("heading", name="This inbox has ended")).to_be_visible()
    expect(page.get_by_text("It receives no more mail, and what it had will be deleted.")).to_be_visible()
    expect(page.get_by_role("button", name="Bring it back")).to_be_hidden()


def test_a_slow_network_does_not_stop_the_clock(site: Site, context: BrowserContext, page: Page) -> None:
    """What was on its way for a minute and a half shows the time that is left, on a device whose own clock is wrong."""

    def late(route: Route) -> None:
        answer = route.fetch()
        (sent,) = re.findall('data-now="([^"]+)"', answer.text())
        before = datetime.fromisoformat(sent) - timedelta(seconds=90)
        route.fulfill(response=answer, body=answer.text().replace(sent, before.isoformat()))

    page.clock.install(time=datetime.now(UTC) - timedelta(hours=5))
    site.open(page)
    context.route("**/en/inbox", late)
    page.goto(f"{site.origin}/en/inbox")
    expect(page.locator("#link")).to_have_attribute("data-state", "live")
    expect(page.locator(".clock")).to_have_text(re.compile(r"^(10:00|9:[345]\d)$"))


def test_a_key_opens_the_inbox_in_another_browser(site: Site, page: Page, new_context: object) -> None:
    address = site.open(page)
    site.store(address, inbox_mail.plain(1))
    page.get_by_role("link", name="Key and sharing").click()
    expect(page.get_by_alt_text("The link with your key, as a QR code")).to_be_visible()
    page.get_by_role("button", name="Make a link").click()
    link = page.get_by_role("textbox", name="Link for reading").input_value()
    guest = new_context().new_page()  # type: ignore[operator]
    guest.goto(f"{site.origin}/en/open#{link.partition('#')[2]}")
    guest.get_by_role("button", name="Open this inbox").click()
    expect(guest.locator(".row .subject")).to_have_text(["Message 1"])
    expect(guest.get_by_text("You can read this inbox, but not change it.")).to_be_visible()
    expect(guest.locator("#extend, #remove, .row input")).to_have_count(0)
    guest.locator(".row .to").click()
    expect(guest.get_by_role("heading", level=1)).to_have_text("Message 1")
    page.get_by_role("button", name="Revoke all such links").click()
    expect(guest.get_by_text("This is text 1.")).to_have_count(0)
    expect(guest).to_have_title("This inbox is no longer open to you")
    expect(guest.get_by_role("heading", name="This inbox is no longer open to you")).to_be_visible()


def test_several_inboxes_in_one_browser(site: Site, page: Page) -> None:
    first = site.open(page)
    second = site.open(page)
    page.get_by_role("button", name="Your inboxes").click()
    page.get_by_role("button", name=first).click()
    expect(page.locator("#address")).to_have_text(first)
    page.goto(f"{site.origin}/en/")
    expect(page.locator(".yours .item")).to_contain_text([first, second])
    page.fill("#name", first.partition("@")[0])
    page.locator(".take button").click()
    expect(page.get_by_role("alert")).to_contain_text("belongs to somebody else")
