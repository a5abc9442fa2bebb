"""Hostile mail through the finished page: names, subjects, headers, links, texts, files, in every place that shows them.

This is a sample; `script/attacks --part page` opens all of it.
"""

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from attacks.finished_page import FinishedPage
from attacks.hostile_mail import named
from attacks.internet import Internet
from attacks.payloads import sample
from attacks.rig import arguments_of, names_in
from harness import account
from harness.database import Database
from harness.inboxes import issue
from harness.postgresql import VERSION, PostgreSQL
from harness.service import wait_until
from harness.web import JSON, Visitor, WebServer, web_server
from playwright.sync_api import Browser, Page, expect

RLO = "\u202e"
PAYLOADS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</title></textarea></style><svg onload=alert(1)>",
    '" autofocus onfocus=alert(1) x="',
    "' onmouseover='alert(1)",
    "javascript:alert(1)",
    "{{ 7 * 7 }}{% raw %}${alert(1)}",
    "--><iframe srcdoc='<script>parent.alert(1)</script>'></iframe>",
    "<a href=javascript:alert(1) id=rows>x</a>",
    "<base href=//evil.example><meta http-equiv=refresh content='0;url=//evil.example'>",
    "=?utf-8?q?<img_src=3Dx_onerror=3Dalert(1)>?=",
    f"{RLO}<img src=x onerror=alert(1)>",
]


@pytest.fixture(scope="module")
def pages(servers: Callable[[int], PostgreSQL]) -> Iterator[tuple[WebServer, Database]]:
    """A page that gives out addresses, without a mail host."""
    with Database.fresh(servers(VERSION)) as database, account.folder("pipehandler-web-") as folder:
        issue(database)
        with web_server(folder, database) as web:
            yield web, database


class Hostile:
    """A browser in which every name leads to a listener."""

    def __init__(self, browser: Browser, internet: Internet, pages: tuple[WebServer, Database], log: Path) -> None:
        self.internet, self._pages, self._log = internet, pages, log
        self._browser = browser.browser_type.launch(
            executable_path="/usr/bin/chromium", args=[*arguments_of(internet), f"--log-net-log={log}"]
        )

    def page(self, policy: bool = True) -> "FinishedPage":
        """The page in it."""
        self._opened = FinishedPage.opened(self._browser, *self._pages, self.internet, policy)
        return self._opened.__enter__()

    def close(self) -> set[str]:
        """End it; returns the names that it looked up."""
        self._browser.close()
        return names_in(self._log)


@pytest.fixture
def hostile(browser: Browser, pages: tuple[WebServer, Database]) -> Iterator[Hostile]:
    """A browser of its own."""
    with account.folder("pipehandler-attacks-") as folder, Internet(folder, lambda _path: None) as internet:
        made = Hostile(browser, internet, pages, folder / "net.json")
        yield made
        made.close()


def test_the_rig_notices(hostile: Hostile) -> None:
    """A page that made HTML of a text would be noticed: by what runs, by its elements, and by its requests."""
    opened = hostile.page(policy=False)
    page, _ = opened.inbox()
    for payload in (*PAYLOADS[:5], f"<img src=https://{opened.host}/x>"):
        page.evaluate("(text) => document.querySelector('#main').insertAdjacentHTML('beforeend', text)", payload)
    # Before the page is left, which would cancel the request.
    wait_until(lambda: page.evaluate("true") and opened.internet.requests, "a request")
    page.goto("data:text/html,<script>alert(1)</script>")
    assert opened.seen.executed
    page, _ = opened.inbox()
    page.evaluate("document.querySelector('#main').insertAdjacentHTML('beforeend', '<b onclick=x>')")
    opened.check(page)
    assert [each.rpartition(": ")[2] for each in opened.seen.strange] == ["b ", "b onclick=x"]


