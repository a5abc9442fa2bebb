"""The page in a browser that runs no script: everything but live arrival and copying."""

import re
from collections.abc import Callable

import pytest
from harness import inbox_mail
from harness.inbox_site import Site
from playwright.sync_api import BrowserContext, Page, expect


@pytest.fixture
def page(new_context: Callable[..., BrowserContext]) -> Page:
    """A tab without scripts."""
    return new_context(java_script_enabled=False).new_page()


def test_open_read_and_delete(site: Site, page: Page) -> None:
    address = site.open(page, "plain")
    assert address == "plain@example.com"
    expect(page.locator("#status")).to_have_text("Your address is ready.")
    expect(page.get_by_text("Ends on")).to_be_visible()
    expect(page.locator(".needs-script").locator("visible=true")).to_have_count(0)
    site.store(address, inbox_mail.notes(), inbox_mail.newsletter())
    page.get_by_role("link", name="Check for mail").click()
    page.get_by_role("link", name="Notes from Thursday").click()
    expect(page.get_by_role("region", name="Text")).to_contain_text("The umbrella I cannot help with.")
    page.locator(".row", has_text="Five walks").locator(".to").click()
    expect(page.frame_locator(".mail").get_by_text("The pine ridge")).to_be_visible()
    page.get_by_label("As on a phone").check()
    assert page.locator(".mail").bounding_box()["width"] < 400  # type: ignore[index]
    page.get_by_role("button", name="Delete this message").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator(".row .subject")).to_have_text(["Re: Notes from Thursday"])
    page.locator(".row .mark input").check()
    page.get_by_role("button", name="Delete the selected messages").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.locator(".row")).to_have_count(0)
    page.get_by_role("button", name="Delete everything").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete everything").click()
    expect(page.locator("#status")).to_have_text("The inbox and its mail have been deleted.")


def test_a_message_on_a_phone(site: Site, page: Page) -> None:
    """The address beside the end of the inbox is one line, or two, and not one for each letter."""
    page.set_viewport_size({"width": 360, "height": 740})
    address = site.open(page)
    site.store(address, inbox_mail.plain())
    page.goto(f"{site.origin}/en/inbox")
    page.locator(".row .to").click()
    assert page.locator("#address").bounding_box()["height"] < 60  # type: ignore[index]


def test_files_are_downloaded(site: Site, page: Page) -> None:
    address = site.open(page)
    site.store(address, inbox_mail.files())
    page.goto(f"{site.origin}/en/inbox")
    page.locator(".row .to").click()
    with page.expect_download() as download:
        page.get_by_role("link", name="appointment.ics").click()
    assert download.value.suggested_filename == "appointment.ics"
    assert b"SUMMARY:At the printer" in download.value.path().read_bytes()
    page.get_by_text("Look inside").first.click()
    expect(page.locator(".inside pre").first).to_contain_text("SUMMARY:At the printer")
    with page.expect_download() as download:
        page.get_by_role("link", name="All as a zip file").click()
    assert download.value.path().read_bytes().startswith(b"PK")
    expect(page.locator(".file-name", has_text="exe")).to_have_text("invoicefdp.exe")


def test_time_is_added_and_the_language_changed(site: Site, page: Page) -> None:
    address = site.open(page)
    before = site.database.value("SELECT expires_at FROM pipehandler.address WHERE address = %s", address)
    page.get_by_role("button", name="Add 10 minutes").click()
    expect(page.locator("#status")).to_have_text("The inbox lasts longer now.")
    after = site.database.value("SELECT expires_at FROM pipehandler.address WHERE address = %s", address)
    assert (after - before).total_seconds() == 600
    page.get_by_role("button", name="English").click()
    page.get_by_role("button", name="Deutsch").click()
    expect(page).to_have_url(re.compile(r"/de/inbox\?inbox=\d+$"))
    expect(page.locator("html")).to_have_attribute("lang", "de")
    expect(page.locator("#address")).to_have_text(address)
