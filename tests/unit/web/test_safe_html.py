"""The sanitiser: what is left of a mail, its images, and what happens at its limits."""

import asyncio
import base64
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from harness.images import png
from harness.loop import run_in_loop

from pipehandler.web.codes import OneTimeCode
from pipehandler.web.images import InlineImage
from pipehandler.web.safe_html import Busy, SafeHtml, Sanitiser, TooCostly, document
from pipehandler.web.sanitise import MAX_HTML, Sanitised, content_ids, sanitise

NO_IMAGES: dict[str, bytes] = {}


class Elements(HTMLParser):
    """Every element of some HTML, with its attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep it."""
        self.found.append((tag, dict(attrs)))


def elements(html: str) -> list[tuple[str, dict[str, str | None]]]:
    """The elements that are left of `html`, with remote images."""
    return Elements(sanitise(html, NO_IMAGES).with_images).found


def test_a_newsletter() -> None:
    """What formats a mail stays: tables, styles, classes, colours, and the looks of its body."""
    html = (
        "<!DOCTYPE html><html><head><title>News</title><style>.a>b{color:red}</style></head>"
        "<body bgcolor='#eeeeee' style='margin:0' dir=rtl><table width=600 cellpadding=0 role=presentation><tr>"
        "<td class=a style='padding:4px' align=center valign=top bgcolor=white><b>Hello</b></td></tr></table></body></html>"
    )
    assert sanitise(html, NO_IMAGES).blocked == (
        '<div style="background-color:#eeeeee"><div style="margin:0" dir="rtl"><style>.a>b{color:red}</style>'
        '<table width="600" cellpadding="0" role="presentation"><tbody><tr>'
        '<td class="a" style="padding:4px" align="center" valign="top" bgcolor="white"><b>Hello</b></td></tr></tbody></table>'
        "</div></div>"
    )


@pytest.mark.parametrize(
    ("href", "left"),
    [
        ("https://a.example/?a=1&amp;b=2", "https://a.example/?a=1&b=2"),
        ("http://a.example", "http://a.example"),
        ("HTTPS://A.example", "HTTPS://A.example"),
        (" \n ht\ntps://a.example", "https://a.example"),
        ("//a.example/x", "https://a.example/x"),
        ("\\\\a.example/x", "https:\\\\a.example/x"),
        ("mailto:a@b.example?subject=x", "mailto:a@b.example?subject=x"),
        ("tel:+15550199", "tel:+15550199"),
        ("#top", "#top"),
        ("javascript:alert(1)", None),
        ("java\tscript:alert(1)", None),
        ("&#106;avascript:alert(1)", None),
        ("\x01javascript:alert(1)", None),
        ("vbscript:x", None),
        ("data:text/html,<script>alert(1)</script>", None),
        ("blob:https://a.example/1", None),
        ("file:///etc/passwd", None),
        ("cid:a@b", None),
        ("/relative", None),
        ("relative:8080", None),
        ("?query", None),
        ("", None),
        ("intent://x#Intent;end", None),
        ("ms-word:ofe|u|https://a.example", None),
        ("about:blank", None),
        ("https:", None),
    ],
)
def test_targets_of_links(href: str, left: str | None) -> None:
    """Links to http, https, mailto, tel and within the mail; every other one loses its target."""
    [(tag, attributes)] = elements(f'<a href="{href}" ping="https://p.example" onclick=x target=_top download>x</a>')
    assert tag == "a"
    assert attributes.get("href") == left
    within = left is not None and left.startswith("#")
    assert attributes.get("target") == (None if within else "_blank")
    assert attributes["rel"] == "noopener noreferrer nofollow"
    assert set(attributes) <= {"href", "target", "rel"}


def test_links_within_and_beyond() -> None:
    """A link within the mail stays in its frame, whatever stands before and after it."""
    html = '<a href="#a">1</a><a href="https://a.example">2</a><a name="x">3</a><a target=x href="#b">4</a><a>5</a>'
    assert [attributes.get("target") for _, attributes in elements(html)] == [None, "_blank", "_blank", None, "_blank"]


