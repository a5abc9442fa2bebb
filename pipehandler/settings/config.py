"""The configuration: one TOML file read into one frozen, typed object, every value within its bounds.

Postfix gives its pipe a scrubbed environment, so everything comes from the file. A key that is missing has the default
given here. A key that is unknown, of the wrong type or out of bounds is a ConfigError, which names the key, the value and
what is allowed. The docs list every key; a test compares.
"""

import os
import tomllib
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from ..mail.outcome import MISCONFIGURED, Undelivered

if TYPE_CHECKING:
    from .retention import Rule

DEFAULT_PATH = "/etc/pipehandler/pipehandler.toml"
DEFAULT_SOCKET = "/run/pipehandler/socket"

RENAMED = {
    "limits.parse_seconds": "limits.parse_timeout",
    "serve.wait": "serve.queue_timeout",
    "serve.messages": "serve.max_messages",
    "serve.growth": "serve.max_growth",
    "sentry.every": "sentry.min_interval",
}
"""Keys of the previous release and their new names. An old name still works, so that one file suits both releases during an
upgrade or a rollback; `pipehandler check` reports it."""


class ConfigError(Undelivered):
    """The configuration cannot be used; the text names the file, the key, the value and what is allowed.

    usable: a configuration with only the sections [log] and [state], where those are valid, so that the error can be recorded.
    """

    def __init__(self, text: str, usable: "Config | None" = None) -> None:
        super().__init__(MISCONFIGURED, text)
        self.usable = usable or Config()


def _key(
    default: Any, meaning: str, low: int | None = None, high: int | None = None, choices: tuple[str, ...] = ()
) -> Any:
    """Describe one key: its default, its meaning, the bounds of a number (both included), the choices of a string."""
    return field(default=default, metadata={"meaning": meaning, "low": low, "high": high, "choices": choices})


@dataclass(frozen=True, slots=True)
class Database:
    """Where messages are stored."""

    conninfo: str = _key("", "libpq connection string of the handler; secrets belong in a passfile")
    admin_conninfo: str = _key("", "the same for the commands that migrate, read and repair; empty: conninfo")
    connect_timeout: int = _key(5, "seconds to wait for a connection, for each host named in conninfo", 2, 300)
    statement_timeout: int = _key(20, "seconds that the server may spend on one message", 1, 300)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one delivery may cost."""

    deadline: int = _key(60, "seconds for one delivery in all; below the transport's time limit", 5, 900)
    message_size: int = _key(52_428_800, "octets of the largest message that is accepted", 1024, 1_000_000_000)
    parse_timeout: int = _key(10, "seconds after which a message is stored without being parsed", 1, 300)
    memory: int = _key(1_073_741_824, "octets of address space for one delivery", 268_435_456, 1 << 40)


@dataclass(frozen=True, slots=True)
class Store:
    """What is stored, and under which name."""

    attachments: bool = _key(True, "false: attachments are described only; their bytes stay in the raw message")
    mail_host: str = _key("", "the name of this mail host in delivery.mail_host; empty: the host name")
    notify: bool = _key(True, "true: send NOTIFY when mail is stored; false: readers poll")


@dataclass(frozen=True, slots=True)
class Recipients:
    """Which recipients mail is stored for, decided on delivery; at RCPT TO Postfix decides with its own lookup."""

    policy: str = _key("any", "known: a recipient without a lease is rejected (67)", choices=("any", "known"))
    expired: str = _key(
        "store",
        "mail for a recipient whose lease has expired since RCPT TO: stored but hidden, or rejected (67)",
        choices=("store", "reject"),
    )
    delimiter: str = _key(
        "+", "the characters that may begin an extension, as in Postfix's recipient_delimiter; empty: none"
    )
    domain: str = _key("", "the domain of `pipehandler address new` without --domain")


@dataclass(frozen=True, slots=True)
class Authentication:
    """Which hosts' verdicts about a message are trusted."""

    trusted_authserv_ids: tuple[str, ...] = _key(
        (), "host names (RFC 8601 2.5) whose Authentication-Results, Received-SPF and spam fields are read"
    )


@dataclass(frozen=True, slots=True)
class State:
    """State that deliveries on one mail host share."""

    directory: str = _key("/var/lib/pipehandler", "a directory that only the handler's account may write to")


@dataclass(frozen=True, slots=True)
class Log:
    """Where the log line of each delivery is written."""

    syslog: bool = _key(True, "true: log to syslog, facility mail")
    file: str = _key("", "also append to this file; empty: no file")


