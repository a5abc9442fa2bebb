"""Docstrings and comments name modules that exist."""

import re
from pathlib import Path

import pytest

import pipehandler

PACKAGE = Path(pipehandler.__file__).parent


@pytest.mark.parametrize("module", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_named_modules_exist(module: Path) -> None:
    """A module that is named, such as mail/outcome.py, is in the package or next to the module that names it."""
    names = re.findall(r"(?<![\w/])(?:[a-z_]+/)*[a-z_]+\.py\b", module.read_text("utf-8"))
    folders = (PACKAGE, PACKAGE.parent, module.parent)
    assert [name for name in names if not any((folder / name).exists() for folder in folders)] == []