@pytest.mark.parametrize("policy", [True, False], ids=["all layers", "escaping alone"])
def test_everywhere(hostile: Hostile, policy: bool) -> None:
    """In the list, live and loaded, in every view, in searches and errors: nothing runs, nothing is asked, nothing is left."""
    opened = hostile.page(policy)
    seen = opened.everything([*PAYLOADS, *sample(12, seed=3)])
    assert seen.executed == []
    assert seen.strange == []
    assert seen.navigated == []
    assert seen.telling == []
    assert seen.pages > 15
    assert seen.elements > 1000
    if policy:  # without it, a style of a mail asks for its images
        assert seen.unasked == []


def test_nothing_is_looked_up(hostile: Hostile) -> None:
    """Before a click, neither a request nor a lookup: the browser is not made to prepare for a link that is hovered."""
    opened = hostile.page()
    seen = opened.everything(PAYLOADS, clicks=False)
    assert seen.unasked == seen.clicked == []
    assert [name for name in hostile.close() if "leak-" in name or "example" in name] == []


def test_what_is_shown_is_what_was_sent(hostile: Hostile) -> None:
    """Each payload is on the page as text: in the list, the title, the notification, the link, the header and the source."""
    opened = hostile.page()
    page, address = opened.inbox()
    payload = PAYLOADS[1]
    (delivery,) = opened.arrivals(page, [named(payload, payload, payload)], address)
    assert page.locator(".row .subject").inner_text() == payload
    assert page.locator(".row .sender").inner_text() == payload
    expect(page.locator(".row input")).to_have_attribute("aria-label", f"Select “{payload}”")
    wait_until(lambda: page.evaluate("notices.length"), "a notification")
    assert page.evaluate("notices") == [[payload, payload]]
    page.goto(f"{opened.origin}/en/m/{delivery}")
    assert page.title().startswith(f"{payload} – ")
    assert page.get_by_role("heading", level=1).inner_text() == payload
    assert page.locator(".file-name").inner_text() == payload
    page.goto(f"{opened.origin}/en/m/{delivery}/headers")
    expect(page.locator(".fields td", has_text=payload).first).to_be_visible()
    page.goto(f"{opened.origin}/en/m/{delivery}/raw")
    expect(page.locator(".source")).to_contain_text("MIME-Version")


def _texts(page: Page) -> str:
    """Everything that a page shows or says in plain text."""
    return str(
        page.evaluate(
            "[document.title, ...(window.notices ?? []).flat(), ...[...document.querySelectorAll('*')].flatMap((e) =>"
            " [...e.attributes].map((a) => a.value)), document.body.textContent].join('\\n')"
        )
    )


def test_nothing_turns_its_direction(hostile: Hostile) -> None:
    """Names, subjects and names of files have no character that turns the direction of what follows, in any place."""
    opened = hostile.page()
    page, address = opened.inbox()
    (delivery,) = opened.arrivals(page, [named(f"Ann {RLO}gro", f"{RLO}\u2067turned", f"invoice{RLO}fdp.exe")], address)
    turning = set(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))
    assert not turning & set(_texts(page))
    wait_until(lambda: page.evaluate("notices.length"), "a notification")
    assert page.evaluate("notices") == [["Ann gro", "turned"]]
    for path in ("inbox", f"m/{delivery}", f"m/{delivery}/headers", f"m/{delivery}/raw", f"m/{delivery}/print"):
        page.goto(f"{opened.origin}/en/{path}")
        assert not turning & set(_texts(page)), path
    page.goto(f"{opened.origin}/en/m/{delivery}/headers")
    expect(page.locator(".fields td", has_text="\\u202e").first).to_be_visible()


def test_a_domain_that_imitates_another(hostile: Hostile) -> None:
    """An author whose domain mixes scripts is marked, and its domain shown in both forms."""
    opened = hostile.page()
    page, address = opened.inbox()
    raw = "From: Bank <service@b\u0430nk.example>\nSubject: x\nMessage-ID: <mixed@example.org>\n\nx\n"
    (delivery,) = opened.arrivals(page, [raw.encode()], address)
    page.goto(f"{opened.origin}/en/m/{delivery}")
    expect(page.locator(".envelope .author")).to_contain_text("(xn--bnk-6cd.example)")
    expect(page.locator(".envelope .mark-bad")).to_have_text("Its name imitates or mixes letters")


