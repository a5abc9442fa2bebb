"""Hostile mail in Chromium: each layer alone stops every script, and the header alone stops every request.

This is a sample; `script/attacks` opens all of it.
"""

from html.parser import HTMLParser
from pathlib import Path

import pytest
from attacks.leaks import leaks
from attacks.payloads import collected, payloads, sample
from attacks.rig import CHROMIUM, LAYERS, Findings, Rig, names_in
from harness import account
from harness.loop import run_in_loop
from harness.missing import missing

from pipehandler.web.sanitise import sanitise

# These run without being touched, whatever the machine: without them, a test that finds nothing would prove nothing.
RUNNING = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<details open ontoggle=alert(1)>x",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    "<script src=https://scripts.example/x.js></script>",
    "<math><mtext><script>alert(1)</script></mtext></math>",
    "<body onload=alert(1)>",
)
CLICKED = "<a href=javascript:alert(1) style='display:block;height:50px'>click</a>"


@pytest.fixture(scope="module", autouse=True)
def _chromium() -> None:
    if not CHROMIUM.exists():
        missing("Chromium")


def opened(mails: list[str], *layers: str, images: bool = False, touch: bool = True) -> Findings:
    """What the mails did behind these layers."""

    async def work() -> Findings:
        with account.folder("pipehandler-attacks-") as folder:
            async with Rig.opened(Path(folder)) as rig:
                return await rig.open(mails, layers, images=images, touch=touch)

    return run_in_loop(work())


def leaking(*layers: str, images: bool = False, every: int = 14) -> tuple[Findings, set[str]]:
    """What mails that try to make a request did, untouched, and the names that the browser looked up for them."""

    async def work() -> tuple[Findings, set[str]]:
        with account.folder("pipehandler-attacks-") as folder:
            log = Path(folder) / "net.json"
            async with Rig.opened(Path(folder), f"--log-net-log={log}") as rig:
                mails = [mail for _, mail in leaks(rig.internet.port)[::every]]
                found = await rig.open(mails, layers, images=images, touch=False)
            return found, {name for name in names_in(log) if "leak-" in name}

    return run_in_loop(work())


def test_payloads() -> None:
    """Enough of them: from the lists, and our own."""
    assert len(collected()) > 2200
    assert len(payloads()) >= 9000
    assert len(leaks(80)) >= 1000


def test_they_run_without_layers() -> None:
    """The rig notices scripts, also those that run when a link is clicked."""
    found = opened([*RUNNING, CLICKED])
    assert found.executed >= set(range(len(RUNNING) + 1))


@pytest.mark.parametrize("layers", [("sanitiser",), ("sandbox",), ("header",), LAYERS], ids="+".join)
def test_no_script_runs(layers: tuple[str, ...]) -> None:
    """Behind each layer alone nothing runs, although every element is hovered and clicked; nor is the page left."""
    mails = [*RUNNING, CLICKED, *sample(71)]
    found = opened(mails, *layers)
    assert [mails[number] for number in sorted(found.executed)] == []
    assert found.navigated == 0
    assert found.elements > 10


def test_requests_without_layers() -> None:
    """The rig notices requests and lookups."""
    found, names = leaking(every=27)
    assert len({request.host for request in found.requests}) > 10
    assert len(names) > 10


@pytest.mark.parametrize("layers", [("header",), LAYERS], ids="+".join)
def test_no_request_leaves(layers: tuple[str, ...]) -> None:
    """Before a click, the header alone stops every request, and no name is looked up."""
    found, names = leaking(*layers)
    assert found.requests == []
    assert names == set()
    assert found.navigated == 0


def test_shown_images() -> None:
    """After a click on "show images": images over https alone, and nobody learns where they are shown."""
    found, _ = leaking(*LAYERS, images=True, every=14)
    assert found.requests
    assert {(request.secure, request.destination) for request in found.requests} == {(True, "image")}
    assert not [request.headers for request in found.requests if {"Referer", "Cookie"} & request.headers.keys()]


def test_a_link_that_is_clicked() -> None:
    """It opens a window that learns nothing of the inbox; a link within the mail opens none."""
    style = "style='display:block;height:50px'"
    found = opened(
        [f"<a {style} href=https://elsewhere.example/page>x</a>", f"<a {style} href=#x>x</a><p id=x>y"], *LAYERS
    )
    [request] = found.requests
    assert (request.host, request.path, request.destination) == ("elsewhere.example", "/page", "document")
    assert not {"Referer", "Cookie"} & request.headers.keys()
    assert found.navigated == 0


class _Left(HTMLParser):
    """What may not be left in sanitised HTML."""

    forbidden = frozenset(
        [
            "script",
            "form",
            "svg",
            "math",
            "link",
            "meta",
            "base",
            "iframe",
            "frame",
            "object",
            "embed",
            "input",
            "button",
            "template",
            "noscript",
            "audio",
            "video",
            "title",
        ]
    )

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what may not be there."""
        for name, value in attrs:
            target = (value or "").lower()
            if (
                name.startswith("on")
                or ":" in name
                or name in ("srcset", "ping", "srcdoc", "action", "formaction", "poster")
            ):
                self.wrong.append(f"{tag} {name}")
            if name == "href" and not target.startswith(("http:", "https:", "mailto:", "tel:", "#")):
                self.wrong.append(f"{tag} {name}={value}")
            if name in ("src", "background") and not target.startswith(("https://", "data:image/")):
                self.wrong.append(f"{tag} {name}={value}")
        if tag in self.forbidden:
            self.wrong.append(tag)


def test_what_is_left() -> None:
    """Of all payloads: no handler, script, form, SVG, link, meta or base; and targets of the allowed kinds alone."""
    for payload in (*payloads(), *(html for _, html in leaks(80))):
        left = _Left()
        left.feed(sanitise(payload, {}).with_images)
        left.close()
        assert not left.wrong, payload