@dataclass(frozen=True, slots=True)
class Serve:
    """The resident workers of `pipehandler serve`."""

    socket: str = _key(
        DEFAULT_SOCKET, "the socket where the entrypoint hands messages over; the same as --socket in master.cf"
    )
    workers: int = _key(4, "messages that are delivered at the same time, each over a separate connection", 1, 256)
    queue_timeout: int = _key(
        10,
        "seconds that a message may wait for a free worker before it is deferred; at most half of limits.deadline",
        1,
        300,
    )
    max_messages: int = _key(1000, "messages after which a worker is replaced", 1, 1_000_000)
    max_growth: int = _key(67_108_864, "octets by which a worker may grow before it is replaced", 1_048_576, 1 << 40)


@dataclass(frozen=True, slots=True)
class Sentry:
    """Error reporting."""

    dsn: str = _key(
        "", "the Sentry DSN for internal faults: kind, stack, sizes and versions, never mail; empty: no reports"
    )
    quarantined: bool = _key(False, "true: also report messages that could not be parsed")
    min_interval: int = _key(3600, "minimum seconds between reports of the same fault, per host", 1, 31_536_000)


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration; an instance without arguments has the defaults.

    old_keys: the keys of RENAMED that the file spells with their old name.
    """

    database: Database = field(default_factory=Database)
    limits: Limits = field(default_factory=Limits)
    store: Store = field(default_factory=Store)
    recipients: Recipients = field(default_factory=Recipients)
    authentication: Authentication = field(default_factory=Authentication)
    state: State = field(default_factory=State)
    log: Log = field(default_factory=Log)
    serve: Serve = field(default_factory=Serve)
    sentry: Sentry = field(default_factory=Sentry)
    retention: "tuple[Rule, ...]" = ()
    old_keys: tuple[str, ...] = field(default=(), compare=False)

    @property
    def mail_host(self) -> str:
        """The name of this mail host: store.mail_host, or the host name."""
        return self.store.mail_host or os.uname().nodename


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
            usable = replace(usable, **{name: getattr(_config({name: table.get(name, {})}), name)})
    return usable


def _config(table: dict[str, Any]) -> Config:
    sections = {part.name: part.default_factory for part in fields(Config) if part.default_factory is not MISSING}
    values: dict[str, Any] = {}
    old_keys: list[str] = []
    for name, section in table.items():
        if name == "retention":
            values[name] = _rules(section)
            continue
        if name not in sections:
            raise ConfigError(f"[{name}] is not a section; the sections are {_names(sections)}, and [[retention]]")
        if not isinstance(section, dict):
            raise ConfigError(f"{name} = {section!r} is outside a section; the sections are {_names(sections)}")
        values[name] = _section(name, sections[name], section)
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


def memory_needed(message_size: int) -> int:
    """Return the octets of address space that a message of `message_size` octets may need.

    The interpreter with its libraries maps up to 250 MB; the message, its attachments, libpq's send buffer (which doubles
    as it grows) and the parser's scratch come to less than six times the message (measured).
    """
    return 262_144_000 + 6 * message_size


def _section(name: str, section: Any, table: dict[str, Any]) -> Any:
    keys = {key.name: key for key in fields(section)}
    values = {}
    for written, value in table.items():
        key = RENAMED.get(f"{name}.{written}", f".{written}").partition(".")[2]
        if key not in keys:
            raise ConfigError(f"{name}.{written} is not a key; [{name}] has {_names(keys)}")
        if key != written and key in table:
            raise ConfigError(
                f"{name}.{written} is the old name of {name}.{key}, and both are set; remove {name}.{written}"
            )
        values[key] = _value(f"{name}.{written}", value, keys[key])
    return section(**values)


def _value(name: str, value: Any, key: Any) -> Any:
    """Return `value` if it has the type of the key's default and is allowed. Raises ConfigError."""
    low, high = key.metadata["low"], key.metadata["high"]
    if isinstance(key.default, bool):
        if isinstance(value, bool):
            return value
        allowed = "true or false"
    elif isinstance(key.default, int):
        if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high:
            return value
        allowed = f"a whole number from {low} to {high}"
    elif isinstance(key.default, tuple):
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        allowed = "a list of strings"
    elif key.metadata["choices"]:
        if value in key.metadata["choices"]:
            return value
        allowed = " or ".join(f'"{choice}"' for choice in key.metadata["choices"])
    else:
        if isinstance(value, str) and "\0" not in value:
            return value
        allowed = "a string without NUL"
    raise ConfigError(f"{name} = {value!r}; allowed: {allowed}")


def _names(names: Any) -> str:
    return ", ".join(names)
