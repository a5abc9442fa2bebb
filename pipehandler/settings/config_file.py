"""The configuration file: TOML, read into a Config.

Postfix gives its pipe a scrubbed environment, so everything comes from the file. A key that is missing has its default. A
key that is unknown, of the wrong type or out of bounds is a ConfigError, which names the key, the value and what is
allowed.
"""

import os
import tomllib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..mail.outcome import MISCONFIGURED, Undelivered
from .config import RENAMED, SECTIONS, Config, Key, keys, memory_needed

if TYPE_CHECKING:
    from .retention import Rule

DEFAULT_PATH = "/etc/pipehandler/pipehandler.toml"


class ConfigError(Undelivered):
    """The configuration cannot be used; the text names the file, the key, the value and what is allowed.

    usable: a configuration with only the sections [log] and [state], where those are valid, so that the error can be recorded.
    """

    def __init__(self, text: str, usable: Config | None = None) -> None:
        super().__init__(MISCONFIGURED, text)
        self.usable = usable or Config()


def load(path: str = DEFAULT_PATH) -> Config:
    """Read the configuration from `path`.

    Raises ConfigError if the file cannot be read, is not TOML, or holds a key or a value that is not allowed.
    """
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise ConfigError(
            f"{path}: {os.strerror(error.errno or 0)}; create it, or name another file with --config"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error
    try:
        return _config(table)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", _usable(table)) from None


def load_usable(path: str) -> tuple[Config, str]:
    """Read the configuration, for programs that must work while it is wrong: what can be used of it, and why not the rest.

    The reason is "" if all of it can be used.
    """
    try:
        return load(path), ""
    except ConfigError as error:
        return error.usable, str(error)


def _usable(table: dict[str, Any]) -> Config:
    """Return the sections [log] and [state] of a configuration that has an error, each unless the error is there."""
    usable = Config()
    for name in ("log", "state"):
        with suppress(ConfigError):
            usable = usable._replace(**{name: getattr(_config({name: table.get(name, {})}), name)})
    return usable


def _config(table: dict[str, Any]) -> Config:
    values: dict[str, Any] = {}
    old_keys: list[str] = []
    for name, section in table.items():
        if name == "retention":
            values[name] = _rules(section)
            continue
        if name not in SECTIONS:
            raise ConfigError(f"[{name}] is not a section; the sections are {_names(SECTIONS)}, and [[retention]]")
        if not isinstance(section, dict):
            raise ConfigError(f"{name} = {section!r} is outside a section; the sections are {_names(SECTIONS)}")
        values[name] = _section(name, SECTIONS[name], section)
        old_keys += [f"{name}.{key}" for key in section if f"{name}.{key}" in RENAMED]
    config = Config(**values, old_keys=tuple(old_keys))
    if config.limits.parse_timeout >= config.limits.deadline:
        parse_timeout = next((old for old in old_keys if old == "limits.parse_seconds"), "limits.parse_timeout")
        raise ConfigError(
            f"{parse_timeout} = {config.limits.parse_timeout} leaves no time within"
            f" limits.deadline = {config.limits.deadline}; it must be smaller"
        )
    needed = memory_needed(config.limits.message_size)
    if config.limits.memory < needed:
        raise ConfigError(
            f"limits.memory = {config.limits.memory} is too small for"
            f" limits.message_size = {config.limits.message_size}; allowed: {needed} and more"
        )
    return config


def _rules(tables: Any) -> "tuple[Rule, ...]":
    from .retention import rules  # a delivery without rules does not load the module

    try:
        return rules(tables)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _section(name: str, section: Any, table: dict[str, Any]) -> Any:
    known = keys(section)
    values = {}
    for written, value in table.items():
        key = RENAMED.get(f"{name}.{written}", f".{written}").partition(".")[2]
        if key not in known:
            raise ConfigError(f"{name}.{written} is not a key; [{name}] has {_names(known)}")
        if key != written and key in table:
            raise ConfigError(
                f"{name}.{written} is the old name of {name}.{key}, and both are set; remove {name}.{written}"
            )
        values[key] = _value(f"{name}.{written}", value, section._field_defaults[key], known[key])
    return section(**values)


def _value(name: str, value: Any, default: Any, key: Key) -> Any:
    """Return `value` if it has the type of the key's default and is allowed. Raises ConfigError."""
    if isinstance(default, bool):
        if isinstance(value, bool):
            return value
        allowed = "true or false"
    elif isinstance(default, int):
        if isinstance(value, int) and not isinstance(value, bool) and key.low <= value <= key.high:
            return value
        allowed = f"a whole number from {key.low} to {key.high}"
    elif isinstance(default, tuple):
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        allowed = "a list of strings"
    elif key.choices:
        if value in key.choices:
            return value
        allowed = " or ".join(f'"{choice}"' for choice in key.choices)
    else:
        if isinstance(value, str) and "\0" not in value:
            return value
        allowed = "a string without NUL"
    raise ConfigError(f"{name} = {value!r}; allowed: {allowed}")


def _names(names: Any) -> str:
    return ", ".join(names)
