"""Mail, made safe and read by two processes that are started beforehand and killed at the deadline.

Sanitising takes quadratic time for some inputs: 100,000 nested elements take more than half a minute. So neither it nor a search
for links and codes ever runs in the process of the page. HTML that is too costly raises TooCostly, and the page shows the text
and a notice.

This is one of three layers. The frame and the headers (headers.py) each stop every script without it, and the headers
stop every request.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from html import escape
from itertools import islice
from typing import Any

from ..runtime.confined import ConfinedProcess, Ended
from .codes import ConfirmationLink, OneTimeCode
from .findings import Findings, packed, unpacked
from .images import MAX_INLINE, InlineImage, image_type
from .links import Link
from .recent import Recent
from .sanitise import HTML, TEXT

_MODULE = "pipehandler.web.sanitise"
_SECONDS = 2.0  # for one message; sanitise.SECONDS is its CPU time
_WAIT = 0.8  # seconds for a process that is free
_MAX_SENT = 2_000_001  # characters: one more than the child accepts, so that it refuses what was cut
_MAX_READ = 200_000  # characters of a text in which links and codes are looked for: what the page shows of it
_CACHE = 32_000_000  # characters of results that are kept
_CACHE_OF_FINDINGS = 8_000_000  # characters of the links of messages
_CACHE_AGE = 300.0  # seconds: after this, what was deleted by others is gone here as well
PROCESSES = 2
"""Messages that are sanitised at once."""
_MOST_IMAGES = 900  # fields of a request (runtime/confined.py)


@dataclass(frozen=True, slots=True)
class SafeHtml:
    """HTML that can be shown, as fragments for `document`.

    blocked: without remote images. with_images: with them, and all of http over https. images: how many remote images a
    click shows. not_shown: images that cannot be shown at all. text: what a reader sees, without links. links: every
    link of the message, in its order. inline: the Content-IDs of the parts that are shown as images within it.
    """

    blocked: str
    with_images: str
    images: int
    not_shown: int
    text: str
    links: tuple[Link, ...]
    inline: frozenset[str] = frozenset()

    @property
    def size(self) -> int:
        """Characters that it takes."""
        return (
            len(self.blocked) + len(self.text) + (len(self.with_images) if self.with_images is not self.blocked else 0)
        )


class TooCostly(Exception):
    """The HTML of a message is too large, or takes too long. `text`: its text, with the targets of links, or ""."""

    def __init__(self, text: str = "") -> None:
        super().__init__("the HTML of this message takes too long to make safe")
        self.text = text


class Busy(TooCostly):
    """All processes are at work for other messages; the same call may succeed in a moment."""


@dataclass
class Sanitiser:
    """The processes and what they made lately. `start` it before use, in the loop that uses it, and `close` it."""

    _free: asyncio.Queue[ConfinedProcess] = field(default_factory=asyncio.Queue)
    _all: set[ConfinedProcess] = field(default_factory=set)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _recent: Recent[SafeHtml | TooCostly] = field(default_factory=lambda: Recent(_CACHE, _CACHE_AGE))
    _findings: Recent[Findings] = field(default_factory=lambda: Recent(_CACHE_OF_FINDINGS, _CACHE_AGE))
    _closed: bool = False

    async def start(self) -> None:
        """Start the processes. Raises OSError or Ended if they cannot be started."""
        try:
            for _ in range(PROCESSES):
                await self._start_one()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End the processes."""
        self._closed = True
        await asyncio.gather(*self._tasks)  # a process that is just being started must not be left behind
        await asyncio.gather(*(process.kill() for process in self._all))

    async def clean(self, html: str, inline: Mapping[str, InlineImage], key: object = None) -> SafeHtml:
        """Return `html` made safe. `inline`: parts of the message by their Content-ID (`sanitise.content_ids`).

        key: what identifies the message and its parts; with it, results are kept for a few minutes.
        Raises TooCostly, within three seconds; and Busy, which is not kept.
        """
        found = self._recent.get(key) if key is not None else None
        if found is None:
            try:
                found = await self._clean(html, inline)
            except Busy:
                raise
            except TooCostly as error:
                found = error
            if key is not None:
                self._recent.put(key, found, found.size if isinstance(found, SafeHtml) else len(found.text))
        if isinstance(found, TooCostly):
            raise TooCostly(found.text)
        return found

    @property
    def kept(self) -> int:
        """How many results are kept."""
        return len(self._recent) + len(self._findings)

    def is_kept(self, key: object) -> bool:
        """Whether `clean` has a result for this key, and needs no parts."""
        return self._recent.get(key) is not None

    def forget(self, applies: Callable[[Any], bool]) -> None:
        """Drop what is kept of the messages whose keys it applies to: they were deleted."""
        self._recent.drop_where(applies)
        self._findings.drop_where(applies)

    async def find(self, subject: str, text: str, plain: str, links: Sequence[Link], key: object = None) -> Findings:
        """Return what `findings.findings` finds. key: what identifies the message; with it, results are kept for a few minutes.

        A message that takes too long has the `links` that are known, and no code. Raises Busy, as `clean` does.
        """
        found = self._findings.get(key) if key is not None else None
        if found is None:
            try:
                found = await self._find(subject, text, plain, links)
            except Busy:
                raise
            except TooCostly:
                found = Findings(tuple(links), None)
            if key is not None:
                self._findings.put(key, found, found.size + 200)
        return found

    async def _find(self, subject: str, text: str, plain: str, links: Sequence[Link]) -> Findings:
        fields = [value[:_MAX_READ].encode("utf-8", "replace") for value in (subject, text, plain)]
        async with self._process() as process:
            try:
                async with asyncio.timeout(_SECONDS):
                    await process.send((TEXT, *fields, packed(links)))
                    every, code, link = await process.receive()
                    found = ConfirmationLink(*unpacked(link)) if link else OneTimeCode(code.decode()) if code else None
                    return Findings(unpacked(every), found)
            except (TimeoutError, Ended, ValueError, TypeError):
                raise TooCostly from None

    async def _clean(self, html: str, inline: Mapping[str, InlineImage]) -> SafeHtml:
        images = _shown(inline)
        names = json.dumps(list(images)).encode()
        text = ""
        async with self._process() as process:
            try:
                async with asyncio.timeout(_SECONDS):
                    await process.send((HTML, html[:_MAX_SENT].encode("utf-8", "replace"), names, *images.values()))
                    text = (await process.receive())[0].decode("utf-8", "replace")
                    answer = await process.receive()
            except (TimeoutError, Ended, IndexError):
                raise TooCostly(text) from None
        if not answer:
            raise TooCostly(text)
        return replace(_result(answer), inline=frozenset(images))

    @asynccontextmanager
    async def _process(self) -> AsyncIterator[ConfinedProcess]:
        """Lend a process. One that is left in the middle of a request is killed, and another takes its place."""
        try:
            async with asyncio.timeout(_WAIT):
                process = await self._free.get()
        except TimeoutError:
            raise Busy from None
        try:
            yield process
        except BaseException:
            self._all.discard(process)
            task = asyncio.create_task(self._replace(process))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            raise
        self._free.put_nowait(process)

    async def _replace(self, process: ConfinedProcess) -> None:
        await process.kill()
        while not self._closed:
            try:
                await self._start_one()
                break
            except (OSError, Ended):
                await asyncio.sleep(1)  # no memory or no process left: until then, messages are shown as text

    async def _start_one(self) -> None:
        process = await ConfinedProcess.start(_MODULE)
        self._all.add(process)
        try:
            await process.send((HTML, b"<p>ready</p>", b"[]"))
            await process.receive()
            await process.receive()
        except BaseException:
            self._all.discard(process)
            await process.kill()
            raise
        self._free.put_nowait(process)