def test_a_name_that_is_another_site(hostile: Hostile) -> None:
    """A list and a notification show the address behind such a name, live and loaded; the message marks it."""
    opened = hostile.page()
    page, address = opened.inbox()
    raw = 'From: "service@paypal.com" <x@evil.example>\nSubject: x\nMessage-ID: <posing@example.org>\n\nx\n'
    blank = "From: =?utf-8?b?4oCL?= <y@evil.example>\nSubject: =?utf-8?b?4oCL?=\nMessage-ID: <blank@example.org>\n\nx\n"
    (posing, _) = opened.arrivals(page, [raw.encode(), blank.encode()], address)
    wait_until(lambda: page.evaluate("notices.length") == 2, "the notifications")
    assert [title for title, _ in page.evaluate("notices")] == ["x@evil.example", "y@evil.example"]
    for _ in range(2):
        assert page.locator(".row .sender").all_inner_texts() == ["y@evil.example", "x@evil.example"]
        assert page.locator(".row .initial").all_inner_texts() == ["Y", "X"]
        assert page.locator(".row .subject").all_inner_texts() == ["(no subject)", "x"]
        page.reload()
    page.goto(f"{opened.origin}/en/m/{posing}")
    expect(page.locator(".envelope .author")).to_have_text("service@paypal.com x@evil.example")
    expect(page.locator(".envelope .mark-bad")).to_have_text("The name and the address belong to different sites")


NAMES = [
    "../../etc/passwd",
    "/etc/cron.d/x",
    "C:\\Windows\\evil.exe",
    "a\r\nSet-Cookie: inbox=x",
    '"; filename=evil.html; x="',
    "<img src=x onerror=alert(1)>.html",
    f"invoice{RLO}fdp.exe",
    ".bashrc",
    "CON.txt",
    "x" * 300 + ".html",
    "",
    "same.txt",
    "SAME.txt",
    "%2e%2e%2fescape",
    "\u2028line",
]


def test_names_of_files_that_are_saved(hostile: Hostile, pages: tuple[WebServer, Database]) -> None:
    """A download, an archive and a saved message have harmless names; nothing that is saved is shown, whatever it is."""
    opened = hostile.page()
    page, address = opened.inbox()
    (delivery,) = opened.arrivals(page, [named("Ann", NAMES[3] + NAMES[4] + NAMES[0], *NAMES)], address)
    page.goto(f"{opened.origin}/en/m/{delivery}")
    names = []
    with page.expect_download() as download:
        page.locator(".attachments li a[download]").nth(3).click()
    names.append(download.value.suggested_filename)
    with page.expect_download() as download:
        page.get_by_role("link", name="All as a zip file").click()
    archive = zipfile.ZipFile(io.BytesIO(download.value.path().read_bytes()))
    names += [download.value.suggested_filename, *archive.namelist()]
    with page.expect_download() as download:
        page.get_by_role("link", name="Download the message").click()
    names.append(download.value.suggested_filename)
    assert len(archive.namelist()) == len(NAMES)
    assert len({name.casefold() for name in archive.namelist()}) == len(NAMES)
    assert page.url == f"{opened.origin}/en/m/{delivery}"
    visitor = Visitor(pages[0])
    visitor.cookies = {"__Host-inbox": opened.context.cookies()[0]["value"]}
    for path in (*(f"m/{delivery}/part/{part['ordinal']}" for part in visitor.get(f"m/{delivery}", JSON).json["attachments"]),
                 f"m/{delivery}.eml", f"m/{delivery}.zip"):  # fmt: skip
        headers = visitor.get(path).headers
        assert headers["content-type"] == "application/octet-stream"
        assert headers["content-disposition"].startswith("attachment; filename=")
        assert "set-cookie" not in headers
        names.append(unquote(headers["content-disposition"].partition("filename*=UTF-8''")[2]))
    for name in names:
        assert name.isprintable()
        assert not set(name) & set('/\\:*?"<>|'), name
        assert not name.startswith("."), name
        assert len(name.encode()) <= 210
        assert ".." not in name.split("_")[0]
