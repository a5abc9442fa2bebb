"""The finished page in Chromium, with hostile mail in its inbox: what ran, what was requested, and what is on a page beside
what its templates have there.

A page that escapes a text wrongly would still run nothing, because of its policy. So the elements are compared as well, and
everything can be opened with the policies switched off, where escaping stands alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

from harness.database import Database
from harness.inbox_mail import TRUSTED
from harness.submission import submission
from harness.web import WebServer
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Error, Page, expect

from pipehandler.parse.message import parse
from pipehandler.store.message_store import MessageStore

from .hostile_mail import GROUP, everywhere, short
from .internet import Internet, Request
from .rig import HOOK

VIEWS = ("", "?view=text", "/headers", "/raw", "/print")
"""What a message is shown as."""

# What the templates have. Whatever else is on a page came with a mail.
_ELEMENTS = (
    "html head meta title link script body a header svg use div form input button nav main p footer section h1 h2 h3 bdi span"
    " time br wbr ol ul li label template table caption tbody tr th td pre article details summary dl dt dd abbr fieldset legend"
    " iframe img output strong code kbd select option"
)
# What sanitised HTML may not have.
_FORBIDDEN = (
    "script form svg math link base iframe frame frameset object embed applet input button textarea select template noscript"
    " audio video source portal"
)
_STRANGE = """([templates, banned]) => {
  const [elements, forbidden] = [templates.split(" "), banned.split(" ")];
  const found = [];
  const note = (e, what) => found.push(`${e.localName} ${what}`.slice(0, 300));
  const mail = !document.querySelector("body > main#main");
  const ours = (url) => url === "" || url.startsWith(location.origin + "/");
  for (const e of document.querySelectorAll("*")) {
    const tag = e.localName;
    if (mail ? forbidden.includes(tag) : !elements.includes(tag)) note(e, "");
    if (tag === "meta" && e.httpEquiv) note(e, e.httpEquiv);
    for (const { name, value } of e.attributes) {
      if (/^on/i.test(name) || ["srcset", "srcdoc", "ping", "formaction", "poster", "background"].includes(name)
          || (!mail && name === "style")) note(e, `${name}=${value}`);
    }
    if ("href" in e && typeof e.href === "string" && e.hasAttribute("href")) {
      const beyond = mail ? !e.hash || e.target : e.closest(".links, .found-code") && e.target === "_blank";
      const allowed = beyond ? ["http:", "https:", "mailto:", "tel:"].includes(e.protocol) : mail || ours(e.href)
        || (tag === "link" && e.href.startsWith("data:image/svg+xml,%3Csvg xmlns="));
      if (!allowed) note(e, e.href);
    }
    if (tag === "script" && !e.src.startsWith(location.origin + "/static/")) note(e, e.src);
    if (tag === "iframe" && (!ours(e.src) || e.getAttribute("sandbox") !== "allow-popups allow-popups-to-escape-sandbox")) note(e, e.src);
    if (tag === "form" && !ours(e.action)) note(e, e.action);
    if (tag === "img" && !e.src.startsWith("data:image/") && !(ours(e.src) && !mail) && e.hasAttribute("src")) note(e, e.src);
  }
  return found;
}"""
# Everything is focused and hovered; of the links of a mail, one to each place is clicked.
_TOUCH = """(clicks) => {
  const all = [...document.querySelectorAll("*")];
  for (const e of all) {
    e.focus?.();
    for (const type of ["pointerover", "mouseover", "mouseenter", "mousemove", "mousedown", "mouseup"])
      e.dispatchEvent(new MouseEvent(type, { bubbles: true, cancelable: true, view: window }));
  }
  if (!clicks) return all.length;
  const kinds = new Set(); // of its links, one to each place
  for (const e of document.querySelectorAll("a[href]:not([download]), area[href]")) {
    if (document.querySelector("body > main#main") && !e.closest("#message :is(.envelope, .links, .found-code, .text, .fields)")) continue;
    const kind = e.protocol + e.host;
    if (kinds.has(kind)) continue;
    kinds.add(kind);
    e.click ? e.click() : e.dispatchEvent(new MouseEvent("click", { bubbles: true, cancelable: true }));
  }
  return all.length;
}"""
_NOTICES = """(() => {
  window.notices = [];
  window.Notification = class {
    static permission = "granted";
    static requestPermission = async () => "granted";
    constructor(title, { body }) { window.notices.push([title, body]); }
    close() {}
  };
  Object.defineProperty(document, "hidden", { get: () => window.away ?? false });
})()"""


@dataclass
class Seen:
    """executed: where a script ran that is not the page's. strange: what is on a page beside its own. unasked: requests before a
    click. clicked: those afterwards. navigated: pages that were left."""

    executed: list[str] = field(default_factory=list)
    strange: list[str] = field(default_factory=list)
    unasked: list[Request] = field(default_factory=list)
    clicked: list[Request] = field(default_factory=list)
    navigated: list[str] = field(default_factory=list)
    pages: int = 0
    elements: int = 0

    @property
    def telling(self) -> list[Request]:
        """The requests after a click that say where they come from, or are not for a page."""
        return [
            each
            for each in self.clicked
            if not _is_navigation(each) or {"Referer", "Cookie", "Origin"} & each.headers.keys()
        ]


def _is_navigation(request: Request) -> bool:
    """Whether a window has opened a page; over http Chromium says so by another field. Frames are found by _STRANGE."""
    return request.destination == "document" or (not request.secure and "Upgrade-Insecure-Requests" in request.headers)


class FinishedPage:
    """An inbox page, and a browser in front of it; `opened` makes one. `seen` is what was found so far."""

    def __init__(self, context: BrowserContext, web: WebServer, database: Database, internet: Internet) -> None:
        self.context, self.internet = context, internet
        self.origin = f"http://127.0.0.1:{web.port}"
        self.host = f"leak-link.localhost:{internet.port}"
        self.seen = Seen()
        self._database = database
        context.on("console", self._heard)
        context.set_default_timeout(120_000)
        context.add_init_script(HOOK)
        context.add_init_script(_NOTICES)

    @classmethod
    @contextmanager
    def opened(
        cls, browser: Browser, web: WebServer, database: Database, internet: Internet, policy: bool = True
    ) -> Iterator["FinishedPage"]:
        """Open it in `browser`, which was started with rig.arguments. policy: whether the browser heeds the policies."""
        context = browser.new_context(bypass_csp=not policy, viewport={"width": 1280, "height": 1000}, locale="en-GB")
        yield cls(context, web, database, internet)
        context.close()

    def inbox(self) -> tuple[Page, str]:
        """Get an address; returns a tab that shows its inbox, with notifications on, and the address."""
        page = self.context.new_page()
        page.goto(f"{self.origin}/en/")
        page.locator(".take button").click()
        address = page.locator("#address").inner_text()
        page.evaluate("localStorage.setItem('notify', 'true')")
        page.locator("#link[data-state=live]").wait_for()
        return page, address

    def store(self, address: str, mails: Sequence[bytes]) -> list[int]:
        """Store messages in this order, and have the page notice; returns their deliveries."""
        deliveries: list[int] = []
        with closing(MessageStore(self._database.conninfo)) as store:
            for mail in mails:
                parsed = parse(mail, trusted_authserv_ids=(TRUSTED,))
                deliveries += [
                    each.delivery for each in store.ingest(submission(mail, address, parsed=parsed)) if each.delivery
                ]
            store.announce()
        return deliveries

    def look(self, page: Page, path: str, clicks: bool = True) -> None:
        """Open a path, look for what should not be there, and touch everything."""
        before = len(self.internet.requests)
        url = f"{self.origin}/en/{path}"
        try:
            page.goto(url)
        except Error as error:
            self.seen.navigated.append(f"{path}: {error}")
            return
        self.check(page)
        self._touch(page, before, clicks)
        if _place(page.url) != _place(url):
            self.seen.navigated.append(f"{path}: {page.url}")

    def check(self, page: Page) -> None:
        """Look at the elements of a page and of its mail."""
        for frame in page.frames:
            found = frame.evaluate(_STRANGE, [_ELEMENTS, _FORBIDDEN])
            self.seen.strange += [f"{frame.url}: {each}" for each in found]
        self.seen.pages += 1

    def _touch(self, page: Page, before: int, clicks: bool) -> None:
        for frame in page.frames:
            self.seen.elements += frame.evaluate(_TOUCH, False)
        asked = len(self.internet.requests)
        # The page of a link that was clicked before may come as late as now.
        late = [each for each in self.internet.requests[before:asked] if _is_navigation(each)]
        self.seen.unasked += [each for each in self.internet.requests[before:asked] if each not in late]
        self.seen.clicked += late
        if not clicks:
            return
        for frame in page.frames:
            frame.evaluate(_TOUCH, True)
        for each in self.context.pages[1:]:
            if each is not page:
                each.close()
        self.seen.clicked += self.internet.requests[asked:]

    def arrivals(self, page: Page, mails: Sequence[bytes], address: str) -> list[int]:
        """Store messages while the tab shows the list and is not looked at, and wait for their rows."""
        page.evaluate("window.away = true")
        shown = page.locator(".row").count()
        deliveries = self.store(address, mails)
        expect(page.locator(".row")).to_have_count(shown + len(mails), timeout=120_000)
        self.check(page)
        return deliveries

    def everything(self, payloads: Sequence[str], clicks: bool = True) -> Seen:
        """Have each payload arrive, be listed, searched for, and shown in every view with all that it may be in."""
        first, address = self.inbox()
        mails = [short(payload, number) for number, payload in enumerate(payloads)]
        groups = [payloads[start : start + GROUP] for start in range(0, len(payloads), GROUP)]
        whole = [everywhere(group, number, self.host) for number, group in enumerate(groups)]
        self.arrivals(first, mails, address)
        deliveries = self.arrivals(first, whole, address)
        page = self.context.new_page()
        path: str | None = "inbox"
        while path:
            self.look(page, path, clicks=False)
            older = page.locator(".pages a[href*=before]")
            path = str(older.get_attribute("href")).removeprefix("/en/") if older.count() else None
        for delivery, group in zip(deliveries, groups, strict=True):
            for view in VIEWS:
                self.look(page, f"m/{delivery}{view}", clicks and not view)
            together = " ".join(group)
            asked = {"q": together[:400], "notice": group[0], "view": group[0], "before": ""}
            self.look(page, f"inbox?{urlencode(asked)}", clicks=False)
            self.look(page, f"nothing/{quote(together[:400], safe='')}", clicks=False)
        page.close()
        first.close()
        return self.seen

    def _heard(self, message: ConsoleMessage) -> None:
        if message.text.startswith("HOSTILE SCRIPT"):
            self.seen.executed.append(message.text)


def _place(url: str) -> tuple[object, ...]:
    """What a URL names, without the notice, which the page takes out of it."""
    parts = urlsplit(url)
    return *parts[:3], *(pair for pair in parse_qsl(parts.query, keep_blank_values=True) if pair[0] != "notice")
