"""The configuration: a value that cannot be changed, and what is said of its keys."""

import pytest

from pipehandler.settings.config import RENAMED, SECTIONS, Config, keys
from pipehandler.settings.retention import KEYS


def test_frozen() -> None:
    """The configuration cannot be changed."""
    config = Config()
    with pytest.raises(AttributeError):
        config.limits.deadline = 1  # type: ignore[misc]
    with pytest.raises(AttributeError):
        config.limits = config.limits  # type: ignore[misc]


def test_every_key_says_what_it_means() -> None:
    """Each key has a description for people; the docs are generated from it."""
    for section in SECTIONS.values():
        assert all(key.meaning for key in keys(section).values())
    assert all(key.meaning for key in KEYS.values())


def test_renamed_keys_exist() -> None:
    """Every renamed key has its new name in the code and no longer its old one."""
    known = {f"{name}.{key}" for name, section in SECTIONS.items() for key in keys(section)}
    assert set(RENAMED.values()) <= known
    assert not RENAMED.keys() & known
