"""The quarantine: unexpired messages in state failed, whose raw bytes are stored although they could not be parsed.

An id is the number of a delivery or the UUID of a message. Every function raises StoreError if the database fails, and
NoSuchMessage if no message in quarantine has that id.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from ..mail.envelope_fields import EnvelopeFields, with_fields
from . import messages as stored
from .connection import Store
from .errors import CONFLICTS, retried
from .filters import EVERYTHING, Filters
from .ids import NoSuchMessage, days, message_id
from .readable import readable_rows
from .rows import Message

# The quarantine is that of all days: these read the index of failed messages of each.
_LIST = """
SELECT m.id::text AS message, m.received_at, m.size,
       ARRAY(SELECT d.recipient FROM pipehandler.current_delivery d
              WHERE d.day = m.day AND d.message = m.id ORDER BY d.id) AS recipients, m.error
  FROM pipehandler.message m
 WHERE m.state = 'failed'
   AND EXISTS (SELECT FROM pipehandler.current_delivery d WHERE d.day = m.day AND d.message = m.id AND {})
 ORDER BY m.received_at DESC, m.id
 LIMIT %(limit)s
"""

_IDS = """
SELECT o.id::text
  FROM (SELECT DISTINCT m.id
          FROM pipehandler.message m
         WHERE m.state = 'failed'
           AND EXISTS (SELECT FROM pipehandler.current_delivery d WHERE d.day = m.day AND d.message = m.id)) AS o
 ORDER BY o.id
"""

_REASONS = """
SELECT m.error, count(*) AS messages, min(m.received_at) AS oldest, max(m.received_at) AS newest
  FROM pipehandler.message m
 WHERE m.state = 'failed'
   AND EXISTS (SELECT FROM pipehandler.current_delivery d WHERE d.day = m.day AND d.message = m.id AND {})
 GROUP BY m.error
 ORDER BY messages DESC, m.error
"""

_DELIVERIES = """
SELECT d.id, d.recipient, d.original_recipient, d.sender, d.prepended
  FROM pipehandler.current_delivery d
 WHERE d.message = %s::uuid
 ORDER BY d.id
"""

_DELIVERY_COUNT = "SELECT count(*) FROM pipehandler.delivery d WHERE d.message = %s::uuid"

# One statement is one transaction. A message that has been parsed since stays.
_DROP = """
WITH dropped AS (
    DELETE FROM pipehandler.message m
     WHERE m.day = ANY (%s::date[]) AND m.id = %s::uuid AND m.state = 'failed'
    RETURNING m.day, m.id),
     deliveries AS (
    DELETE FROM pipehandler.delivery d USING dropped WHERE d.day = dropped.day AND d.message = dropped.id RETURNING d.id)
SELECT (SELECT count(*) FROM dropped) AS messages, (SELECT count(*) FROM deliveries) AS deliveries
"""

_FAILED = """
SELECT 1
  FROM pipehandler.message m
 WHERE m.day = ANY (%s::date[]) AND m.id = %s::uuid AND m.state = 'failed'
 LIMIT 1
"""

_HEADER = """
SELECT substring(r.raw FOR %s)
  FROM pipehandler.raw_message r
 WHERE r.day = ANY (%s::date[]) AND r.message = %s::uuid
 LIMIT 1
