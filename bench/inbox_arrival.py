"""How soon mail is on the page, and what a visit costs: figures of the inbox page in Chromium, behind script/inbox-page."""

import argparse
import http.client
import random
import smtplib
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from harness import account, inbox_mail
from harness.database import Database
from harness.inbox_site import Site
from harness.service import Service, wait_until
from harness.wire import Wire
from playwright.sync_api import Browser, expect, sync_playwright

from pipehandler.store.wakeups import ARRIVED

# When a row is in the DOM, in milliseconds since the epoch, by its subject.
_OBSERVE = """() => {
  window.rows = {};
  new MutationObserver(() => {
    const now = performance.timeOrigin + performance.now();
    for (const row of document.querySelectorAll(".row .subject")) window.rows[row.textContent] ??= now;
  }).observe(document.querySelector("#rows"), { childList: true });
}"""
_SHIFTS = """() => {
  window.shifted = 0;
  new PerformanceObserver((list) => list.getEntries().forEach((each) => (window.shifted += each.value)))
    .observe({ type: "layout-shift", buffered: true });
}"""


def shown(name: str, values: Sequence[float], unit: str = "ms") -> None:
    """Print a line: median, 95th percentile, largest."""
    ordered = sorted(values)
    middle, high = ordered[len(ordered) // 2], ordered[int(0.95 * (len(ordered) - 1))]
    print(f"{name:58} {middle:8.1f} {high:8.1f} {ordered[-1]:8.1f} {unit}", flush=True)


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium."""
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox"] if account.IS_ROOT else []
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        yield browser
        browser.close()


class Listener:
    """A client that does nothing but LISTEN: the floor. heard: seconds since the epoch, of each notification."""

    def __init__(self, conninfo: str) -> None:
        self.heard: list[float] = []
        self._connection = psycopg.connect(conninfo, autocommit=True)
        self._connection.execute(f"LISTEN {ARRIVED}")
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with suppress(psycopg.Error):
            for _ in self._connection.notifies():
                self.heard.append(time.time())

    def after(self, moment: float) -> float | None:
        """The first notification after a moment."""
        return next((each for each in self.heard if each >= moment), None)


def arrival(database: Database, folder: Path, options: argparse.Namespace) -> bool:
    """Send messages one after the other; whether each got its row. The server has track_commit_timestamp."""
    with Site.running(folder, database) as site, Service(site.host.handler), chromium() as browser:
        if not options.cold:
            site.host.use_client()
            site.host.reload()
        page = browser.new_page()
        address = site.open(page)
        expect(page.locator("#link")).to_have_attribute("data-state", "live", timeout=60_000)
        page.evaluate(_OBSERVE)
        listener = Listener(site.database.admin)
        dice, accepted = random.Random(options.seed), {}
        for number in range(-5, options.messages):  # the first ones warm up
            message = inbox_mail.plain(number + 5, f"Arrival {number}").replace(b"\n", b"\r\n")
            with smtplib.SMTP("127.0.0.1", site.host.port, timeout=60) as client:
                client.sendmail("news@example.org", [address], message)
                accepted[f"Arrival {number}"] = time.time()
            time.sleep(dice.uniform(0.3, 0.6))  # nothing is asked of the browser meanwhile
        wait_until(lambda: len(page.evaluate("window.rows")) == len(accepted), "the last row")
        rows: dict[str, float] = page.evaluate("window.rows")
        committed = {
            row.subject: row.seconds
            for row in database.rows(
                "SELECT m.subject, extract(epoch FROM pg_xact_commit_timestamp(d.xmin))::float8 AS seconds"
                " FROM pipehandler.delivery d JOIN pipehandler.message m ON m.day = d.day AND m.id = d.message"
            )
        }
    names = [f"Arrival {number}" for number in range(options.messages)]
    print(
        f"{len(names)} messages, one at a time; {'cold' if options.cold else 'by the client and the resident service'}"
    )
    print(f"{'':58} {'median':>8} {'p95':>8} {'most':>8}")
    shown("SMTP 250 to the row in the DOM", [rows[name] - 1000 * accepted[name] for name in names])
    shown("commit to the row in the DOM", [rows[name] - 1000 * committed[name] for name in names])
    floor = {name: heard for name in names if (heard := listener.after(committed[name])) is not None}
    shown(
        "commit to a client that does nothing but LISTEN: the floor",
        [1000 * (floor[name] - committed[name]) for name in floor],
    )
    shown("from there to the row in the DOM", [rows[name] - 1000 * floor[name] for name in floor])
    return len(rows) == len(accepted)


def visit(database: Database, folder: Path, options: argparse.Namespace) -> bool:
    """Print the requests, octets, layout shifts and the server's time of a visit."""
    with Site.running(folder, database) as site, chromium() as browser:
        page = browser.new_page()
        address = site.open(page)
        site.store(address, *(inbox_mail.plain(number) for number in range(9)), inbox_mail.code())
        state = page.context.storage_state()
        context = browser.new_context(storage_state=state)
        fresh = context.new_page()
        wire = Wire(context.new_cdp_session(fresh))
        fresh.goto(f"{site.origin}/en/inbox")
        expect(fresh.locator(".row")).to_have_count(10)
        expect(fresh.locator("#link")).to_have_attribute("data-state", "live", timeout=60_000)
        first = sum(wire.octets.values())
        print(f"first inbox with ten mails: {len(wire.urls)} requests, {first} octets")
        fresh.locator(".row", has_text="verification").locator(".to").click()
        expect(fresh.frame_locator(".mail").get_by_text("481 729")).to_be_visible()
        print(f"a message after it: {sum(wire.octets.values()) - first} octets more")
        others = [url for url in wire.urls.values() if not url.startswith(site.origin)]
        print(f"requests to others: {len(others)}")
        fresh.goto(f"{site.origin}/en/inbox")
        expect(fresh.locator("#link")).to_have_attribute("data-state", "live", timeout=60_000)
        fresh.evaluate(_SHIFTS)
        fresh.wait_for_timeout(500)
        before = fresh.evaluate("window.shifted")
        for number in range(20, 30):
            site.send(inbox_mail.plain(number), address)
            expect(fresh.locator(".row", has_text=f"Message {number}")).to_be_visible(timeout=60_000)
        print(
            f"layout shift: {before} while it is loaded, {fresh.evaluate('window.shifted') - before} while ten arrive"
        )
        newest = str(fresh.locator(".row .to").first.get_attribute("href"))
        cookie = "; ".join(f"{each['name']}={each['value']}" for each in context.cookies())
        print(f"{'time of the server until the last octet':58} {'median':>8} {'p95':>8} {'most':>8}")
        for path in ("/en/", "/en/inbox", "/en/inbox?q=message", newest, f"{newest}/html", "/en/rows", "/en/about"):
            shown(f"    {path}", _times(site.web.port, path, cookie, options.requests))
    return not others


def _times(port: int, path: str, cookie: str, count: int) -> list[float]:
    connection, found = http.client.HTTPConnection("127.0.0.1", port, timeout=60), []
    for _ in range(count):
        began = time.perf_counter()
        connection.request("GET", path, headers={"Cookie": cookie})
        connection.getresponse().read()
        found.append(1000 * (time.perf_counter() - began))
    connection.close()
    return found[count // 10 :]
