"""A team's page on four shards, in a browser: one list, one stream, and a shard that is away and comes back."""

import secrets
from signal import SIGKILL

import pytest
from harness import account, inbox_mail
from harness.inboxes import send
from harness.service import wait_until
from harness.shards import COUNT, Shards
from harness.stream import announce
from harness.web import web_server
from playwright.sync_api import BrowserContext, Page, expect

from pipehandler.parse.message import parse
from pipehandler.web.keys import text_of


@pytest.mark.long
def test_a_team_reads_all_shards(shards: Shards, context: BrowserContext, page: Page) -> None:
    key = secrets.token_bytes(32)
    lease = shards.proxy.value("SELECT lease FROM pipehandler.lease_address('@browser.example', NULL)")
    for shard in shards.of:
        shard.execute("SELECT pipehandler.grant_view(sha256(%s), %s, 'browser')", key, lease)
    addresses = shards.addresses("browser.example")

    def store(number: int, shard: int) -> None:
        raw = inbox_mail.plain(number)
        received = f"2026-11-27T12:00:{number:02}Z"
        send(shards.proxy, addresses[shard], raw=raw, parsed=parse(raw), received_at=received)
        announce(shards.proxy)

    def shows(*numbers: int) -> None:
        expect(page.locator(".row .subject")).to_have_text([f"Message {number}" for number in numbers])

    with account.folder("pipehandler-web-") as folder, web_server(folder, shards.proxy) as server:

        def up() -> list[bool]:
            return list(server.get("/healthz").json["shards"])

        wait_until(lambda: up() == [True] * COUNT, "all shards")
        origin = f"http://127.0.0.1:{server.port}"
        context.add_cookies([{"name": "inbox", "value": text_of(key), "url": origin}])
        for number in range(1, 5):
            store(number, number % COUNT)
        page.goto(f"{origin}/en/inbox")
        shows(4, 3, 2, 1)
        expect(page.locator("#link")).to_have_attribute("data-state", "live")
        page.evaluate("window.sameDocument = true")
        for number in range(5, 9):
            store(number, number % COUNT)
            expect(page.locator(".row").first).to_contain_text(f"Message {number}")
        assert page.evaluate("window.sameDocument")

        shards.of[1].server.stop(SIGKILL)
        wait_until(lambda: not up()[1], "its loss")
        page.reload()
        shows(8, 7, 6, 4, 3, 2)
        expect(page.locator("#status")).to_have_text("Some of the mail cannot be shown just now. Nothing is lost.")
        store(9, 2)
        shows(9, 8, 7, 6, 4, 3, 2)
        shards.of[1].server.start()
        shows(9, 8, 7, 6, 5, 4, 3, 2, 1)  # the page has loaded again, by itself
        expect(page.locator("#status")).to_have_text("")
