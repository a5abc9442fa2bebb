"""The path of one message, as ARCHITECTURE.md lists it, exists and is short."""

import ast
import re
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
MOST_LINES = 300


def hops() -> list[tuple[str, Path]]:
    """The functions of the table between <!-- path --> and <!-- /path -->, each with its file; a file's name stands for
    the whole file."""
    text = (REPOSITORY / "ARCHITECTURE.md").read_text("utf-8")
    table = text.partition("<!-- path -->")[2].partition("<!-- /path -->")[0]
    found = re.findall(r"^\| \d+ \| \[`([^`]+)`\]\(([^)]+)\) \|", table, re.MULTILINE)
    return [(name, REPOSITORY / path) for name, path in found]


def lines(name: str, path: Path) -> int:
    """The lines of one hop; raises if it does not exist."""
    text = path.read_text("utf-8")
    if name == path.name:
        return len(text.splitlines())
    (function,) = (
        node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef) and node.name == name
    )
    assert function.end_lineno
    return function.end_lineno - function.lineno + 1


def test_path() -> None:
    """Every hop exists, and a reader can follow a message from master.cf to the status in less than 300 lines."""
    found = hops()
    assert len(found) >= 12
    assert {name for name, _ in found} >= {"run", "guarded_parse", "ingest", "after_reply"}
    counted = {f"{path.stem}.{name}": lines(name, path) for name, path in found}
    assert sum(counted.values()) < MOST_LINES, counted