def document(fragment: str, title: str = "", lang: str = "") -> str:
    """Return a whole HTML document that shows `fragment`, which is `SafeHtml.blocked` or `with_images`.

    It is for responses of the kinds mail and mail_with_images. Mail is shown on white, as its sender saw it, and reads in
    the direction of its first letter. title, lang: any text; empty for none.
    """
    language = f' lang="{escape(lang)}"' if lang else ""
    return (
        f'<!doctype html><html{language}><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f'<body dir="auto">{fragment}</body></html>'
    )


_STYLE = (
    "html{background:#fff;color:#111;font:15px/1.5 system-ui,sans-serif}"
    "body{margin:16px;overflow-wrap:break-word}img{max-width:100%}"
)


def _shown(inline: Mapping[str, InlineImage]) -> dict[str, bytes]:
    """Return the parts that are images and fit, by their Content-ID."""
    room = MAX_INLINE
    shown = {}
    for name, image in islice(inline.items(), _MOST_IMAGES):
        found = image_type(image.content) if len(image.content) <= room else None
        if found and found.showable:
            shown[name] = image.content
            room -= len(image.content)
    return shown


def _result(answer: list[bytes]) -> SafeHtml:
    facts, links, *fields = answer
    text, blocked, with_images = (field.decode("utf-8", "replace") for field in fields)
    values = json.loads(facts)
    return SafeHtml(
        blocked=blocked,
        with_images=with_images or blocked,
        images=int(values["images"]),
        not_shown=int(values["not_shown"]),
        text=text,
        links=unpacked(links),
    )
