"""All hostile mail behind each layer alone and all together, and through the finished page; prints what ran, and what was
requested. See script/attacks."""

import argparse
import asyncio
import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

from .leaks import leaks
from .payloads import collected, payloads
from .rig import LAYERS, Rig, names_in

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
    failures = [repr(mails[number]) for number in sorted(found.executed)] + ["a page was left"] * found.navigated
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
        failures = sorted(hosts | names) + ["a page was left"] * found.navigated
    return Result(len(mails), len(found.executed), len(hosts), len(names), found.elements, found.navigated, 0, failures)


def _page(task: Task, mails: Sequence[str]) -> Result:
    """What payloads do through the finished page, with everything touched and every link clicked."""
    from harness import account
    from harness.database import Database
    from harness.inboxes import issue
    from harness.postgresql import FAST, VERSION, PostgreSQL
    from harness.web import web_server
    from playwright.sync_api import sync_playwright

    from .finished_page import FinishedPage
    from .internet import Internet
    from .rig import CHROMIUM, arguments_of

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


class Log:
    """The results so far, in a file, one in a line: a run that was interrupted goes on there."""

    def __init__(self, path: Path | None, every: int) -> None:
        self._path = path
        self.results: dict[Task, Result] = {}
        head = {"payloads": len(payloads()), "every": every}
        lines = path.read_text().splitlines() if path and path.exists() else []
        if lines and json.loads(lines[0]) != head:
            raise SystemExit(f"{path} is of other payloads: {lines[0]}; expected {json.dumps(head)}. Remove it.")
        for line in lines[1:]:
            task, result = json.loads(line)
            self.results[Task(*task)] = Result(*result)
        if path and not lines:
            path.write_text(json.dumps(head) + "\n")

    def add(self, task: Task, result: Result) -> None:
        """Keep a result."""
        self.results[task] = result
        if self._path:
            with self._path.open("a") as file:
                file.write(json.dumps([task, result]) + "\n")


def table(part: str, results: dict[Task, Result]) -> list[str]:
    """Print the table of a part and its failures; return them."""
    title = {"scripts": "scripts behind", "requests": "requests behind", "page": "the page with"}[part]
    print(
        f"\n{title:38} {'mails':>6} {'executed':>8} {'requests':>8} {'lookups':>8} {'touched':>9} {'navigated':>9} {'CPU':>7}"
    )
    failures = []
    for behind, images in dict.fromkeys((task.behind, task.images) for task in results):
        found = [result for task, result in results.items() if (task.behind, task.images) == (behind, images)]
        mails, executed, requests, lookups, touched, navigated, seconds = (
            sum(numbers) for numbers in zip(*(each[:7] for each in found), strict=True)
        )
        name = (behind or "nothing") + (", images" if images else "")
        print(f"{name:38} {mails:6} {executed:8} {requests:8} {lookups:8} {touched:9} {navigated:9} {seconds:6.0f}s")
        failures += [f"{name}: {line}" for each in found for line in each.failures]
    for line in failures[:200]:
        print(f"    {line[:1000]}")
    return failures


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(prog="script/attacks", description=__doc__)
    parser.add_argument("--part", choices=PARTS, action="append", help="only this part; may be repeated")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="one of N payloads")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="browsers at once")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="keep the results there, and go on after those in it"
    )
    arguments = parser.parse_args()
    chosen = payloads()[:: arguments.every]
    print(
        f"{len(payloads())} payloads, {len(collected())} of them from public lists; {len(chosen)} are opened",
        flush=True,
    )
    parts = [part for part in PARTS if part in (arguments.part or PARTS)]
    wanted = list(tasks(parts, len(chosen)))
    log = Log(arguments.results, arguments.every)
    # Each browser is of a process of its own, which has neither threads nor servers of this one.
    with ProcessPoolExecutor(arguments.processes, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as pool:
        running = {pool.submit(run, task, arguments.every): task for task in wanted if task not in log.results}
        for done in as_completed(running):
            task, result = running[done], done.result()
            log.add(task, result)
            print(
                f"{task.part} {task.behind or 'nothing'} {task.first}-{task.last}: {result.executed} executed, {len(result.failures)} failures, {result.seconds:.0f} s",
                flush=True,
            )
    failures = []
    for part in parts:
        failures += table(part, {task: log.results[task] for task in wanted if task.part == part})
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
