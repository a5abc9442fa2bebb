"""The report of a benchmark: tables, aims, and the machine that it ran on."""

import inspect
import math
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from harness.postgresql import PostgreSQL


class Table(NamedTuple):
    """A table; values that are not text are figures and are aligned right. note: what a reader needs to know."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    note: str = ""

    def markdown(self) -> str:
        """The table with its title and its note."""
        cells = [[str(each) for each in self.head], *([_cell(each) for each in row] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        right = [not isinstance(each, str) for each in self.rows[0]] if self.rows else [False] * len(widths)
        lines = [
            "| " + " | ".join(each.rjust(w) if r else each.ljust(w) for each, w, r in zip(row, widths, right, strict=True)) + " |"
            for row in cells
        ]  # fmt: skip
        lines.insert(
            1, "|" + "|".join("-" * (w + 1) + (":" if r else "-") for w, r in zip(widths, right, strict=True)) + "|"
        )
        return "\n".join([f"### {self.title}", "", *([self.note, ""] if self.note else []), *lines, ""])


class Aim(NamedTuple):
    """The aim for a figure: at most `limit`, or at least `limit`."""

    text: str
    figure: float
    limit: float
    at_least: bool = False
    unit: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the aim is met; None if the figure is missing."""
        if math.isnan(self.figure):
            return None
        return self.figure >= self.limit if self.at_least else self.figure <= self.limit


@dataclass
class Report:
    """The results of one benchmark."""

    tables: list[Table] = field(default_factory=list)
    aims: list[Aim] = field(default_factory=list)


def aims(found: Sequence[Aim]) -> Table:
    """The last table: each aim with its figure."""
    said = {True: "reached", False: "NOT reached", None: "not measured"}
    rows = [
        [
            aim.text,
            f"{'at least' if aim.at_least else 'at most'} {_cell(aim.limit)}{aim.unit}",
            "-" if math.isnan(aim.figure) else f"{_cell(float(aim.figure))}{aim.unit}",
            said[aim.reached],
        ]
        for aim in found
    ]
    return Table("The aims", ["aim", "should be", "is", ""], rows)


def machine(server: PostgreSQL) -> str:
    """When and where this was measured."""
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.machine(),
    )  # fmt: skip
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    mail = "none"
    if shutil.which("postconf"):
        mail = subprocess.run(["postconf", "-dh", "mail_version"], capture_output=True, text=True).stdout.strip()
    settings = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers")
    shown = ", ".join(f"{name} {server.psql('postgres', f'SHOW {name}').strip()}" for name in settings)
    programs = [
        f"Python {platform.python_version()}",
        f"Postfix {mail}",
        f"PostgreSQL {server.psql('postgres', 'SHOW server_version').strip()} ({shown})",
    ]
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        f"{os.cpu_count()} cores of {model}, {memory:.0f} GB memory, Linux {platform.release()}",
        ", ".join(programs),
        f"load of the machine when it began (1 minute): {os.getloadavg()[0]:.2f}; the figures want it near 0",
    ]
    return "\n".join(f"- {line}" for line in lines)


def options(measure: Callable[..., object]) -> dict[str, int]:
    """The options of a benchmark with their defaults: its keyword arguments."""
    return {
        name: each.default
        for name, each in inspect.signature(measure).parameters.items()
        if each.kind is inspect.Parameter.KEYWORD_ONLY
    }


def _cell(value: object) -> str:
    """A figure with three significant digits."""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    if math.isnan(value):
        return "-"
    digits = 0 if value == 0 else max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 3)}f}"
