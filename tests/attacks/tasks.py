"""The shares of a whole run, each of which a process of its own carries out, with a browser and servers of its own."""

import asyncio
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from harness import account
from harness.database import Database
from harness.inboxes import issue
from harness.postgresql import FAST, VERSION, PostgreSQL
from harness.web import web_server
from playwright.sync_api import sync_playwright

from .finished_page import FinishedPage
from .internet import Internet
from .leaks import leaks
from .payloads import payloads
from .rig import CHROMIUM, LAYERS, Rig, arguments_of, names_in

ALONE: tuple[tuple[str, ...], ...] = (("sanitiser",), ("sandbox",), ("header",), LAYERS)
PARTS = ("scripts", "requests", "page")
# A browser for so many mails: each of them leaves windows and workers behind.
_SHARES = {"scripts": 500, "requests": 1_000_000, "page": 240}


class Task(NamedTuple):
    """A share of a part. behind: the layers, or what the finished page is tested with. images: with remote images."""

    part: str
    behind: str
    first: int
    last: int
    images: bool = False


class Result(NamedTuple):
    """What a task found. failures: what may not be, each in a line; the other numbers are counts."""

    mails: int
    executed: int
    requests: int
    lookups: int
    touched: int
    navigated: int
    seconds: float
    failures: list[str]


def tasks(parts: Sequence[str], count: int) -> Iterator[Task]:
    """Return all tasks of these parts for so many payloads."""
    leaking = len(leaks(80))
    wanted = {
        "scripts": [("", False), *((" + ".join(layers), False) for layers in ALONE)],
        "requests": [("", False), *((" + ".join(layers), False) for layers in ALONE), (" + ".join(LAYERS), True)],
        "page": [("escaping", False), ("all layers", False)],
    }
    for part in parts:
        size, share = (leaking if part == "requests" else count), _SHARES[part]
        for behind, images in wanted[part]:
            for first in range(0, size, share):
                yield Task(part, behind, first, min(first + share, size), images)


def run(task: Task, every: int) -> Result:
    """Carry out a task, with a browser and servers of its own."""
    began = time.monotonic()
    mails = payloads()[::every][task.first : task.last]
    with tempfile.TemporaryDirectory() as folder:
        if task.part == "page":
            found = _page(task, mails)
        elif task.part == "scripts":
            found = asyncio.run(_scripts(task, mails, Path(folder)))
        else:
            found = asyncio.run(_requests(task, Path(folder)))
    return found._replace(seconds=time.monotonic() - began)


async def _scripts(task: Task, mails: Sequence[str], folder: Path) -> Result:
    """How many payloads run a script, with every element touched."""
    layers = tuple(filter(None, task.behind.split(" + ")))
    async with Rig.opened(folder) as rig:
        found = await rig.open(mails, layers, touch=bool(layers))
    failures = [repr(mails[number]) for number in sorted(found.executed)] + [
        "a page was left, or stood still"
    ] * found.navigated
    return Result(
        len(mails),
        len(found.executed),
        len(found.requests),
        0,
        found.elements,
        found.navigated,
        0,
        failures if layers else [],
    )


async def _requests(task: Task, folder: Path) -> Result:
    """How many payloads make a request or a lookup, hovered and not clicked."""
    layers = tuple(filter(None, task.behind.split(" + ")))
    log = folder / "net.json"
    async with Rig.opened(folder, f"--log-net-log={log}") as rig:
        mails = [mail for _, mail in leaks(rig.internet.port)]
        found = await rig.open(mails, layers, images=task.images, touch=False)
    hosts = {request.host for request in found.requests}
    names = {name for name in names_in(log) if "leak-" in name}
    failures = []
    if task.images:
        failures = [
            f"{each.destination} {each.host} {dict(each.headers)}"
            for each in found.requests
            if not each.secure or each.destination != "image" or {"Referer", "Cookie"} & each.headers.keys()
        ]
    elif "header" in layers:
        failures = sorted(hosts | names) + ["a page was left, or stood still"] * found.navigated
    return Result(len(mails), len(found.executed), len(hosts), len(names), found.elements, found.navigated, 0, failures)


def _page(task: Task, mails: Sequence[str]) -> Result:
    """What payloads do through the finished page, with everything touched and every link clicked."""
    policy = task.behind == "all layers"
    with (
        account.folder("pipehandler-attacks-") as folder,
        PostgreSQL(folder / "pg", VERSION, FAST) as server,
        Internet(folder, lambda _path: None) as internet,
        sync_playwright() as playwright,
    ):
        server.start()
        with Database.fresh(server) as database, web_server(folder / "web", database) as web:
            issue(database)
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments_of(internet))
            with FinishedPage.opened(browser, web, database, internet, policy) as opened:
                seen = opened.everything(mails)
            browser.close()
    failures = [*seen.executed, *seen.strange, *seen.navigated, *(f"after a click: {each}" for each in seen.telling)]
    if policy:  # without it, a style of a mail asks for its images
        failures += [f"before a click: {each}" for each in seen.unasked]
    asked = len(seen.unasked)
    return Result(len(mails), len(seen.executed), asked, 0, seen.elements, len(seen.navigated), 0, failures)
