"""The benchmarks run as described in docs/performance.md, all of them, with tiny numbers; each of them counts the
stored messages itself."""

import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
TITLES = (
    "One delivery",
    "Behind the resident entrypoint",
    "One worker",
    "Through Postfix: real mail",
    "Through Postfix: newsletters",
    "Sizes",
    "Recipients",
    "Rows that are there already",
    "A backlog",
    "What is written",
    "Round trips",
    "The journal",
    "Space after many short lives",
    "Space while they pass",
    "Removing mail",
    "Plans",
    "A change of rules",
    "Long values",
    "Four shards, and one database",
    "One of four shards killed",
    "Latency",
    "The aims",
)


@pytest.mark.long
@pytest.mark.usefixtures("_postfix")
def test_bench(tmp_path: Path) -> None:
    """All tables are printed, in one file; a message that was not stored would have been an error."""
    results = tmp_path / "results.md"
    done = subprocess.run(
        [REPOSITORY / "bench" / "run", "--small", "--results", results], capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = results.read_text("utf-8")
    assert [line.removeprefix("### ") for line in found.splitlines() if line.startswith("### ")] == list(TITLES)
    assert found.count(" reached") > len(TITLES)
