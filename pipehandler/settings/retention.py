"""The rules of retention, the tables [[retention]] of the configuration: how long mail is kept.

The first rule whose patterns all match a delivery decides; without one it is kept for ever. What the rules do is said in
sql/0008_retention.sql, and `pipehandler expire` brings them there: to a delivery they cost nothing.
"""

from datetime import timedelta
from typing import Any, NamedTuple

from .duration import FOREVER, period

_ADDRESS = 'a pattern such as "*@example.com", in which * stands for anything'
_TIME = f'a number with a unit (s, m, h, d, w), such as "30d", or "{FOREVER}"'


class Key(NamedTuple):
    """A key of a rule: what it means, what is allowed, and what it is where it is missing."""

    meaning: str
    allowed: str
    missing: str


PATTERNS = {
    "recipient": Key("whose mail; the case does not matter", _ADDRESS, "anybody's"),
    "sender": Key('from whom: the envelope sender or From; "" is the null sender of bounces', _ADDRESS, "anybody"),
    "list_id": Key("of which mailing list (RFC 2919)", 'a pattern such as "*.example.com"', "any, or none"),
}
TIMES = {
    "keep": Key("how long from when it was received", _TIME, "forever"),
    "raw": Key("the same for its exact bytes, where that is shorter", _TIME, "as long as the mail"),
    "attachments": Key("the same for the contents of its attachments", _TIME, "as long as the mail"),
}
KEYS = PATTERNS | TIMES


class Rule(NamedTuple):
    """One rule. A pattern that is None matches everything; a time that is None ends never (raw, attachments: with the mail)."""

    recipient: str | None = None
    sender: str | None = None
    list_id: str | None = None
    keep: timedelta | None = None
    raw: timedelta | None = None
    attachments: timedelta | None = None


def rules(tables: Any) -> tuple[Rule, ...]:
    """The tables [[retention]]. Raises ValueError, which names the rule, the key, the value and what is allowed."""
    if not isinstance(tables, list) or not all(isinstance(each, dict) for each in tables):
        raise ValueError(f"retention = {tables!r}; allowed: tables, each under a line [[retention]]")
    found = []
    for number, table in enumerate(tables, 1):
        try:
            found.append(_rule(table))
        except ValueError as error:
            raise ValueError(f"[[retention]], rule {number}: {error}") from None
    return tuple(found)


def _rule(table: dict[str, Any]) -> Rule:
    for key, value in table.items():
        if key not in KEYS:
            raise ValueError(f"{key} is not a key; a rule has {', '.join(KEYS)}")
        if not isinstance(value, str) or "\0" in value or (not value and key != "sender"):
            raise ValueError(f"{key} = {value!r}; allowed: {KEYS[key].allowed}")
    if not table.keys() & TIMES.keys():
        raise ValueError(f"says nothing; a rule has one of {', '.join(TIMES)} at least")
    read: dict[str, Any] = {key: _time(key, value) if key in TIMES else value for key, value in table.items()}
    return Rule(**read)


def _time(key: str, value: str) -> timedelta | None:
    try:
        return period(value)
    except ValueError:
        raise ValueError(f"{key} = {value!r}; allowed: {KEYS[key].allowed}") from None
