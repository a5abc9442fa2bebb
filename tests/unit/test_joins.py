"""Statements that join a message with what belongs to it, in the program, its documents and its tests."""

import re
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_PATHS = ("README.md", "bench/**/*.py", "docs/**/*.md", "pipehandler/**/*.py", "sql/code/*.sql", "tests/**/*.py")
_BY_ID = re.compile(r"\b[a-z]\.(?:message = [a-z]\.(?:message|id)|id = [a-z]\.message)\b")
_BY_DAY = re.compile(r"\b[a-z]\.day = (?:[a-z]\.day|ANY)")
_NEAR = 200  # characters between the two conditions of a join, at most


def test_on_day_and_id() -> None:
    """The same message for another recipient on another day is a second row with the same id
    (docs/design/partitions.md): a join on the id alone returns each of them twice."""
    joins, on_the_id_alone = 0, []
    for path in (each for glob in _PATHS for each in _ROOT.glob(glob)):
        text = path.read_text()
        for found in _BY_ID.finditer(text):
            joins += 1
            if not _BY_DAY.search(text, max(0, found.start() - _NEAR), found.end() + _NEAR):
                on_the_id_alone.append(f"{path}, line {text.count(chr(10), 0, found.start()) + 1}: {found[0]}")
    assert joins > 50
    assert on_the_id_alone == []
