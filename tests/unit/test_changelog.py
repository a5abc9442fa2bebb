"""The changelog: its table of changed names matches the code."""

import re
from pathlib import Path

from pipehandler.settings.config import RENAMED
from pipehandler.store.roles import ADDRESS_ADMIN, FORMER, MAINTENANCE

CHANGELOG = (Path(__file__).parents[2] / "CHANGELOG.md").read_text("utf-8")


def rows(where: str) -> dict[str, str]:
    """The old and the new names of one kind."""
    return dict(re.findall(rf"^\| {where} \| `(\S+)` \| `(\S+)` \|$", CHANGELOG, re.MULTILINE))


def test_renamed_keys() -> None:
    """Every configuration key that has an old name is in the table."""
    assert rows("configuration") == RENAMED


def test_renamed_roles() -> None:
    """Every group role that has an old name is in the table."""
    assert rows("database roles") == dict(zip(FORMER, (ADDRESS_ADMIN, MAINTENANCE), strict=True))
