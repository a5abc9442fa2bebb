"""The extras of single features are those of pyproject.toml."""

import tomllib
from pathlib import Path

import pytest

from pipehandler.settings.extras import EXTRAS, MissingExtraError, install_command, is_installed, require

PYPROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text("utf-8"))


def test_requirements() -> None:
    """The packages named as missing are those that the extra installs; the other extras choose how libpq is
    installed."""
    declared = PYPROJECT["project"]["optional-dependencies"]
    assert {name: list(extra.requirements) for name, extra in EXTRAS.items()} == {
        name: requirements for name, requirements in declared.items() if name not in ("binary", "c")
    }


def test_all_bounds_of_psycopg_are_one() -> None:
    """The dependency and both extras that choose libpq have the same bounds."""
    project = PYPROJECT["project"]
    (plain,) = [each for each in project["dependencies"] if each.startswith("psycopg")]
    for extra in ("binary", "c"):
        assert project["optional-dependencies"][extra] == [plain.replace("psycopg", f"psycopg[{extra}]")]


@pytest.mark.parametrize("extra", EXTRAS)
def test_installed(extra: str) -> None:
    """The test environment has all extras; a feature whose package is installed is not refused."""
    assert is_installed(extra)
    require(extra, "a feature")


def test_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the feature, the extra and the command."""
    monkeypatch.setitem(EXTRAS, "sentry", EXTRAS["sentry"]._replace(modules=("not_installed",)))
    with pytest.raises(MissingExtraError) as error:
        require("sentry", "a feature")
    assert str(error.value).startswith("a feature needs sentry-sdk")
    assert "pipehandler[sentry]" in str(error.value)
    assert str(error.value).endswith(install_command("sentry"))
