"""All hostile mail behind each layer alone and all together, and through the finished page; prints what ran, and what was
requested. See script/attacks."""

import argparse
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from .payloads import collected, payloads
from .tasks import PARTS, Result, Task, run, tasks


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
        f"\n{title:38} {'mails':>6} {'executed':>8} {'requests':>8} {'lookups':>8} {'touched':>9} {'navigated':>9} {'time':>7}"
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
