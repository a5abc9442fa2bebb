"""The golden pairs: one for each class of message that some parser is known to read wrongly."""

import json

import pytest
from golden.write import FOLDER, read

NAMES = sorted(path.stem for path in FOLDER.glob("*.eml"))


def test_every_message_has_its_promise() -> None:
    """No .eml without .json, and no .json without .eml."""
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == NAMES
    assert len(NAMES) > 90


@pytest.mark.parametrize("name", NAMES)
def test_golden(name: str) -> None:
    """The parser finds in the message what a person found, including defects."""
    promised = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert json.loads(json.dumps(read(name))) == promised
