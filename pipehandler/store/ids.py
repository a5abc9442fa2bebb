"""Ids of stored mail, as an operator types them: the number of a delivery or the UUID of a message."""

from uuid import UUID

from .bigint import bigint
from .connection import Store

_MESSAGE_OF_DELIVERY = "SELECT d.message::text FROM pipehandler.current_delivery d WHERE d.id = %s"

_CURRENT_MESSAGE = "SELECT d.message::text FROM pipehandler.current_delivery d WHERE d.message = %s::uuid LIMIT 1"


class NoSuchMessage(Exception):
    """Nothing that is stored has this id; the text names the id and what to do."""


def message_id(store: Store, name: str) -> str:
    """The UUID of the message with the id `name`, a delivery's number or a message's UUID."""
    number = bigint(name)
    if number is not None:
        uuids = store.values(_MESSAGE_OF_DELIVERY, [number], of=str)
    else:
        try:
            uuid = str(UUID(name))
        except ValueError:
            raise NoSuchMessage(f"{name!r} is not an id: pass a delivery's number or a message's UUID") from None
        uuids = store.values(_CURRENT_MESSAGE, [uuid], of=str)
    if not uuids:
        raise no_such_message(name)
    return uuids[0]


def no_such_message(name: str) -> NoSuchMessage:
    """The error that nothing with the id `name` is stored."""
    return NoSuchMessage(f"nothing with the id {name} is stored; `pipehandler list` shows what is")
