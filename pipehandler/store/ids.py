"""Ids of stored mail, as an operator types them: the number of a delivery, or the UUID of a message or its beginning.

The beginning of a UUID has eight digits or more. Where it is digits only, a delivery with that number comes first.
"""

import re

from .bigint import bigint
from .connection import Store

_SHORTEST = 8  # digits of the beginning of a UUID
_CANDIDATES = 5  # that an error names

_MESSAGE_OF_DELIVERY = "SELECT d.message::text FROM pipehandler.current_delivery d WHERE d.id = %s"

_DAYS = "SELECT DISTINCT d.day::text FROM pipehandler.delivery d WHERE d.message = %s::uuid"

_CURRENT_MESSAGES = """
SELECT DISTINCT d.message::text
  FROM pipehandler.current_delivery d
 WHERE d.message BETWEEN %s::uuid AND %s::uuid
 ORDER BY 1
 LIMIT %s
"""

# What has expired, too.
_DELIVERY = "SELECT d.id FROM pipehandler.delivery d WHERE d.id = %s"
_MESSAGES = _CURRENT_MESSAGES.replace("current_delivery", "delivery")
_DELIVERIES_OF_MESSAGE = "SELECT d.id FROM pipehandler.delivery d WHERE d.message = %s::uuid ORDER BY d.id"


class NoSuchMessage(Exception):
    """Nothing that is stored has this id, or several messages have it; the text names the id and what to do."""


def message_id(store: Store, name: str) -> str:
    """The UUID of the unexpired message with the id `name`. Raises NoSuchMessage."""
    number = bigint(name)
    uuids = store.values(_MESSAGE_OF_DELIVERY, [number], of=str) if number is not None else []
    return uuids[0] if uuids else _message(store, name, _CURRENT_MESSAGES)


def days(store: Store, uuid: str) -> list[str]:
    """The days on which a message was stored: a statement that names them reads no other partitions.

    The same message that came on two days, for two recipients, has a row for each.
    """
    return store.values(_DAYS, [uuid], of=str)


def delivery_ids(store: Store, name: str) -> list[int]:
    """The numbers of the deliveries that the id `name` means, expired or not: one, or all of a message. Raises NoSuchMessage."""
    number = bigint(name)
    ids = store.values(_DELIVERY, [number], of=int) if number is not None else []
    return ids or store.values(_DELIVERIES_OF_MESSAGE, [_message(store, name, _MESSAGES)], of=int)


def no_such_message(name: str) -> NoSuchMessage:
    """The error that nothing with the id `name` is stored."""
    return NoSuchMessage(f"nothing with the id {name} is stored; `pipehandler list` shows what is")


def _message(store: Store, name: str, statement: str) -> str:
    """The UUID that begins with `name`."""
    digits = name.replace("-", "").lower()
    if not re.fullmatch(rf"[0-9a-f]{{{_SHORTEST},32}}", digits):
        if bigint(name) is not None:
            raise no_such_message(name)
        raise NoSuchMessage(
            f"{name!r} is not an id: pass a delivery's number, or a message's UUID or at least {_SHORTEST} digits of it"
        )
    uuids = store.values(statement, [digits.ljust(32, "0"), digits.ljust(32, "f"), _CANDIDATES + 1], of=str)
    if not uuids:
        raise no_such_message(name)
    if len(uuids) > 1:
        more = " and more" if len(uuids) > _CANDIDATES else ""
        raise NoSuchMessage(
            f"{name} is the beginning of several ids: {', '.join(uuids[:_CANDIDATES])}{more}; pass more digits"
        )
    return uuids[0]
