"""How a test handles a missing service."""

import os

import pytest


def missing(what: str) -> None:
    """Report a missing service: an error in CI, where everything must be present, otherwise a skip."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing here, and in CI everything must be there")
    pytest.skip(f"{what} is missing here")
