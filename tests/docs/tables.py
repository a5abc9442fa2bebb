"""The tables of the pages that are made from the code. As a program (script/tables) it writes them into the pages."""

import json
from collections.abc import Callable
from typing import Any

from pipehandler.mail.outcome import TABLE, UNSTORABLE
from pipehandler.mail.sysexits import DEFERRED, EX_OK
from pipehandler.monitor.metrics import METRICS
from pipehandler.settings import config
from pipehandler.settings.config import SECTIONS
from pipehandler.settings.retention import KEYS

from .pages import REPOSITORY, read

Rows = list[list[str]]

_STATUSES = {0: "EX_OK", 65: "EX_DATAERR", 67: "EX_NOUSER", 71: "EX_OSERR", 75: "EX_TEMPFAIL"}


def outcomes() -> Rows:
    """The ends of a delivery: outcome, line, status, and what Postfix does."""
    head = ["outcome", "line", "status", "Postfix"]
    return [head] + [
        [
            f"`{row.name}`",
            row.line(),
            f"{row.status} {_STATUSES[row.status]}",
            "done"
            if row.status == EX_OK
            else "tries again"
            if row.status in DEFERRED
            else "has no part in it"
            if row is UNSTORABLE
            else "bounces",
        ]
        for row in TABLE
    ]


def keys() -> Rows:
    """Every key of the configuration: name, default, bounds, meaning."""
    rows = [["key", "default", "allowed", "meaning"]]
    for section, values in SECTIONS.items():
        for name, key in config.keys(values).items():
            default = values._field_defaults[name]
            rows.append([f"`{section}.{name}`", f"`{_default(default)}`", _allowed(default, key), key.meaning])
    return rows


def _default(value: Any) -> str:
    """A default in TOML form; a word without its quotes."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return json.dumps(value)
    return str(value) or '""'


def _allowed(default: Any, key: config.Key) -> str:
    if key.choices:
        return ", ".join(key.choices)
    match default:
        case bool():
            return "true, false"
        case int():
            return f"{key.low} to {key.high}"
        case tuple():
            return "a list of strings"
        case _:
            return "a string"


def rules() -> Rows:
    """Every key of a retention rule, and what it means to leave it out."""
    head = ["key of a rule", "without it", "allowed", "meaning"]
    return [head] + [[f"`{name}`", key.missing, key.allowed, key.meaning] for name, key in KEYS.items()]


def metrics() -> Rows:
    """Every metric: name, type, labels, meaning."""
    return [["metric", "type", "labels", "meaning"]] + [
        [f"`{name}`", kind, ", ".join(f"`{label}`" for label in labels), meaning]
        for name, kind, labels, meaning in METRICS.values()
    ]


TABLES: dict[str, tuple[str, Callable[[], Rows]]] = {
    "outcomes": ("docs/outcomes.md", outcomes),
    "keys": ("docs/configuration.md", keys),
    "rules": ("docs/configuration.md", rules),
    "metrics": ("docs/monitoring.md", metrics),
}
"""The marker of each table, its page, and what makes its rows; the first row is the head."""


def markdown(rows: Rows) -> str:
    """A table in Markdown."""
    head, *body = [f"| {' | '.join(row)} |\n" for row in rows]
    return head + "|---" * len(rows[0]) + "|\n" + "".join(body)


def main() -> None:
    """Write every table into its page."""
    for name, (page, make) in TABLES.items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        above, _, rest = read(page).partition(begin)
        below = rest.partition(end)[2]
        (REPOSITORY / page).write_text(above + begin + markdown(make()) + end + below, "utf-8")


if __name__ == "__main__":
    main()
