"""Everything that ruff and mypy are made to ignore has a reason next to it."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
_IGNORE = re.compile(r"# (?:noqa|type: ignore)\b")
_EXPLAINED = re.compile(r"# (?:noqa: [A-Z0-9]+(?:, [A-Z0-9]+)*|type: ignore\[[a-z, -]+\]) +# ?\S")


@pytest.mark.parametrize("folder", ["pipehandler", "script", "bench"])
def test_every_ignore_has_a_reason(folder: str) -> None:
    """Each noqa and each type: ignore names its rule, and the reason why it does not apply."""
    lines = [
        (path.relative_to(REPOSITORY), number, line)
        for path in sorted((REPOSITORY / folder).rglob("*.py"))
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if _IGNORE.search(line)
    ]
    assert [place for *place, line in lines if not _EXPLAINED.search(line)] == []
