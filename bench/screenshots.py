"""The pictures of the inbox page in docs/images, made again from fixed content, behind `script/inbox-page screenshots`.

The same mail, the same times, the same clock: a picture changes only if the page does.
"""

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from harness import account, inbox_mail
from harness.database import Database
from harness.inbox_site import Site
from harness.postgresql import FAST, VERSION, PostgreSQL
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

IMAGES = Path(__file__).parent.parent / "docs" / "images"
NOW = datetime(2026, 11, 27, 9, 41, tzinfo=UTC)
MAIL = (
    inbox_mail.notes,
    inbox_mail.korean,
    inbox_mail.files,
    inbox_mail.arabic,
    inbox_mail.newsletter,
    inbox_mail.code,
    inbox_mail.hostile,
)
"""The oldest first, three minutes apart."""
WIDE = {"viewport": {"width": 1280, "height": 860}, "device_scale_factor": 0.5625}
"""720 pixels in the end, as wide as the text of the documentation."""
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 0.82, "is_mobile": True, "has_touch": True}
LEFT = timedelta(minutes=9, seconds=42)
"""What the clock of the inbox shows."""
_SAME_GRACE = "document.querySelectorAll('#grace time').forEach((each) => (each.textContent = '28 Nov 2026, 09:41'))"


class Studio:
    """A page with one inbox, and browsers for which it is always NOW. only: the pictures to take; empty: all."""

    def __init__(self, site: Site, browser: Browser, folder: Path, only: list[str]) -> None:
        self._site, self._browser, self._folder, self._only = site, browser, folder, only
        self._state: object = None
        self.address = ""

    @contextmanager
    def tab(self, look: dict[str, object], scheme: str = "light", visitor: bool = True) -> Iterator[Page]:
        """A tab. visitor: with the key of the inbox."""
        state = {"storage_state": self._state} if visitor and self._state else {}
        settings: dict[str, object] = {
            "locale": "en-GB",
            "timezone_id": "UTC",
            "reduced_motion": "reduce",
            "color_scheme": scheme,
        }
        options: Any = settings | look | state
        context: BrowserContext = self._browser.new_context(**options)
        page = context.new_page()
        page.clock.set_fixed_time(NOW)
        yield page
        if not self._state:
            self._state = context.storage_state()
        context.close()

    def take(self, page: Page, name: str, path: str = "", seen: str = "main", whole: bool = False) -> None:
        """Show a path, and save what is seen."""
        self._site.database.execute(
            "UPDATE pipehandler.address SET expires_at = clock_timestamp() + %s WHERE expires_at > now()", LEFT
        )
        if path:
            page.goto(f"{self._site.origin}{path}")
        page.locator(seen).first.wait_for()
        page.evaluate(_SAME_GRACE)
        if page.locator("span#link").count():
            page.locator("span#link[data-state=live]").wait_for(state="attached")
        if self._only and name not in self._only:
            return
        file = self._folder / f"inbox-page-{name}.png"
        page.screenshot(path=file, full_page=whole, animations="disabled")
        subprocess.run(["pngquant", "--force", "--speed", "1", "--strip", "--output", file, "64", file], check=True)
        print(f"{file.name}: {file.stat().st_size // 1000} kB", flush=True)

    def open(self, page: Page) -> None:
        """Get the address of the pictures."""
        self.address = self._site.open(page, "anna")

    def fill(self) -> None:
        """Deliver MAIL, and date it."""
        self._site.store(self.address, *(make(number) for number, make in enumerate(MAIL, 1)))
        self._site.database.execute(
            "UPDATE pipehandler.delivery d SET received_at = %s - (%s - o.place) * interval '3 minutes'"
            " FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM pipehandler.delivery) AS o"
            " WHERE o.id = d.id",
            NOW,
            len(MAIL),
        )

    def path_of(self, make: Callable[[int], bytes], lang: str = "en") -> str:
        """The path of a message of MAIL."""
        numbers = self._site.database.rows("SELECT id FROM pipehandler.delivery ORDER BY id")
        return f"/{lang}/m/{numbers[MAIL.index(make)][0]}"


def main() -> None:
    """Take the pictures whose names are given, or all."""
    folder, only = IMAGES, sys.argv[1:]
    if only and only[0].startswith("--to="):
        folder = Path(only.pop(0).removeprefix("--to="))
    with ExitStack() as stack:
        place = stack.enter_context(account.folder("pipehandler-pictures-"))
        server = PostgreSQL(place / "pg", VERSION, FAST).start()
        stack.callback(server.stop)
        database = stack.enter_context(Database.fresh(server))
        (place / "site").mkdir(mode=0o755)
        site = stack.enter_context(Site.running(place / "site", database))
        playwright = stack.enter_context(sync_playwright())
        arguments = ["--no-sandbox"] if account.IS_ROOT else []
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=arguments)
        _all_pictures(Studio(site, browser, folder, only), database)
        browser.close()


def _all_pictures(studio: Studio, database: Database) -> None:
    with studio.tab(WIDE) as page:
        studio.take(page, "home", "/en/", ".take")
        studio.open(page)
        studio.take(page, "empty", "/en/inbox", "#empty")
    studio.fill()
    with studio.tab(WIDE) as page:
        studio.take(page, "message", studio.path_of(inbox_mail.newsletter), ".blocked")
        studio.take(page, "images", f"{studio.path_of(inbox_mail.newsletter)}?images=1", ".blocked")
        studio.take(page, "text", studio.path_of(inbox_mail.notes), ".text")
        studio.take(page, "files", studio.path_of(inbox_mail.files), ".attachments")
        studio.take(page, "list", "/en/inbox", ".row")
        studio.take(page, "hostile", studio.path_of(inbox_mail.hostile), ".links", whole=True)
        studio.take(page, "key", "/en/key", ".qr")
        studio.take(page, "korean", studio.path_of(inbox_mail.korean, "ko"), ".mail")
        studio.take(page, "arabic", studio.path_of(inbox_mail.arabic, "ar"), ".text")
    with studio.tab(WIDE, "dark") as page:
        studio.take(page, "dark", studio.path_of(inbox_mail.newsletter), ".blocked")
    with studio.tab(PHONE) as page:
        studio.take(page, "phone", studio.path_of(inbox_mail.code), ".found-code")
        studio.take(page, "phone-list", "/en/inbox", ".row")
    database.execute("UPDATE pipehandler.web_inbox SET max_messages = %s", len(MAIL))
    with studio.tab(WIDE) as page:
        studio.take(page, "full", "/en/inbox", ".list > .problem")
    database.execute("UPDATE pipehandler.address SET expires_at = clock_timestamp()")
    with studio.tab(WIDE) as page:
        studio.take(page, "expired", "/en/inbox", "#ended")


main()
