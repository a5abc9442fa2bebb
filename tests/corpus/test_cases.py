"""Small messages that were once read wrongly, each with the right values.

They are in the folder `cases` next to the corpus of real mail. EXPECTED.md there has tables with a row for
each value (file, field, right, today); the tables in `more` are prose, so cases.tsv beside this module restates them.
A row names one field and what it should be: a JSON value, perhaps with a note after it, or one of
matches `expression` (on the whole value), contains "text", does not contain "text".
"""

import json
import os
import re
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from corpus.messages import FOLDER, table
from pipehandler.ingress import mbox
from pipehandler.parse.message import parse

CASES = FOLDER.parent / "cases"
HEADING = ["file", "field", "right", "today"]
# Rows that a later decision replaces.
REPLACED = {
    ("fail-32-content-location.eml", "attachment file_name"): "Content-Location has a column of its own",
}

needs_cases = pytest.mark.skipif(
    not (CASES / "EXPECTED.md").is_file(),
    reason=f"no folder {CASES} (PIPEHANDLER_CORPUS names the corpus, which stands beside it)",
)


class Case(NamedTuple):
    """One row: the path of the message in CASES, the field, and what it should be, in words."""

    file: str
    field: str
    right: str


def cells(line: str) -> list[str]:
    r"""The cells of one row of a Markdown table; a bar inside a cell is written \|."""
    return [cell.replace(r"\|", "|").strip() for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]


def cases() -> Iterator[Case]:
    """All rows; an empty first cell means the file of the row above."""
    if not CASES.is_dir():
        return
    heading: list[str] = []
    file = ""
    for line in (CASES / "EXPECTED.md").read_text(encoding="utf-8").splitlines():
        row = cells(line) if line.startswith("|") else []
        if not row or set(row[0]) == {"-"}:
            heading = heading if row else []
        elif not heading:
            heading = row
        elif heading == HEADING:
            file = row[0] or file
            if (file, row[1]) not in REPLACED:
                yield Case(file, row[1], row[2])
    for (file, field), right in table("cases.tsv").items():
        yield Case(f"more/{file}", field, right)


def value(raw: bytes, field: str) -> Any:
    """The field of EXPECTED.md in the parsed `raw`."""
    parsed = parse(raw)
    if field.startswith("content of "):
        name = field.removeprefix("content of ")
        return next((file.content for file in parsed.attachments if file.file_name == name), b"").decode("latin-1")
    lists = {"from": parsed.from_, "to_list": parsed.to, "cc_list": parsed.cc}
    name, _, part = field.partition(" ")
    if part in ("addresses", "names") and name in lists:
        return [mailbox.address if part == "addresses" else mailbox.name for mailbox in lists[name]]
    return {
        "text_body": lambda: parsed.text,
        "html_body": lambda: parsed.html,
        "subject": lambda: parsed.subject,
        "from_name": lambda: parsed.from_[0].name if parsed.from_ else None,
        "from_address": lambda: parsed.from_[0].address if parsed.from_ else None,
        "in_reply_to": lambda: parsed.in_reply_to,
        "reference_ids": lambda: parsed.references,
        "date (UTC)": lambda: parsed.date.astimezone(UTC).isoformat() if parsed.date else None,
        "date_offset": lambda: parsed.date_offset,
        "attachment file_name": lambda: [file.file_name for file in parsed.attachments],
        "attachment octets": lambda: [file.content.hex() for file in parsed.attachments],
        "codes in defects": lambda: sorted({defect.code for defect in parsed.defects}),
    }[field]()  # type: ignore[no-untyped-call]


def is_right(found: Any, right: str) -> bool:
    """Whether a value is as the row requires; null and "" are equivalent."""
    if right.startswith("matches "):
        expression = re.match(r"matches `(.+?)`", right)
        assert expression, right
        text = "\n".join(found) if isinstance(found, list) else found
        return re.fullmatch(expression[1], text or "", re.DOTALL) is not None
    for words, wanted in (("contains ", True), ("does not contain ", False)):
        if right.startswith(words):
            part, _ = json.JSONDecoder().raw_decode(right, len(words))
            return (part in (found or "")) is wanted
    expected, _ = json.JSONDecoder().raw_decode(right)
    return (found or None) == (expected or None) if isinstance(expected, str | None) else found == expected


@needs_cases
def test_all_cases_are_read() -> None:
    """Every message in the folder has a row, and the tables were found."""
    rows = list(cases())
    folders = {path.relative_to(CASES).as_posix() for path in CASES.rglob("*.eml")}
    assert folders - {row.file for row in rows} <= {file for file, _ in REPLACED}
    assert len(rows) > 100


@needs_cases
@pytest.mark.parametrize("case", list(cases()), ids=lambda case: f"{case.file}-{case.field}")
def test_case(case: Case) -> None:
    """The value matches the table."""
    found = value((CASES / case.file).read_bytes(), case.field)
    assert is_right(found, case.right), f"{found!r} is not {case.right}"


@needs_cases
@pytest.mark.parametrize("path", sorted(CASES.glob("*.mbox")), ids=lambda path: path.stem)
def test_mbox(path: Path) -> None:
    """The messages of the mbox are those of the table, and the text of the first is."""
    (row,) = (line for line in (CASES / "EXPECTED.md").read_text("utf-8").splitlines() if f" {path.name} " in line)
    number, text = re.match(r"(\d) messages; text_body of the first is `(.*)`$", cells(row)[1]).groups()  # type: ignore[union-attr]
    descriptor = os.open(path, os.O_RDONLY)
    entries = list(mbox.read(descriptor, 1 << 20))
    os.close(descriptor)
    assert len(entries) == int(number)
    assert parse(entries[0].readings[0]).text == text.replace(r"\n", "\n")
    assert not any(entry.doubts for entry in entries)
