"""The configuration: one TOML file read into one frozen, typed object, every value within its bounds.

Postfix gives its pipe a scrubbed environment, so everything comes from the file. What is not in it has the default that
stands here; what is in it and not known here, of the wrong type or out of bounds is a ConfigError, which names the
key, the value and what is allowed. The README lists every key; a test compares.
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


class ConfigError(Undelivered):
    """The configuration cannot be used; the text names the file, the key, the value and what is allowed.

    `usable`: what it says all the same about where to write that down; the defaults where it does not.
    """

    def __init__(self, text: str, usable: "Config | None" = None) -> None:
        super().__init__(MISCONFIGURED, text)
        self.usable = usable or Config()


def _key(
    default: Any, meaning: str, low: int | None = None, high: int | None = None, choices: tuple[str, ...] = ()
) -> Any:
    """One key: its default, its meaning for people, for a number its bounds (both allowed), and for a string that is not just
    any string what it may be."""
    return field(default=default, metadata={"meaning": meaning, "low": low, "high": high, "choices": choices})


@dataclass(frozen=True, slots=True)
class Database:
    """Where messages are stored."""

    conninfo: str = _key("", "libpq connection string of the handler; secrets belong in a passfile")
    admin_conninfo: str = _key("", "the same for the commands that migrate, read and repair; empty: conninfo")
    connect_timeout: int = _key(5, "seconds to wait for a connection, for each host named in conninfo", 2, 300)
    statement_timeout: int = _key(20, "seconds that the server may work on one message", 1, 300)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one delivery may cost."""

    deadline: int = _key(60, "seconds for one delivery, all together; below the transport's time limit", 5, 900)
    message_size: int = _key(52_428_800, "octets of the largest message that is accepted", 1024, 1_000_000_000)
    parse_seconds: int = _key(10, "seconds after which a message is stored without being parsed", 1, 300)
    memory: int = _key(1_073_741_824, "octets of address space for one delivery", 268_435_456, 1 << 40)


@dataclass(frozen=True, slots=True)
class Store:
    """What is stored, and under which name."""

    attachments: bool = _key(True, "false: attachments are described only; their bytes stay in the raw message")
    mail_host: str = _key("", "the name of this mail host in delivery.mail_host; empty: the host name")
    notify: bool = _key(True, "true: whoever waits for new mail is woken (NOTIFY); false: readers poll")


@dataclass(frozen=True, slots=True)
class Recipients:
    """For whom mail is stored, when it is delivered; at RCPT TO it is Postfix that asks."""

    policy: str = _key("any", "known: a recipient without a lease is rejected (67)", choices=("any", "known"))
    expired: str = _key(
        "store",
        "a recipient whose lease has expired since RCPT TO: stored, out of sight, or rejected (67)",
        choices=("store", "reject"),
    )
    delimiter: str = _key(
        "+", "the characters that may begin an extension, as recipient_delimiter of Postfix; empty: none"
    )
    domain: str = _key("", "the domain of `pipehandler address new` without --domain")


@dataclass(frozen=True, slots=True)
class Authentication:
    """Whose verdicts about a message are believed."""

    trusted_authserv_ids: tuple[str, ...] = _key(
        (), "host names (RFC 8601 2.5) whose Authentication-Results, Received-SPF and spam fields are read"
    )


@dataclass(frozen=True, slots=True)
class State:
    """What deliveries on one mail host tell each other."""

    directory: str = _key("/var/lib/pipehandler", "a directory that the handler's account, and nobody else, may write")


@dataclass(frozen=True, slots=True)
class Log:
    """Where the one line for each delivery goes."""

    syslog: bool = _key(True, "to syslog, facility mail")
    file: str = _key("", "append it to this file as well; empty: to none")


@dataclass(frozen=True, slots=True)
class Serve:
    """The resident workers of `pipehandler serve`."""

    socket: str = _key(
        DEFAULT_SOCKET, "the socket where the entrypoint hands messages over; also --socket in master.cf"
    )
    workers: int = _key(4, "messages that are delivered at the same time, each on a connection of its own", 1, 256)
    wait: int = _key(
        10,
        "seconds that a message may wait for a free worker before it is deferred; at most half of limits.deadline",
        1,
        300,
    )
    messages: int = _key(1000, "messages after which a worker is replaced", 1, 1_000_000)
    growth: int = _key(67_108_864, "octets by which a worker may grow before it is replaced", 1_048_576, 1 << 40)


@dataclass(frozen=True, slots=True)
class Sentry:
    """Who is told of what nobody foresaw."""

    dsn: str = _key(
        "", "where Sentry is told of internal faults: kind, stack, sizes and versions, never mail; empty: nowhere"
    )
    quarantined: bool = _key(False, "true: of messages that could not be parsed, too")
    every: int = _key(3600, "seconds in which one fault is told once on one mail host", 1, 31_536_000)


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration; an instance without arguments is the defaults."""

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

    @property
    def mail_host(self) -> str:
        """The name of this mail host: store.mail_host, or the host name."""
        return self.store.mail_host or os.uname().nodename


def load(path: str = DEFAULT_PATH) -> Config:
    """Read the configuration from `path`.

    Raises ConfigError where the file cannot be read, is no TOML, or says something that is not allowed.
    """
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        raise ConfigError(
            f"{path}: {os.strerror(error.errno or 0)}; create it, or name another with --config"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error
    try:
        return _config(table)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}", _usable(table)) from None


def _usable(table: dict[str, Any]) -> Config:
    """Of a configuration that is wrong somewhere, the sections that say where that can be written down."""
    usable = Config()
    for name in ("log", "state"):
        with suppress(ConfigError):
            usable = replace(usable, **{name: getattr(_config({name: table.get(name, {})}), name)})
    return usable


def _config(table: dict[str, Any]) -> Config:
    sections = {part.name: part.default_factory for part in fields(Config) if part.default_factory is not MISSING}
    values: dict[str, Any] = {}
    for name, section in table.items():
        if name == "retention":
            values[name] = _rules(section)
            continue
        if name not in sections:
            raise ConfigError(f"[{name}] is not a section; there are {_names(sections)}, and [[retention]]")
        if not isinstance(section, dict):
            raise ConfigError(f"{name} = {section!r} stands outside a section; there are {_names(sections)}")
        values[name] = _section(name, sections[name], section)
    config = Config(**values)
    if config.limits.parse_seconds >= config.limits.deadline:
        raise ConfigError(
            f"limits.parse_seconds = {config.limits.parse_seconds} leaves nothing of"
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
    from .retention import rules  # a delivery without rules does not load them

    try:
        return rules(tables)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def memory_needed(message_size: int) -> int:
    """The octets of address space that a message of `message_size` octets may need.

    The interpreter with its libraries maps up to 250 MB; the message, its attachments, libpq's send buffer (which doubles
    as it grows) and the parser's scratch come to less than six times the message (measured).
    """
    return 262_144_000 + 6 * message_size


def _section(name: str, section: Any, table: dict[str, Any]) -> Any:
    keys = {key.name: key for key in fields(section)}
    values = {}
    for key, value in table.items():
        if key not in keys:
            raise ConfigError(f"{name}.{key} is not a key; [{name}] has {_names(keys)}")
        values[key] = _value(f"{name}.{key}", value, keys[key])
    return section(**values)


def _value(name: str, value: Any, key: Any) -> Any:
    """`value` as the type of the key's default, or a ConfigError."""
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
        if isinstance(value, list) and all(isinstance(each, str) for each in value):
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