DANGEROUS = [
    "script",
    "iframe",
    "frame",
    "frameset",
    "object",
    "embed",
    "applet",
    "link",
    "meta",
    "base",
    "form",
    "input",
    "button",
    "textarea",
    "select",
    "option",
    "svg",
    "math",
    "template",
    "noscript",
    "audio",
    "video",
    "source",
    "track",
    "canvas",
    "dialog",
    "portal",
    "marquee",
    "bgsound",
    "xml",
    "isindex",
    "keygen",
    "slot",
    "image",
]


@pytest.mark.parametrize("name", DANGEROUS)
def test_elements_that_go(name: str) -> None:
    """In lower and upper case, closed or not, and within others; the text after a closed one stays."""
    for html in (
        f"<{name}>x</{name}><p>after",
        f"<{name.upper()} src=//x href=//x>",
        f"<table><tr><td><{name}/x=y>a",
        f"<b><{name} <p>",
    ):
        assert {tag for tag, _ in elements(html)} <= {"p", "table", "tbody", "tr", "td", "b", "img"}


def test_no_handler_is_left() -> None:
    """No attribute that runs, fetches or submits; also not with another name space, prefix or separator."""
    names = "onclick onerror ONLOAD formaction action srcdoc srcset xlink:href data-x ping poster lowsrc dynsrc xmlns is slot http-equiv"
    html = "".join(f"<p {name}='javascript:alert(1)'>x</p><img/{name}=x><div\x0c{name}=y>" for name in names.split())
    assert all(not attributes for _, attributes in elements(html))


def test_remote_images() -> None:
    """They are counted and blocked; a click shows them, over https; what cannot be shown is counted as well."""
    html = (
        '<img src="https://a.example/1.png" alt="one"><img src="http://a.example/2.png"><img src=//a.example/3.png>'
        '<img src="https://a.example/1.png"><table background="http://a.example/4.png"></table>'
        '<div style="background:url(http://a.example/5.png)">x</div>'
        "<style>@import url(https://a.example/6.css); @font-face{src:url(https://a.example/7.woff)} b{background:url('//a.example/8.png')}</style>"
        '<img src="relative.png"><img src="cid:unknown"><img src="data:image/svg+xml;base64,PHN2Zy8+"><img src="data:text/html,x"><img>'
    )
    result = sanitise(html, NO_IMAGES)
    assert result.images == 6
    assert result.not_shown == 4
    assert [attributes.get("src") for tag, attributes in Elements(result.blocked).found if tag == "img"] == [None] * 9
    assert 'alt="one"' in result.blocked
    shown = [attributes.get("src") for tag, attributes in Elements(result.with_images).found if tag == "img"]
    assert shown[:4] == [
        "https://a.example/1.png",
        "https://a.example/2.png",
        "https://a.example/3.png",
        "https://a.example/1.png",
    ]
    assert shown[4:] == [None] * 5


def test_no_images() -> None:
    """Without remote images both results are one."""
    result = sanitise("<p>x", NO_IMAGES)
    assert result == Sanitised("<p>x</p>", "<p>x</p>", 0, 0)


def test_inline_images() -> None:
    """Images that are parts of the message are shown as what their octets are, up to 2 MB in all mentions."""
    small, huge = png(20, 20), png(30_000, 30_000)
    sent = base64.b64encode(small).decode()
    html = f'<img src="cid:a%40b"><img src="CID:<a@b>"><img src="cid:huge"><img src="cid:html"><img src="data:image/jpeg;base64,{sent}">'
    assert content_ids(html) == ["a@b", "huge", "html"]
    result = sanitise(html, {"a@b": small, "huge": huge, "html": b"<script>"})
    assert [attributes.get("src") for _, attributes in Elements(result.blocked).found] == [
        f"data:image/png;base64,{sent}", f"data:image/png;base64,{sent}", None, None, f"data:image/png;base64,{sent}",
    ]  # fmt: skip
    assert (result.images, result.not_shown) == (0, 2)

    large = small + b"\0" * 600_000
    result = sanitise('<img src="cid:l">' * 10, {"l": large})
    assert (result.blocked.count("data:"), result.not_shown) == (3, 7)


def test_not_changed_twice() -> None:
    """What was made safe is the same when it is made safe again."""
    for html in (
        "<p>a<b>c</p>d</b>",
        "<style>a>b{}</style>&lt;script&gt;",
        "<a href='https://a.example/?a&amp;b'>x</a>",
        "<table><b>x",
    ):
        once = sanitise(html, NO_IMAGES).with_images
        assert sanitise(once, NO_IMAGES).with_images == once


