"""What counts as the installed code."""

import re
from importlib.metadata import requires

from pipehandler.runtime.installation import PACKAGES


def test_every_dependency() -> None:
    """A new version of any library that deliveries may load is noticed, and a damaged file of it is reported."""
    needed = {re.split(r"[^\w-]", each)[0] for each in requires("pipehandler") or [] if "extra ==" not in each}
    assert "lxml" in needed
    assert {"pipehandler", "psycopg-binary", "psycopg-c", *needed} == set(PACKAGES)
