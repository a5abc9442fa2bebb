"""Opens hostile mail in Chromium behind chosen layers, touches everything, and reports what ran and what was requested.

Each mail is a response of its own within a frame, as in the inbox page. Many are in one page. A hook that Chromium runs
before any script of a document reports every dialog; a mail whose script runs therefore names itself. Every host but
our own leads to a server that records the request.
"""

import asyncio
import html as markup
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from harness import account
from playwright.async_api import BrowserContext, ConsoleMessage, Error, Page, async_playwright

from pipehandler.web.headers import SANDBOX, response_headers
from pipehandler.web.safe_html import document
from pipehandler.web.sanitise import sanitise

from .internet import Answer, Internet, Request

CHROMIUM = Path("/usr/bin/chromium")
LAYERS = ("sanitiser", "sandbox", "header")
_AT_ONCE = 40  # mails in one page
_TIME = 60_000  # ms for one page
_STANDS_STILL = 120.0  # s for touching all of one page, and for closing it: some calls of Playwright have no limit

HOOK = """(() => {
  const report = () => {
    const places = [];
    try { for (let w = window; ; w = w.parent) { places.push(w.location.href); if (w === w.parent) break; } } catch (e) {}
    console.debug('HOSTILE SCRIPT ' + places.join(' '));
  };
  for (const name of ['alert', 'confirm', 'prompt', 'print']) window[name] = report;
})()"""
_TOUCH = """() => [...document.querySelectorAll('*')].slice(0, 40).map(e => {
  const r = e.getBoundingClientRect();
  return [e.tagName, r.left + Math.min(r.width / 2, 20), r.top + Math.min(r.height / 2, 10), r.width * r.height];
})"""


def arguments_of(internet: Internet) -> list[str]:
    """Return the arguments with which Chromium finds `internet` under every name but 127.0.0.1."""
    return [
        f"--host-resolver-rules=MAP * 127.0.0.1:{internet.port}, EXCLUDE 127.0.0.1, EXCLUDE *.localhost",
        "--ignore-certificate-errors",
        "--disable-popup-blocking",
        *(["--no-sandbox"] if account.IS_ROOT else []),
    ]


@dataclass
class Findings:
    """executed: numbers of mails whose script ran. requests: those to other hosts. navigated: pages that were left, or stood
    still."""

    executed: set[int] = field(default_factory=set)
    requests: list[Request] = field(default_factory=list)
    navigated: int = 0
    elements: int = 0  # that were touched


