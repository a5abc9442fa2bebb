"""The location of the corpus of real mail, and the list of its messages.

It is expected in ../shared/corpus next to the checkout, or in the folder that PIPEHANDLER_CORPUS names. MANIFEST.tsv
there lists all files; expectations of other projects, and their licences, are tagged as such, all other files are
messages.
"""

import csv
import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("PIPEHANDLER_CORPUS") or REPOSITORY.parent / "shared" / "corpus")

needs_corpus = pytest.mark.skipif(
    not (FOLDER / "MANIFEST.tsv").is_file(),
    reason=f"no corpus of real mail in {FOLDER} (PIPEHANDLER_CORPUS says where it is)",
)


def names() -> list[str]:
    """The names of all messages, relative to FOLDER, in order."""
    with (FOLDER / "MANIFEST.tsv").open(encoding="utf-8", newline="") as file:
        entries = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return sorted(entry["file"] for entry in entries if not {"expected", "licence"} & set(entry["tags"].split(",")))


def read(name: str) -> bytes:
    """The octets of one message."""
    return (FOLDER / name).read_bytes()


def table(name: str) -> dict[tuple[str, ...], str]:
    """A table in this folder: the last column by all others; lines that begin with # are comments."""
    lines = (Path(__file__).parent / name).read_text(encoding="utf-8").splitlines()
    rows = [tuple(line.split("\t")) for line in lines if line and not line.startswith("#")]
    assert len({row[:-1] for row in rows}) == len(rows), f"a line stands twice in {name}"
    return {row[:-1]: row[-1] for row in rows}
