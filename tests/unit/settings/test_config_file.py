"""The configuration file: every key with its default, its type and its bounds; and the errors for invalid values."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from pipehandler.settings.config import RENAMED, SECTIONS, Config, memory_needed
from pipehandler.settings.config import keys as keys_of
from pipehandler.settings.config_file import DEFAULT_PATH, ConfigError, load
from pipehandler.settings.retention import Rule

DEFAULTS = {
    "lmtp.socket": "",
    "lmtp.address": "",
    "lmtp.accounts": ("postfix",),
    "lmtp.max_connections": 100,
    "lmtp.trust_orcpt": False,
    "watch.maildirs": (),
    "watch.stored": "keep",
    "watch.workers": 2,
    "watch.scan_interval": 5,
    "database.conninfo": "",
    "database.admin_conninfo": "",
    "database.connect_timeout": 5,
    "database.statement_timeout": 20,
    "database.mail_hosts": 1,
    "database.servers": 0,
    "limits.deadline": 60,
    "limits.message_size": 52_428_800,
    "limits.parse_timeout": 10,
    "limits.memory": 1_073_741_824,
    "store.attachments": True,
    "store.mail_host": "",
    "store.notify": True,
    "recipients.policy": "any",
    "recipients.expired": "store",
    "recipients.delimiter": "+",
    "recipients.domain": "",
    "authentication.trusted_authserv_ids": (),
    "state.directory": "/var/lib/pipehandler",
    "log.syslog": True,
    "log.file": "",
    "serve.socket": "/run/pipehandler/socket",
    "serve.workers": 4,
    "serve.queue_timeout": 10,
    "serve.max_messages": 1000,
    "serve.max_growth": 67_108_864,
    "sentry.dsn": "",
    "sentry.quarantined": False,
    "sentry.min_interval": 3600,
    "expire.max_change_percent": 20,
    "web.listen": "127.0.0.1:8025",
    "web.hosts": (),
    "web.public": False,
    "web.domains": (),
    "web.conninfo": "",
    "web.connections": 4,
    "web.trusted_proxies": (),
    "web.ttl": 600,
    "web.extension": 600,
    "web.max_life": 86400,
    "web.grace": 86400,
    "web.held_days": 30,
    "web.reserved_names": (),
    "web.max_messages": 1000,
    "web.domain_opened_per_hour": 10000,
    "web.max_inboxes": 100000,
    "web.max_octets": 104857600,
    "web.opened_per_hour": 30,
    "web.streams": 20000,
    "web.streams_per_owner": 4,
    "web.streams_per_viewer": 50,
    "web.streams_per_network": 100,
    "web.operator": "",
    "web.contact": "",
    "web.postal_address": "",
    "web.abuse": "",
    "web.design": "",
    "web.articles": "",
    "web.status_socket": "/run/pipehandler-web/status",
}
BOUNDS = {
    "lmtp.max_connections": (1, 300),
    "watch.workers": (1, 64),
    "watch.scan_interval": (1, 3600),
    "database.connect_timeout": (2, 300),
    "database.statement_timeout": (1, 300),
    "database.mail_hosts": (1, 1000),
    "database.servers": (0, 8),
    "limits.deadline": (5, 900),
    "limits.message_size": (1_024, 1_000_000_000),
    "limits.parse_timeout": (1, 300),
    "limits.memory": (268_435_456, 1 << 40),
    "serve.workers": (1, 256),
    "serve.queue_timeout": (1, 300),
    "serve.max_messages": (1, 1_000_000),
    "serve.max_growth": (1_048_576, 1 << 40),
    "sentry.min_interval": (1, 31_536_000),
    "expire.max_change_percent": (0, 100),
    "web.connections": (1, 64),
    "web.ttl": (60, 31_536_000),
    "web.extension": (60, 31_536_000),
    "web.max_life": (60, 315_360_000),
    "web.grace": (0, 31_536_000),
    "web.held_days": (0, 3_650),
    "web.max_messages": (1, 1_000_000),
    "web.max_octets": (1_048_576, 1_099_511_627_776),
    "web.opened_per_hour": (1, 100_000),
    "web.domain_opened_per_hour": (1, 100_000_000),
    "web.max_inboxes": (1, 100_000_000),
    "web.streams": (1, 100_000),
    "web.streams_per_owner": (1, 1_000),
    "web.streams_per_viewer": (1, 10_000),
    "web.streams_per_network": (1, 100_000),
}
CHOICES = {
    "recipients.policy": ("any", "known"),
    "recipients.expired": ("store", "reject"),
    "watch.stored": ("keep", "remove"),
}
# Keys that must accompany a value at its bound, so that the file as a whole is consistent.
BESIDE = {
    "limits.deadline = 5": "limits.parse_timeout = 1",
    "limits.message_size = 1000000000": f"limits.memory = {1 << 40}",
    "limits.parse_timeout = 300": "limits.deadline = 900",
    "limits.memory = 268435456": "limits.message_size = 1024",
}
KINDS = {str: "a string without NUL", bool: "true or false", tuple: "a list of strings"}
SAMPLES: dict[type, tuple[str, Any]] = {str: ('"x"', "x"), bool: ("false", False), tuple: ('["a", "b"]', ("a", "b"))}
WRONG = {
    str: ["1", "true", '["x"]', '"a\\u0000b"', "{}", "2020-01-01"],
    bool: ["1", '"true"', "[]"],
    tuple: ['"x"', "[1]", "[[]]", "true"],
    int: ["true", '"5"', "5.0", "[5]", "inf"],
}


def read(folder: Path, text: str | bytes) -> Config:
    """The configuration of a file with this text; keys are dotted, which TOML allows."""
    path = folder / "pipehandler.toml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load(str(path))


def refusal(folder: Path, text: str | bytes) -> str:
    """The error for a file with this text."""
    with pytest.raises(ConfigError) as refused:
        read(folder, text)
    reported = str(refused.value)
    assert reported.startswith(f"{folder}/pipehandler.toml: ")
    return reported.partition(": ")[2]


def value(config: Config, key: str) -> Any:
    """The value of a dotted key."""
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def keys() -> list[str]:
    """All keys in the code."""
    return [f"{name}.{key}" for name, section in SECTIONS.items() for key in keys_of(section)]


def test_defaults(tmp_path: Path) -> None:
    """An empty file gives the defaults, and there are no other keys. The file has the same place for every process."""
    assert os.path.isabs(DEFAULT_PATH)
    config = read(tmp_path, "")
    assert config == Config()
    assert {key: value(config, key) for key in keys()} == DEFAULTS


@pytest.mark.parametrize("key", [key for key in DEFAULTS if key not in BOUNDS | CHOICES])
def test_value_is_taken(tmp_path: Path, key: str) -> None:
    """A value of the right type replaces the default."""
    written, expected = SAMPLES[type(DEFAULTS[key])]
    assert value(read(tmp_path, f"{key} = {written}"), key) == expected


@pytest.mark.parametrize(("key", "choice"), [(key, choice) for key, choices in CHOICES.items() for choice in choices])
def test_choices(tmp_path: Path, key: str, choice: str) -> None:
    """For a key with choices, each choice is accepted, and nothing else."""
    assert value(read(tmp_path, f'{key} = "{choice}"'), key) == choice
    assert f'{key} = "{choice}!"'.replace('"', "'") in refusal(tmp_path, f'{key} = "{choice}!"')


@pytest.mark.parametrize(("key", "bound"), [(key, bound) for key, bounds in BOUNDS.items() for bound in bounds])
def test_bounds_are_allowed(tmp_path: Path, key: str, bound: int) -> None:
    """The lowest and the highest value are allowed."""
    line = f"{key} = {bound}"
    assert value(read(tmp_path, f"{line}\n{BESIDE.get(line, '')}"), key) == bound


@pytest.mark.parametrize(
    ("key", "beyond"), [(key, beyond) for key, (low, high) in BOUNDS.items() for beyond in (low - 1, high + 1, -high)]
)
def test_beyond_bounds(tmp_path: Path, key: str, beyond: int) -> None:
    """Below the lowest and above the highest is refused, with the key, the value and the bounds."""
    low, high = BOUNDS[key]
    assert refusal(tmp_path, f"{key} = {beyond}") == f"{key} = {beyond}; allowed: a whole number from {low} to {high}"


@pytest.mark.parametrize(
    ("key", "wrong"), [(key, wrong) for key, default in DEFAULTS.items() for wrong in WRONG[type(default)]]
)
def test_wrong_type(tmp_path: Path, key: str, wrong: str) -> None:
    """A value of another type is refused, with the key and what is allowed; nothing is converted."""
    reported = refusal(tmp_path, f"{key} = {wrong}")
    assert reported.startswith(f"{key} = ")
    if key in CHOICES:
        assert reported.endswith('; allowed: "{}" or "{}"'.format(*CHOICES[key]))
        return
    assert reported.endswith(
        KINDS.get(type(DEFAULTS[key]), "a whole number from {} to {}".format(*BOUNDS.get(key, ("", ""))))
    )


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        (
            "[databases]",
            "[databases] is not a section; the sections are database, limits, store, recipients, authentication, state, log",
        ),
        ("[[database]]", "database = [{}] is outside a section"),
        ("database = 1", "database = 1 is outside a section"),
        ("conninfo = 'x'", "[conninfo] is not a section"),
        ("log.files = 'x'", "log.files is not a key; [log] has syslog, file"),
        ("log.File = 'x'", "log.File is not a key"),
        ("limits.parse_timeout = 60", "limits.parse_timeout = 60 leaves no time within limits.deadline = 60"),
        ("limits.parse_seconds = 60", "limits.parse_seconds = 60 leaves no time within limits.deadline = 60"),
        ("limits.deadline = 9", "limits.parse_timeout = 10 leaves no time within limits.deadline = 9"),
        ("limits.memory = 268435456", "limits.memory = 268435456 is too small for limits.message_size = 52428800"),
        ("limits.message_size = 900000000", f"; allowed: {memory_needed(900_000_000)} and more"),
        ("log.syslog = ", "not a TOML file"),
        ("log.syslog = true\nlog.syslog = true", "not a TOML file"),
        (b"log.file = '\xff'", "not a TOML file"),
        (b"\x00", "not a TOML file"),
    ],
)
def test_what_is_said(tmp_path: Path, text: str | bytes, reported: str) -> None:
    """An invalid file is refused, with the mistake and the valid choices."""
    assert reported in refusal(tmp_path, text)


@pytest.mark.parametrize("old", RENAMED)
def test_old_name_of_a_key(tmp_path: Path, old: str) -> None:
    """A file for the previous release works: an old name stands for the new key, with its bounds; an error names it as
    written."""
    new = RENAMED[old]
    low, high = BOUNDS[new]
    line = f"{old} = {low}\n{BESIDE.get(f'{new} = {low}', '')}"
    config = read(tmp_path, line)
    assert (value(config, new), config.old_keys) == (low, (old,))
    assert config._replace(old_keys=()) == read(tmp_path, line.replace(old, new))
    assert refusal(tmp_path, f"{old} = {high + 1}").startswith(f"{old} = {high + 1}; allowed: ")
    assert refusal(tmp_path, f"{old} = true").startswith(f"{old} = True; allowed: ")


@pytest.mark.parametrize("old", RENAMED)
def test_old_and_new_name_of_a_key(tmp_path: Path, old: str) -> None:
    """A key under both names is refused, in either order, even if the values agree; the text names both."""
    new = RENAMED[old]
    lines = [f"{key} = {BOUNDS[new][0]}" for key in (old, new)]
    expected = f"{old} is the old name of {new}, and both are set; remove {old}"
    assert [refusal(tmp_path, "\n".join(each)) for each in (lines, lines[::-1])] == [expected] * 2


def test_missing_file(tmp_path: Path) -> None:
    """A missing file is refused, with a hint."""
    with pytest.raises(ConfigError, match=r"^/.*/none\.toml: No such file or directory; create it, or .* --config$"):
        load(str(tmp_path / "none.toml"))


def test_directory(tmp_path: Path) -> None:
    """A directory is refused."""
    with pytest.raises(ConfigError, match="Is a directory"):
        load(str(tmp_path))


def test_unreadable_file(folder: Path) -> None:
    """A file that this account may not read is refused."""
    path = folder / "pipehandler.toml"
    path.touch(mode=0)
    identity = os.geteuid()
    if identity == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(ConfigError, match="Permission denied"):
            load(str(path))
    finally:
        os.seteuid(identity)


def test_retention(tmp_path: Path) -> None:
    """The rules are in the order of the file; a key that a rule leaves out is None: any address, forever, as long as
    the mail."""
    config = read(
        tmp_path,
        """
        [[retention]]
        recipient = "*@Example.com"
        list_id = "*.sender.example"
        keep = "30d"
        raw = "12h"
        [[retention]]
        sender = ""
        keep = "forever"
        attachments = "2w"
        """,
    )
    assert config.retention == (
        Rule(recipient="*@Example.com", list_id="*.sender.example", keep=timedelta(days=30), raw=timedelta(hours=12)),
        Rule(sender="", attachments=timedelta(weeks=2)),
    )
    assert read(tmp_path, "").retention == ()


@pytest.mark.parametrize(
    ("text", "reported"),
    [
        (
            "keep = '1 day'",
            "rule 2: keep = '1 day'; allowed: a number with a unit (s, m, h, d, w), such as \"30d\", or",
        ),
        ("keep = 30", "rule 2: keep = 30; allowed: a number"),
        ("raw = '0d'", "rule 2: raw = '0d'; allowed: a number"),
        ("attachments = ''", "rule 2: attachments = ''; allowed: a number"),
        ("recipient = ''\nkeep = '1d'", "rule 2: recipient = ''; allowed: a pattern"),
        ("list_id = ''\nkeep = '1d'", "rule 2: list_id = ''; allowed: a pattern"),
        ("sender = ['a']\nkeep = '1d'", "rule 2: sender = ['a']; allowed: a pattern"),
        ("sender = \"a\\u0000\"\nkeep = '1d'", "rule 2: sender = 'a\\x00'; allowed: a pattern"),
        (
            "subject = '*'\nkeep = '1d'",
            "rule 2: subject is not a key; a rule has recipient, sender, list_id, keep, raw",
        ),
        ("recipient = '*'", "rule 2: no effect; a rule needs at least one of keep, raw, attachments"),
    ],
)
def test_wrong_rule(tmp_path: Path, text: str, reported: str) -> None:
    """An invalid rule is refused, with its number, the key, the value and what is allowed."""
    assert reported in refusal(tmp_path, f"[[retention]]\nkeep = '1d'\n[[retention]]\n{text}\n")


@pytest.mark.parametrize("text", ["retention = 1", "[retention]\nkeep = '1d'", "retention = ['x']"])
def test_no_rules(tmp_path: Path, text: str) -> None:
    """Anything but an array of tables is refused, with an example of one."""
    assert "allowed: tables, each under a line [[retention]]" in refusal(tmp_path, text)
