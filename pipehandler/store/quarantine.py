"""The quarantine: messages in state failed, whose bytes are stored although they could not be parsed; not what has expired.

Every function raises StoreError where the database does not answer, and NoSuchMessage for an id that names nothing in
quarantine. An id is the number of a delivery or the UUID of a message.
"""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..mail.envelope_fields import EnvelopeFields, with_fields
from . import mailbox
from .connection import Store, StoreError
from .mailbox import NoSuchMessage, Row

_LIST = """
SELECT m.id::text AS message, m.received_at, m.size,
       ARRAY(SELECT d.recipient FROM pipehandler.current_delivery d WHERE d.message = m.id ORDER BY d.id) AS recipients, m.error
  FROM pipehandler.message m
 WHERE m.state = 'failed' AND EXISTS (SELECT FROM pipehandler.current_delivery d WHERE d.message = m.id)
 ORDER BY m.received_at DESC, m.id
 LIMIT %(limit)s
"""

_REASONS = """
SELECT m.error, count(*) AS messages, min(m.received_at) AS oldest, max(m.received_at) AS newest
  FROM pipehandler.message m
 WHERE m.state = 'failed' AND EXISTS (SELECT FROM pipehandler.current_delivery d WHERE d.message = m.id)
 GROUP BY m.error
 ORDER BY messages DESC, m.error
"""

_BYTES = """
SELECT d.id, d.recipient, d.original_recipient, d.sender, d.prepended
  FROM pipehandler.current_delivery d
 WHERE d.message = %s::uuid
 ORDER BY d.id
"""

# One statement is one transaction. A message that was parsed meanwhile stays.
_DROP = """
WITH gone AS (DELETE FROM pipehandler.message m WHERE m.id = %s::uuid AND m.state = 'failed' RETURNING m.id),
     deliveries AS (DELETE FROM pipehandler.delivery d USING gone WHERE d.message = gone.id RETURNING d.id)
SELECT (SELECT count(*) FROM gone) AS messages, (SELECT count(*) FROM deliveries) AS deliveries
"""

_TRIES = 3
_DELIVERED_AGAIN = "23503"  # foreign_key_violation: another recipient's delivery of the message came in between
_HEAD = 8_192  # octets that are read of a message to show how its header begins


class Exported(NamedTuple):
    """One file. told: whether it begins with its envelope, which `import` reads; written: False if it was there already."""

    path: Path
    delivery: Row
    told: bool
    written: bool


class FileDiffers(Exception):
    """A file that export would have to overwrite; the text names it and the way out."""


def messages(store: Store, limit: int | None = None) -> list[Row]:
    """What is in quarantine, newest first: each message with its recipients and the reason; None: all."""
    return store.rows(_LIST, {"limit": limit})


def reasons(store: Store) -> list[Row]:
    """How many messages there are for each reason, the most frequent first."""
    return store.rows(_REASONS)


def message(store: Store, name: str) -> Row:
    """One message in quarantine, as mailbox.message gives it."""
    row = mailbox.message(store, name)
    if row["state"] != "failed":
        raise NoSuchMessage(f"{name} is not in quarantine: it was parsed, see `pipehandler show {name}`")
    return row


def head(store: Store, found: str, lines: int = 20) -> list[str]:
    """The first lines of the header of the message with the UUID `found`, decoded somehow; none where its bytes are not stored."""
    rows = store.rows(
        "SELECT substring(r.raw FOR %s) AS raw FROM pipehandler.raw_message r WHERE r.message = %s::uuid",
        [_HEAD, found],
    )
    raw = bytes(rows[0]["raw"]) if rows else b""
    begin = raw.replace(b"\r\n", b"\n").partition(b"\n\n")[0].removesuffix(b"\n")
    return [line.decode("utf-8", "replace") for line in begin.split(b"\n")[:lines]] if begin else []


def export(store: Store, found: str, folder: Path) -> Iterator[Exported]:
    """Write one file into `folder` for each delivery of the message with the UUID `found`: its envelope as fields that Postfix
    would prepend, then the exact bytes.

    A file appears whole or not at all, and replaces none. Raises FileDiffers, and OSError where it cannot be written.
    """
    raw = mailbox.raw(store, found)
    for delivery in store.rows(_BYTES, [found]):
        told = EnvelopeFields(delivery["sender"], delivery["original_recipient"], delivery["recipient"])
        whole = with_fields(bytes(delivery["prepended"] or b""), raw, told)
        path = folder / f"{delivery['id']}-{found}.eml"
        yield Exported(path, delivery, whole is not None, _write(path, raw if whole is None else whole))


def drop(store: Store, found: str) -> int:
    """Delete the message with the UUID `found` and its deliveries, all or nothing; returns how many deliveries it had."""
    for attempt in range(1, _TRIES + 1):
        try:
            (gone,) = store.rows(_DROP, [found])
        except StoreError as error:
            if error.sqlstate != _DELIVERED_AGAIN or attempt == _TRIES:
                raise
        else:
            break
    if not gone["messages"]:
        raise NoSuchMessage(f"{found} is not in quarantine any more; nothing of it was dropped")
    return int(gone["deliveries"])


def _write(path: Path, content: bytes) -> bool:
    """Write a file that nobody else can read; False if it is there already with the same content."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".export-") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
        try:
            os.link(file.name, path)  # unlike a rename it replaces nothing
        except FileExistsError:
            if path.is_symlink() or not path.is_file() or path.read_bytes() != content:
                raise FileDiffers(
                    f"{path} is there already and differs; move it away, or name another folder with --to"
                ) from None
            return False
    return True
