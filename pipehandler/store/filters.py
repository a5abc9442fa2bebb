"""Which deliveries a command concerns: one rule for the filters of `list`, `remove` and `quarantine list`.

A text matches without regard to case. With * it is a pattern for the whole value, in which * stands for anything; a whole
address (LOCAL@DOMAIN) is that address, in whatever spelling of its domain; any other text is a part of the value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .like import escaped, like, whole, words

# Compared as Postfix looks addresses up. One that is longer is none that anyone was issued.
_SENDER = 'pipehandler.canonical(CASE WHEN octet_length(d.sender) <= 998 THEN d.sender END) COLLATE "C"'
_RECIPIENT = 'pipehandler.canonical(d.recipient COLLATE "C") COLLATE "C"'
_FROM = 'pipehandler.canonical(m.from_address) COLLATE "C"'

_CONDITIONS = {
    "ids": "d.id = ANY (%(ids)s::bigint[])",
    "recipient": f"{_RECIPIENT} LIKE pipehandler.canonical(%(recipient)s)",
    "recipient_address": f"{_RECIPIENT} = pipehandler.canonical(%(recipient_address)s)",
    "sender": f"({_SENDER} LIKE pipehandler.canonical(%(sender)s) OR {_FROM} LIKE pipehandler.canonical(%(sender)s)"
    ' OR m.from_name COLLATE "C" ~* %(sender_name)s)',
    "sender_address": f"({_SENDER} = pipehandler.canonical(%(sender_address)s)"
    f" OR {_FROM} = pipehandler.canonical(%(sender_address)s))",
    "subject": 'm.subject COLLATE "C" ~* %(subject)s',
    "lease": "d.lease = %(lease)s",
    "since": "d.received_at >= %(since)s",
    "until": "d.received_at < %(until)s",
    "stored_since": "d.stored_at >= %(stored_since)s",
    "ingress": "d.ingress = %(ingress)s",
    "state": "m.state = %(state)s",
}


@dataclass(frozen=True, slots=True)
class Filters:
    """What must be true of a delivery; None: anything.

    ids: the numbers of deliveries. recipient; sender (the envelope sender, or the address or the name of From); subject: see
    above. lease: the lease that it belongs to. since, until: of received_at, until is exclusive. stored_since: of stored_at.
    ingress: pipe or import. state: of the message, parsed or failed.
    """

    ids: Sequence[int] | None = None
    recipient: str | None = None
    sender: str | None = None
    subject: str | None = None
    lease: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    stored_since: datetime | None = None
    ingress: str | None = None
    state: str | None = None

    @property
    def of_messages(self) -> bool:
        """Whether the condition is about m as well."""
        return (self.sender, self.subject, self.state) != (None, None, None)

    def condition(self) -> tuple[str, dict[str, Any]]:
        """The condition in SQL, "true" for any delivery, and its parameters.

        It is about d, a row of pipehandler.delivery or current_delivery, and m, its row of pipehandler.message.
        """
        parameters: dict[str, Any] = {}
        for name in self.__slots__:
            value = getattr(self, name)
            if value is None:
                continue
            if name in ("recipient", "sender") and is_address(value):
                parameters[f"{name}_address"] = value
            elif name in ("recipient", "sender"):
                parameters[name] = pattern(value)
            else:
                parameters[name] = pattern_of_words(value) if name == "subject" else value
        condition = " AND ".join(_CONDITIONS[name] for name in parameters) or "true"
        if self.sender is not None and "sender" in parameters:
            parameters["sender_name"] = pattern_of_words(self.sender)
        return condition, parameters


EVERYTHING = Filters()
"""Any delivery."""


def pattern(text: str) -> str:
    """The pattern for LIKE that a filter means: with * for the whole value, else for a part of it."""
    return like(text) if "*" in text else f"%{escaped(text)}%"


def pattern_of_words(text: str) -> str:
    """The same as a pattern for ~* (like.words): for text that is not an address."""
    return whole(text) if "*" in text else words(text)


def is_address(text: str) -> bool:
    """Whether a text means one address (LOCAL@DOMAIN)."""
    local, _, domain = text.rpartition("@")
    return bool(local and domain) and "*" not in text
