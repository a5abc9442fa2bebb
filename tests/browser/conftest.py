"""What the browser tests share: Chromium, an inbox page beside a mail host, and a browser's view of one inbox."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import account
from harness.database import Database
from harness.inbox_site import Site
from harness.missing import missing
from harness.postgresql import VERSION, PostgreSQL
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page, expect, sync_playwright

CHROMIUM = Path("/usr/bin/chromium")
expect.set_options(timeout=30_000)  # milliseconds; no test asserts time, and a loaded machine is not an error

_MAIL = re.compile(r"/m/\d+/(html|print)")
_POLICY = re.compile(r"Content Security Policy|TrustedHTML|TrustedScript|Permissions-Policy", re.IGNORECASE)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    if not CHROMIUM.exists():
        missing("Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"] if account.IS_ROOT else [])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def site(_postfix: None, servers: Callable[[int], PostgreSQL]) -> Iterator[Site]:
    """An inbox page that gives out addresses, and the mail host that stores for it. No test changes its settings."""
    with (
        Database.fresh(servers(VERSION)) as database,
        account.folder("pipehandler-web-") as folder,
        Site.running(folder, database) as site,
    ):
        yield site


@pytest.fixture
def new_context(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Make browsers of their own: no cookies, no storage. A script's error or a violation of a policy fails the test."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def said(message: ConsoleMessage) -> None:
        # Within the frame of a mail, and on its page for paper, the policy is there to be violated.
        if _POLICY.search(message.text) and not _MAIL.search(message.location["url"]):
            complaints.append(message.text)

    def failed(error: Error) -> None:
        complaints.append(str(error))

    def watch(page: Page) -> None:
        page.on("pageerror", failed)

    def made(**options: object) -> BrowserContext:
        usual = {"locale": "en-GB", "timezone_id": "Europe/Berlin", "viewport": {"width": 1280, "height": 900}}
        context = browser.new_context(**usual | options)  # type: ignore[arg-type]
        context.set_default_timeout(30_000)
        context.on("console", said)
        context.on("page", watch)
        contexts.append(context)
        return context

    yield made
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture
def context(new_context: Callable[..., BrowserContext]) -> BrowserContext:
    """A browser of its own."""
    return new_context()


@pytest.fixture
def page(context: BrowserContext) -> Page:
    """A tab."""
    return context.new_page()
