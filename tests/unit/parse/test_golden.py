"""The golden pairs: one for each class of message that is known to be read wrongly by somebody."""

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
    """The message says what a person found in it, defects included."""
    promised = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    assert json.loads(json.dumps(read(name))) == promised