"""

_HEADER_OCTETS = 8_192  # that are read to show the first lines
_TRIES = 3
_PAUSE = (0.01, 0.05)  # seconds


@dataclass(frozen=True, slots=True)
class Entry:
    """One message in quarantine. size: octets. error: the reason."""

    message: str
    received_at: datetime
    size: int
    recipients: list[str]
    error: str


@dataclass(frozen=True, slots=True)
class Reason:
    """Why messages are in quarantine, how many there are, and when the first and the last of them were received."""

    error: str
    messages: int
    oldest: datetime
    newest: datetime


class Exported(NamedTuple):
    """One file, for one delivery.

    delivery:      the number of the delivery.
    with_envelope: whether the file begins with the envelope, which `import` reads.
    written:       False if the file was there already.
    """

    path: Path
    delivery: int
    with_envelope: bool
    written: bool


class FileDiffers(Exception):
    """A file that export would have to overwrite; the text names it and what to do."""


class _Delivery(NamedTuple):
    id: int
    recipient: str
    original_recipient: str | None
    sender: str
    prepended: bytes | None


class _Dropped(NamedTuple):
    messages: int
    deliveries: int


def messages(store: Store, filters: Filters = EVERYTHING, limit: int | None = None) -> list[Entry]:
    """The messages in quarantine that `filters` select, newest first, at most `limit`; None: all."""
    condition, parameters = filters.condition()
    return readable_rows(store, _LIST.format(condition), {**parameters, "limit": limit}, Entry, "message", "message")


def message_ids(store: Store) -> list[str]:
    """The ids of all messages in quarantine, also of those that cannot be read."""
    return store.values(_IDS, of=str)


def reasons(store: Store, filters: Filters = EVERYTHING) -> list[Reason]:
    """The reasons of the messages that `filters` select, the most frequent first."""
    condition, parameters = filters.condition()
    name = "the times of messages in quarantine because of"
    return readable_rows(store, _REASONS.format(condition), parameters, Reason, name, "error")


def message(store: Store, name: str) -> Message:
    """One message in quarantine, as messages.message returns it."""
    return stored.message(store, failed_id(store, name))


def failed_id(store: Store, name: str) -> str:
    """The UUID of a message in quarantine, whether or not its row can be read. Raises NoSuchMessage."""
    uuid = message_id(store, name)
    if not store.values(_FAILED, [days(store, uuid), uuid], of=int):
        raise NoSuchMessage(f"{name} is not in quarantine: it was parsed, see `pipehandler show {name}`")
    return uuid


def header_lines(store: Store, uuid: str, lines: int = 20) -> list[str]:
    """The first lines of a message's header, decoded leniently; empty if its raw bytes are not stored any more."""
    raw = b"".join(store.values(_HEADER, [_HEADER_OCTETS, days(store, uuid), uuid], of=bytes))
    header = raw.replace(b"\r\n", b"\n").partition(b"\n\n")[0].removesuffix(b"\n")
    return [line.decode("utf-8", "replace") for line in header.split(b"\n")[:lines]] if header else []


def export(store: Store, uuid: str, folder: Path) -> Iterator[Exported]:
    """Write one file into `folder` for each delivery of a message: its envelope as the fields that Postfix would
    prepend, then the exact bytes.

    A file appears whole or not at all, and replaces no other. Raises FileDiffers, and OSError if it cannot be written.
    """
    raw = stored.raw(store, uuid)
    for delivery in store.rows(_DELIVERIES, [uuid], row=_Delivery):
        envelope = EnvelopeFields(delivery.sender, delivery.original_recipient, delivery.recipient)
        content = with_fields(bytes(delivery.prepended or b""), raw, envelope)
        path = folder / f"{delivery.id}-{uuid}.eml"
        yield Exported(path, delivery.id, content is not None, _write(path, raw if content is None else content))


def deliveries(store: Store, uuid: str) -> int:
    """How many deliveries `drop` would delete with the message."""
    return store.values(_DELIVERY_COUNT, [uuid], of=int)[0]


def drop(store: Store, uuid: str) -> int:
    """Delete a message in quarantine and its deliveries, all or nothing; returns how many deliveries it had."""
    # A conflict: another recipient's delivery of the message was stored meanwhile.
    (dropped,) = retried(lambda: store.rows(_DROP, [days(store, uuid), uuid], row=_Dropped), CONFLICTS, _TRIES, _PAUSE)
    if not dropped.messages:
        raise NoSuchMessage(f"{uuid} is not in quarantine any more; nothing was dropped")
    return dropped.deliveries


def _write(path: Path, content: bytes) -> bool:
    """Write a file that only this account can read; False if it is there already with the same content."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".export-") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        try:
            os.link(file.name, path)  # unlike a rename it replaces nothing
        except FileExistsError:
            if path.is_symlink() or not path.is_file() or path.read_bytes() != content:
                raise FileDiffers(
                    f"{path} exists and differs: move it away, or name another folder with --to"
                ) from None
            return False
    return True
