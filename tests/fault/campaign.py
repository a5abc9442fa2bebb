"""Run the fault campaign, and print its table: the command behind script/campaign."""

import argparse
import importlib
import logging
import os
import platform
import sys
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from .ledger import Mode, Row, Scale

KINDS = (
    "filter",
    "values",
    "rows",
    "planted",
    "clocks",
    "state",
    "logs",
    "files",
    "upgrade",
    "killed",
    "failing",
    "wire",
    "server",
    "standby",
    "patroni",
    "pair",
    "shards",
    "mailhost",
    "reload",
    "content",
    "lmtp",
    "maildir",
    "together",
    "stream",
    "days",
)
_MODELESS = {
    "days",
    "files",
    "filter",
    "lmtp",
    "maildir",
    "pair",
    "patroni",
    "planted",
    "reload",
    "rows",
    "shards",
    "stream",
}
"""Kinds for which the mode makes no difference; they are run once, with the first one."""


_OF_THE_CLIENT = {"killed", "failing", "mailhost"}
"""Kinds that reach into the process that pipe(8) starts; to the others it makes no difference how a worker gets a message."""


def runs(kinds: Iterable[str] = KINDS, modes: Iterable[Mode] = Mode) -> list[tuple[str, Mode]]:
    """Each of the kinds, in each of the modes."""
    kinds = list(kinds)
    of = {Mode.COLD: set(kinds), Mode.RESIDENT: set(kinds) - _MODELESS, Mode.CLIENT: _OF_THE_CLIENT}
    return [(kind, mode) for mode in modes for kind in kinds if kind in of[mode]]


def line(row: Row) -> str:
    """One row of the table."""
    statuses = ", ".join(f"{status}: {count}" for status, count in sorted(row.statuses.items()))
    return f"| {row.kind} | {row.points} | {row.sent} | {row.lost} | {row.doubled} | {row.bounced} | {statuses} |"


def main() -> int:
    """Run the kinds named in the arguments, or all; the status is 0 if the promise held everywhere."""
    options = argparse.ArgumentParser(description="the fault campaign: nothing lost, nothing twice, nothing bounced")
    options.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(KINDS)}; all when none is given")
    how_much = options.add_mutually_exclusive_group()
    how_much.add_argument("--short", action="store_true", help="a sample, as in script/test")
    how_much.add_argument(
        "--thin", action="store_true", help="a share of the points, and shorter loads: an hour or two"
    )
    options.add_argument(
        "--mode", choices=[mode.value for mode in Mode], help="how messages are delivered; default: all"
    )
    options.add_argument(
        "--previous", type=Path, metavar="VENV", help="an environment of the previous release, for `upgrade`"
    )
    chosen = options.parse_args()
    if unknown := set(chosen.kinds) - set(KINDS):
        options.error(f"no such kind: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")

    logging.getLogger("pipehandler").addHandler(logging.NullHandler())  # an unreachable database is expected here
    scale = Scale.SHORT if chosen.short else Scale.THIN if chosen.thin else Scale.FULL
    rows = []
    today = datetime.now().astimezone().date()
    print(f"{today}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}\n")
    print("| kind of fault | points | sent | lost | doubled | bounced | statuses seen |\n|---|---|---|---|---|---|---|")
    modes = [Mode(chosen.mode)] if chosen.mode else list(Mode)
    for kind, mode in runs(chosen.kinds or KINDS, modes):
        started = time.monotonic()
        more = {"previous": chosen.previous} if kind == "upgrade" else {}
        row = importlib.import_module(f"fault.{kind}").run(scale, mode, **more)
        rows.append(row)
        print(line(row), flush=True)
        for finding in row.findings:
            print(f"    {finding}", file=sys.stderr, flush=True)
        print(f"    {row.kind}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    total = Row("all")
    for row in rows:
        total.add(row)
    print(line(total))
    return 0 if all(row.clean for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