class Rig:
    """A browser and the servers around it; `opened` makes one."""

    def __init__(self, context: BrowserContext, internet: Internet) -> None:
        self._context, self.internet = context, internet
        self._mails: Sequence[str] = ()
        self._found = Findings()
        context.on("console", self._heard)
        context.set_default_timeout(_TIME)

    @classmethod
    @asynccontextmanager
    async def opened(cls, folder: Path, *arguments: str) -> AsyncIterator["Rig"]:
        """Start Chromium, with more of its arguments, and the internet."""
        rig: Rig | None = None

        def pages(path: str) -> Answer | None:
            return rig.page(path) if rig else None

        with Internet(folder, pages) as internet:
            async with async_playwright() as playwright:
                browser = await playwright.chromium.launch(
                    executable_path=CHROMIUM, args=[*arguments_of(internet), *arguments]
                )
                context = await browser.new_context(viewport={"width": 1280, "height": 1000})
                await context.add_init_script(HOOK)
                await context.add_cookies(
                    [{"name": "inbox", "value": "key", "url": f"http://127.0.0.1:{internet.port}", "sameSite": "Lax"}]
                )
                rig = cls(context, internet)
                yield rig
                await browser.close()

    async def open(
        self, mails: Sequence[str], layers: Sequence[str], images: bool = False, touch: bool = True
    ) -> Findings:
        """Open all `mails` behind these layers, with remote images or without, and touch every element of them."""
        self._mails = [self._sanitised(mail, images) for mail in mails] if "sanitiser" in layers else mails
        self._found = Findings()
        self.internet.requests.clear()
        for first in range(0, len(mails), _AT_ONCE):
            await self._open_page(range(first, min(first + _AT_ONCE, len(mails))), layers, images, touch)
        self._found.requests = list(self.internet.requests)
        return self._found

    def _sanitised(self, mail: str, images: bool) -> str:
        safe = sanitise(mail, {})
        return document(safe.with_images if images else safe.blocked)

    async def _open_page(self, numbers: range, layers: Sequence[str], images: bool, touch: bool) -> None:
        url = f"http://127.0.0.1:{self.internet.port}/page?first={numbers.start}&last={numbers.stop}&layers={','.join(layers)}&images={int(images)}"
        page = await self._context.new_page()
        try:
            await page.goto(url, timeout=_TIME)
            if touch:
                await asyncio.wait_for(self._touch(page, url), _STANDS_STILL)
            await asyncio.sleep(0.2)  # what a script or an animation has just begun
            self._found.navigated += page.url != url
        except (Error, TimeoutError):
            self._found.navigated += 1  # a mail has taken the page away, or a page stands still
        finally:
            for each in self._context.pages:
                if each is not page or not each.is_closed():
                    with suppress(TimeoutError):
                        await asyncio.wait_for(each.close(), _STANDS_STILL)

    async def _touch(self, page: Page, url: str) -> None:
        """Hover, focus and click every element of every mail, with the mouse, and follow links with the keyboard."""
        for frame in page.main_frame.child_frames:
            if page.url != url:
                return
            try:
                tile = await (await frame.frame_element()).bounding_box()
                elements = await asyncio.wait_for(frame.evaluate(_TOUCH), 10) if tile else []
            except (Error, TimeoutError):
                continue
            for tag, x, y, area in elements:
                if (
                    tile
                    and area
                    and tag not in ("HTML", "HEAD", "BODY")
                    and 0 <= x < tile["width"]
                    and 0 <= y < tile["height"]
                ):
                    await page.mouse.move(tile["x"] + x, tile["y"] + y)
                    await page.mouse.click(tile["x"] + x, tile["y"] + y)
                    self._found.elements += 1
            for each in self._context.pages:
                if each is not page:
                    await each.close()

    def page(self, path: str) -> Answer | None:
        """Return the response of our own origin: a page of frames, or one mail."""
        parts = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        if parts.path == "/page":
            sandbox = f' sandbox="{SANDBOX}"' if "sandbox" in query["layers"] else ""
            more = f"layers={query['layers']}&images={query['images']}"
            frames = "".join(
                f'<iframe{sandbox} width=145 height=110 src="/mail?n={number}&{markup.escape(more)}"></iframe>'
                for number in range(int(query["first"]), int(query["last"]))
            )
            return {"Content-Type": "text/html; charset=utf-8"}, f"<!doctype html><title>mails</title>{frames}".encode()
        if parts.path == "/mail" and "n" in query:
            mail = self._mails[int(query["n"])].encode("utf-8", "replace")
            if "header" in query["layers"]:
                return response_headers("mail_with_images" if query["images"] == "1" else "mail"), mail
            return {"Content-Type": "text/html; charset=utf-8"}, mail
        return None

    def _heard(self, message: ConsoleMessage) -> None:
        if message.text.startswith("HOSTILE SCRIPT"):
            for place in message.text.split():
                query = parse_qs(urlsplit(place).query)
                if "n" in query:
                    self._found.executed.add(int(query["n"][0]))
                    return
            self._found.executed.add(-1)  # somewhere else: in a window that a mail has opened


def names_in(netlog: Path) -> set[str]:
    """Return the hosts that Chromium looked up, by its log."""
    text = netlog.read_text("utf-8", "replace")
    try:
        log = json.loads(text)
    except ValueError:  # it was not closed
        log = json.loads(text.rstrip().rstrip(",") + "]}")
    kinds = {
        number for name, number in log["constants"]["logEventTypes"].items() if "HOST_RESOLVER" in name or "DNS" in name
    }
    return {
        str(value)
        for event in log["events"]
        if event["type"] in kinds
        for name, value in event.get("params", {}).items()
        if name in ("host", "hostname", "dns_query_type", "host_name")
    }
