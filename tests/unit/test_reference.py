"""The generated documents match this program; `script/reference` writes them."""

import shutil
import subprocess
from pathlib import Path

import pytest
from harness.missing import missing
from reference import commands, manual

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {
    "cli.md": commands.page,
    "man/pipehandler.8": manual.pipehandler,
    "man/pipehandler.toml.5": manual.configuration,
}


@pytest.mark.parametrize("name", PAGES)
def test_page(name: str) -> None:
    """A page matches the present program; if not, run script/reference."""
    assert (DOCS / name).read_text("utf-8") == PAGES[name]()


def test_every_option_is_explained() -> None:
    """Every option and every command has a text."""
    found = list(commands.commands())
    assert len(found) > 20
    assert [command.name for command in found if not command.description[0]] == []
    assert [(command.name, names) for command in found for names, meaning in command.options if not meaning] == []


@pytest.mark.parametrize("name", [name for name in PAGES if name.startswith("man/")])
def test_manual(name: str) -> None:
    """mandoc has no warning about a manual page."""
    if shutil.which("mandoc") is None:
        missing("mandoc")
    done = subprocess.run(["mandoc", "-Tlint", "-Wwarning", DOCS / name], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
