"""The papers are true: every table that could rot is compared with the code."""

import re
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from pipehandler import cli
from pipehandler.mail.outcome import TABLE
from pipehandler.mail.sysexits import DEFERRED, EX_OK
from pipehandler.settings.config import Config
from pipehandler.settings.retention import KEYS

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text("utf-8")


def table(name: str) -> list[list[str]]:
    """The rows of the README's table between <!-- name --> and <!-- /name -->."""
    text = README.partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.strip().splitlines()]
    return rows[2:]


def test_outcomes() -> None:
    """The README's outcome table is the outcome table."""
    names = {0: "EX_OK", 65: "EX_DATAERR", 67: "EX_NOUSER", 71: "EX_OSERR", 75: "EX_TEMPFAIL"}
    expected = [
        [
            f"`{row.name}`",
            row.line(),
            f"{row.status} {names[row.status]}",
            "done" if row.status == EX_OK else "tries again" if row.status in DEFERRED else "bounces",
        ]
        for row in TABLE
    ]
    assert table("outcomes") == expected


def test_keys() -> None:
    """The README names every configuration key with its default, its bounds and its meaning."""
    expected = []
    for section in [each for each in fields(Config) if each.default_factory is not MISSING]:
        for key in fields(section.default_factory):  # type: ignore[arg-type]
            default, low, high = key.default, key.metadata["low"], key.metadata["high"]
            shown = str(default).lower() if isinstance(default, bool) else default
            allowed = (
                ", ".join(key.metadata["choices"])
                if key.metadata["choices"]
                else "true, false"
                if isinstance(default, bool)
                else f"{low} to {high}"
                if isinstance(default, int)
                else "a list of strings"
                if isinstance(default, tuple)
                else "a string"
            )
            shown = '""' if shown == "" else "[]" if shown == () else shown
            expected.append([f"`{section.name}.{key.name}`", f"`{shown}`", allowed, key.metadata["meaning"]])
    assert table("keys") == expected


def test_rules() -> None:
    """The README names every key of a rule of retention with what it means without it."""
    assert table("rules") == [[f"`{name}`", key.missing, key.allowed, key.meaning] for name, key in KEYS.items()]


def test_commands() -> None:
    """Every command is in the README."""
    named = [command for command in cli.COMMANDS if not re.search(rf"`[^`\n]*\b{command}\b[^`\n]*`", README)]
    assert named == []


@pytest.mark.parametrize(
    "path", ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "LICENSE", "postfix", "sql", "script/test"]
)
def test_papers_are_there(path: str) -> None:
    """What the papers speak of is in the repository."""
    assert (REPOSITORY / path).exists()


def test_files_that_are_named_exist() -> None:
    """Every file that README or ARCHITECTURE name is there."""
    text = README + (REPOSITORY / "ARCHITECTURE.md").read_text("utf-8")
    named = set(re.findall(r"`((?:tests|sql|script|bench|postfix)/[\w./*]+)`", text))
    assert named
    assert [each for each in sorted(named) if not list(REPOSITORY.glob(each))] == []
