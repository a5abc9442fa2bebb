"""The rules of retention, the tables [[retention]] of the configuration: how long mail is kept.

The first rule whose patterns all match a delivery applies; without one it is kept forever. SQL functions of the schema apply
the rules, and `pipehandler expire` stores them there, so a delivery does not pay for them.
"""

from datetime import timedelta
from typing import Any, NamedTuple

from .duration import FOREVER, period

_ADDRESS = 'a pattern such as "*@example.com", in which * stands for anything'
_TIME = f'a number with a unit (s, m, h, d, w), such as "30d", or "{FOREVER}"'


class Key(NamedTuple):
    """A key of a rule: its meaning, what is allowed, and what applies if it is missing."""

    meaning: str
    allowed: str
    missing: str


PATTERNS = {
    "recipient": Key("the recipient's address; case does not matter", _ADDRESS, "any"),
    "sender": Key('the envelope sender or From; "" is the null sender of bounces', _ADDRESS, "any"),
    "list_id": Key("the mailing list (RFC 2919)", 'a pattern such as "*.example.com"', "any, or none"),
}
TIMES = {
    "keep": Key("how long mail is kept, from when the database stored it", _TIME, "forever"),
    "raw": Key("how long its exact bytes are kept, if that is shorter", _TIME, "as long as the mail"),
    "attachments": Key(
        "how long the contents of its attachments are kept, if that is shorter", _TIME, "as long as the mail"
    ),
}
KEYS = PATTERNS | TIMES


class Rule(NamedTuple):
    """One rule. A pattern that is None matches everything. A time that is None never ends (raw, attachments: with the mail)."""

    recipient: str | None = None
    sender: str | None = None
    list_id: str | None = None
    keep: timedelta | None = None
    raw: timedelta | None = None
    attachments: timedelta | None = None


def rules(tables: Any) -> tuple[Rule, ...]:
    """Read the tables [[retention]]. Raises ValueError, which names the rule, the key, the value and what is allowed."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError(f"retention = {tables!r}; allowed: tables, each under a line [[retention]]")
    rules = []
    for number, table in enumerate(tables, 1):
        try:
            rules.append(_rule(table))
        except ValueError as error:
            raise ValueError(f"[[retention]], rule {number}: {error}") from None
    return tuple(rules)


def _rule(table: dict[str, Any]) -> Rule:
    for key, value in table.items():
        if key not in KEYS:
            raise ValueError(f"{key} is not a key; a rule has {', '.join(KEYS)}")
        if not isinstance(value, str) or "\0" in value or (not value and key != "sender"):
            raise ValueError(f"{key} = {value!r}; allowed: {KEYS[key].allowed}")
    if not table.keys() & TIMES.keys():
        raise ValueError(f"no effect; a rule needs at least one of {', '.join(TIMES)}")
    values: dict[str, Any] = {key: _time(key, value) if key in TIMES else value for key, value in table.items()}
    return Rule(**values)


def _time(key: str, value: str) -> timedelta | None:
    try:
        return period(value)
    except ValueError:
        raise ValueError(f"{key} = {value!r}; allowed: {KEYS[key].allowed}") from None