def test_the_document() -> None:
    """Title and language are text; the direction is that of the mail."""
    whole = document("<p>x</p>", 'a"<b>&', 'e"n')
    assert whole.startswith('<!doctype html><html lang="e&quot;n"><head><meta charset="utf-8">')
    assert "<title>a&quot;&lt;b&gt;&amp;</title>" in whole
    assert whole.endswith('<body dir="auto"><p>x</p></body></html>')
    assert "lang" not in document("")


def run(work: Callable[[Sanitiser], Awaitable[None]]) -> None:
    """Do something with a sanitiser, and find that no process of it is left."""

    async def within() -> None:
        sanitiser = Sanitiser()
        await sanitiser.start()
        assert len(children()) == 2
        try:
            await work(sanitiser)
        finally:
            await sanitiser.close()
        assert children() == []

    run_in_loop(within())


def children() -> list[int]:
    """The processes of a sanitiser that this process has started."""
    return [
        int(pid)
        for task in Path("/proc/self/task").iterdir()
        for pid in (task / "children").read_text().split()
        if b"pipehandler.web.sanitise" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]


def hostile() -> dict[str, str]:
    """Mails that cost more than a page may, made where they are used: each is megabytes."""
    return {
        "nested": "<div>" * 100_000,
        "nested-formatting": "<b><a><i>" * 60_000,
        "attributes": "<p " + " ".join(f"a{number}=1" for number in range(100_000)) + ">text",
        "entities": "&" * 1_900_000,
        "links": "<a>" * 600_000,
        "too-large": "<p>text</p>" * (50_000_000 // 11),
    }


def test_mail() -> None:
    """Text, links and images of a mail, by a process; the results of a message are kept until it is deleted."""

    async def work(sanitiser: Sanitiser) -> None:
        html = '<p>Hello <a href="https://evil.example">bank.com</a><img src="cid:a"><img src="https://a.example/x.png"></p><script>x</script>'
        safe = await sanitiser.clean(html, {"a": InlineImage(png(20, 20)), "b": InlineImage(b"no image")}, key=7)
        assert (safe.images, safe.not_shown) == (1, 0)
        assert safe.text.split() == ["Hello", "bank.com"]
        [link] = safe.links
        assert (link.text, link.host, link.mismatch) == ("bank.com", "evil.example", True)
        assert "data:image/png" in safe.blocked
        assert "https://a.example/x.png" not in safe.blocked
        assert "https://a.example/x.png" in safe.with_images
        assert await sanitiser.clean("", {}, key=7) is safe
        sanitiser.forget(lambda key: key == 7)
        assert (await sanitiser.clean("<p>other", {}, key=7)).text == "other"

    run(work)


def test_limits() -> None:
    """Whatever it costs, the text comes back, and the next message is made safe."""

    async def work(sanitiser: Sanitiser) -> None:
        mails = hostile()
        before = memory()
        for name, html in mails.items():
            result = await outcome(sanitiser, html, name)
            assert isinstance(result, TooCostly), name
            assert not isinstance(result, Busy), name
            assert ("text" in result.text) == ("text" in html)
            assert isinstance(await outcome(sanitiser, html, name), TooCostly)  # known, at once
            while isinstance(await outcome(sanitiser, "<p>next"), Busy):
                await asyncio.sleep(0.01)
        assert memory() - before < 50_000_000

    run(work)


def test_others_go_on() -> None:
    """A message that takes its whole time occupies one process; a third one at once is told to come again."""

    async def work(sanitiser: Sanitiser) -> None:
        nested = "<div>" * 100_000
        slow = asyncio.create_task(outcome(sanitiser, nested))
        await asyncio.sleep(0)
        for _ in range(20):
            assert isinstance(await outcome(sanitiser, "<p>x"), SafeHtml)
        results = await asyncio.gather(slow, *(outcome(sanitiser, nested) for _ in range(3)))
        assert all(isinstance(result, TooCostly) for result in results)
        assert any(isinstance(result, Busy) for result in results)

    run(work)


def test_a_process_that_dies() -> None:
    """It is replaced, and only the message that it had is not made safe."""

    async def work(sanitiser: Sanitiser) -> None:
        for pid in children():
            os.kill(pid, signal.SIGKILL)
        results = [await outcome(sanitiser, "<p>x") for _ in range(2)]
        assert all(isinstance(result, TooCostly) for result in results)
        while not isinstance(await outcome(sanitiser, "<p>x"), SafeHtml):
            await asyncio.sleep(0.01)
        assert len(children()) in (1, 2)

    run(work)


def test_a_caller_that_leaves() -> None:
    """The answer to a request that was given up is not taken for that to the next."""

    async def work(sanitiser: Sanitiser) -> None:
        for _ in range(4):
            task = asyncio.create_task(sanitiser.clean("<p>old" * 100_000, {}))
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        while not isinstance(result := await outcome(sanitiser, "<p>new"), SafeHtml):
            await asyncio.sleep(0.01)
        assert result.blocked == "<p>new</p>"

    run(work)


def test_confinement() -> None:
    """A process has no environment, no file to write, no child, little memory, and only its two pipes."""

    async def work(sanitiser: Sanitiser) -> None:
        for pid in children():
            limits = Path(f"/proc/{pid}/limits").read_text()
            values = {
                name: re.search(rf"{name} +(\d+)", limits)
                for name in ("processes", "file size", "address space", "core file size")
            }
            found = {name: int(value[1]) for name, value in values.items() if value}
            assert found["processes"] == found["file size"] == found["core file size"] == 0
            assert found["address space"] < 1 << 30
            assert Path(f"/proc/{pid}/environ").read_bytes() == b""
            assert set(os.listdir(f"/proc/{pid}/fd")) <= {"0", "1", "2"}

    run(work)


def test_size() -> None:
    """The longest HTML that is accepted is one that is made safe."""

    async def work(sanitiser: Sanitiser) -> None:
        sentence = "<p>Hello <b>all</b> of you, here is some more text.</p>\n"
        longest = (sentence * (MAX_HTML // len(sentence) + 1))[:MAX_HTML]
        while not isinstance(await outcome(sanitiser, longest), SafeHtml):
            await asyncio.sleep(0.1)  # a busy machine may take longer than the deadline
        assert isinstance(await outcome(sanitiser, longest + "x"), TooCostly)

    run(work)


async def outcome(sanitiser: Sanitiser, html: str, key: object = None) -> SafeHtml | TooCostly:
    """The result, or the error."""
    try:
        return await sanitiser.clean(html, {}, key)
    except TooCostly as error:
        return error


def memory() -> int:
    """Octets of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_a_parent_that_dies() -> None:
    """No process is left behind: its pipe ends."""
    program = (
        "import asyncio\nfrom pipehandler.web.safe_html import Sanitiser\n"
        "async def main():\n s = Sanitiser()\n await s.start()\n print(*(p.pid for p in s._all), flush=True)\n await asyncio.sleep(600)\n"
        "asyncio.run(main())"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout
        pids = parent.stdout.readline().split()
        assert len(pids) == 2
        descriptors = [os.pidfd_open(int(pid)) for pid in pids]
        parent.kill()
    for descriptor in descriptors:
        assert select.select([descriptor], [], [], 60)[0]  # also where no process reaps it, and a zombie remains
        os.close(descriptor)


def test_what_a_text_says_is_found_outside_of_the_loop() -> None:
    """Links and codes come from the child, are kept, and are given up for a text that takes too long; the loop goes on meanwhile."""

    async def work(sanitiser: Sanitiser) -> None:
        text = "Your verification code is 481729. See https://example.org/a"
        found = await sanitiser.find("Your code", text, text, (), key=1)
        assert (found.found, [link.host for link in found.links]) == (OneTimeCode("481729"), ["example.org"])
        assert await sanitiser.find("", "", "", (), key=1) is found
        sanitiser.forget(lambda key: key == 1)
        assert (await sanitiser.find("", "", "", (), key=1)).links == ()
        for each in sanitiser._all:
            os.kill(each.pid, signal.SIGSTOP)  # as a text does whose search never ends
        turns = 0

        async def turn() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0.01)
                turns += 1

        turning = asyncio.create_task(turn())
        given_up = await sanitiser.find("", text, text, found.links, key=2)
        turning.cancel()
        assert (given_up.links, given_up.found) == (found.links, None)
        assert turns > 10

    run(work)
