"""What a test does when a service is not there."""

import os

import pytest


def missing(what: str) -> None:
    """Say that something is missing: an error in CI, where everything must be there, else a skip."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is missing here, and in CI everything must be there")
    pytest.skip(f"{what} is missing here")
